"""The studio's page in Chromium: every view by mouse and by keyboard, sound, files, links.

One browser and one server with tiny untrained models serve all tests. Without Chromium the tests
are skipped, or fail if MUSICVAE_REQUIRE_BROWSER is set; the one of accessibility also needs
`npm ci --ignore-scripts` in tests/browser.
"""

from __future__ import annotations

import pathlib
import zipfile

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from data_pipeline.codecs.codec import CODECS
from data_pipeline.extraction.engines import extract_file
from data_pipeline.render.files import write_midi
from musicvae_jax.tasks import Task, get_task
from tests.support.browser import require
from tests.support.example_rows import random_rows
from tests.support.studio_page import (
    FORECASTER,
    TASKS,
    show,
    state,
    tokens,
    type_sketch,
    use_model,
    wait,
)

AXE = pathlib.Path(__file__).parents[2] / "browser/node_modules/axe-core/axe.min.js"
SCALE = "60 _ 62 _ 64 65 67 69 71 72"
TWO_BARS = {
    "mel_2bar": SCALE + 14 * " r" + " 60 _ _ 67 _ _ 72 _",
    "drums_2bar": "KC . HS . KH . . S LO . . . M T R K" + 15 * " ." + " SO",
}


def drag(page: Page, selector: str, path: list[tuple[float, float]]) -> None:
    """Drag over an element along places given as shares of its width and height."""
    box = page.locator(selector).bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in path]
    page.mouse.move(*places[0])
    page.mouse.down()
    for x, y in places[1:]:
        page.mouse.move(x, y, steps=8)
    page.mouse.up()


def test_the_puck_follows_the_mouse_and_the_arrow_keys(page: Page) -> None:
    drag(page, ".grid", [(0.5, 0.5), (0.99, 0.01)])
    assert state(page)["puck"] == [0, 6]
    at_corner = tokens(page)
    assert page.locator(".cell.puck").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert state(page)["puck"] == [1, 5]
    assert tokens(page) != at_corner
    expect(page.locator("#now h2")).to_have_text("Blend 83% right, 17% down")


def test_a_path_is_played_bar_by_bar(page: Page) -> None:
    page.get_by_role("button", name="Draw a path").click()
    drag(page, ".grid", [(0.07, 0.07), (0.07, 0.93)])
    found = state(page)
    assert found["path"] == [[row, 0] for row in range(7)]
    assert len(found["now"]["tokens"]) == 7 * 16
    page.wait_for_selector(".cell.heard")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()


def test_corners_are_sampled_chosen_cleared_and_drawn(page: Page) -> None:
    corner = page.locator(".corner0")
    before = state(page)["corners"]
    corner.get_by_role("button", name="Sample").click()
    wait(page, "before => studio.app.state.corners[0].label !== before", before[0]["label"])
    expect(corner.get_by_text("the model's version")).to_be_visible()
    corner.get_by_role("combobox").select_option(index=1)
    expect(corner.get_by_text("an example")).to_be_visible()
    corner.get_by_role("button", name="Clear").click()
    expect(page.get_by_text("Fill the empty corner to blend.")).to_be_visible()
    corner.get_by_role("button", name="Draw").press("Enter")
    assert state(page)["view"] == "sketch"
    type_sketch(page, "K . S . K . S")
    page.get_by_label("Put this piece into a corner").select_option("0")
    show(page, "Palette")
    expect(page.get_by_text("drag the white puck")).to_be_visible()
    assert state(page)["corners"][0]["tokens"][:7] == [1, 0, 2, 0, 1, 0, 2]
    assert state(page)["corners"][1:] == before[1:]


def test_sliders_change_the_piece(page: Page) -> None:
    show(page, "Shape")
    slider = page.get_by_label("snare density")
    slider.focus()
    slider.press("End")
    wait(page, "studio.app.state.now.label === 'Shaped piece'")
    assert state(page)["shape"]["amounts"] == {"snare_density": 1.5}
    expect(page.locator(".slider").filter(has_text="snare density")).to_contain_text("→")
    shaped = tokens(page)
    drag(page, "#slider-similar", [(0.02, 0.5), (0.9, 0.5)])
    wait(page, "shaped => String(studio.app.state.now.tokens) !== String(shaped)", shaped)
    assert state(page)["shape"]["similar"] == pytest.approx(0.9, abs=0.05)
    original = state(page)["shape"]["row"]
    page.get_by_role("button", name="Use as original").click()
    assert state(page)["shape"]["row"] != original
    assert state(page)["shape"]["amounts"] == {}


def test_a_sketch_is_drawn_with_mouse_and_keyboard_and_continued(page: Page) -> None:
    show(page, "Sketch")
    page.get_by_role("button", name="Clear").click()
    box = page.get_by_role("application", name="Your notes").bounding_box()
    assert box is not None
    left, height = 58.0, box["height"] / 9
    width = (box["width"] - left) / 32
    page.mouse.click(box["x"] + left + 0.5 * width, box["y"] + 8.5 * height)
    page.mouse.click(box["x"] + left + 4.5 * width, box["y"] + 7.5 * height)
    assert state(page)["sketch"]["tokens"][:5] == [1, 0, 0, 0, 2]
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert state(page)["sketch"]["tokens"][:7] == [1, 0, 0, 0, 2, 0, 4]
    assert tokens(page) == state(page)["sketch"]["tokens"]
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("button", name="Play Continuation 4")).to_be_visible()
    page.get_by_role("button", name="Vary").press("Enter")
    expect(page.get_by_role("button", name="Play Variation 4")).to_be_visible()
    page.get_by_role("button", name="Reconstruct").click()
    page.get_by_role("button", name="Play The model's version").click()
    expect(page.locator("#now h2")).to_have_text("The model's version")


def test_a_melody_is_dragged_longer_and_transposed(page: Page) -> None:
    use_model(page, "mel_2bar")
    type_sketch(page, SCALE)
    assert state(page)["sketch"]["tokens"][:11] == [41, 0, 43, 0, 45, 46, 48, 50, 52, 53, 1]
    expect(page.get_by_label("Or type it")).to_have_value(SCALE)
    roll = page.get_by_role("application", name="Your notes")
    roll.focus()
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Shift+ArrowLeft")
    assert state(page)["sketch"]["tokens"][:3] == [42, 1, 43]
    type_sketch(page, "60 200")
    expect(page.get_by_role("alert")).to_contain_text("“200” is none of")


def test_the_saved_midi_holds_the_tokens_that_are_shown(page: Page, tmp_path: pathlib.Path) -> None:
    for task in TASKS:
        if task != state(page)["model"]:
            use_model(page, task)
        type_sketch(page, TWO_BARS[task])
        shown = tokens(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="MIDI", exact=True).click()
        path = tmp_path / f"{task}.mid"
        download.value.save_as(path)
        assert download.value.suggested_filename == "your-sketch.mid"
        rows = extract_file(path.name, path.read_bytes(), [task]).parts[0][task].rows
        assert shown in rows.tolist()


def test_the_palette_is_saved_as_a_zip_and_the_midi_can_be_dragged_out(page: Page) -> None:
    with page.expect_download() as download:
        page.get_by_role("button", name="All as zip").click()
    with zipfile.ZipFile(download.value.path()) as packed:
        assert len(packed.namelist()) == 49
    page.locator("#save-midi").hover()  # makes the file, which must be there when the drag begins
    dragged = """(expected) => {
      const dataTransfer = new DataTransfer();
      const drag = new DragEvent('dragstart', {dataTransfer});
      document.getElementById('save-midi').dispatchEvent(drag);
      return dataTransfer.getData('DownloadURL').startsWith(expected);
    }"""
    wait(page, dragged, "audio/midi:blend-50-right-50-down.mid:blob:http")


def test_a_link_restores_the_same_notes(page: Page, address: str) -> None:
    drag(page, ".grid", [(0.5, 0.5), (0.2, 0.8)])
    page.get_by_label("Tempo").fill("93")
    page.get_by_label("Tempo").press("Enter")
    page.get_by_role("button", name="Link").click()
    expect(page.get_by_role("status").filter(has_text="address of this page")).to_be_visible()
    link = page.evaluate("location.href")
    before = state(page)
    other = page.context.new_page()
    other.goto(link)
    wait(other, "window.studio?.app.state.now")
    assert state(other) == before
    other.wait_for_selector(".cell.puck")
    drag(other, ".grid", [(0.2, 0.8), (0.8, 0.2)])
    drag(page, ".grid", [(0.2, 0.8), (0.8, 0.2)])
    assert tokens(other) == tokens(page)


def test_undo_and_redo(page: Page) -> None:
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    first = tokens(page)
    drag(page, ".grid", [(0.5, 0.5), (0.9, 0.9)])
    second = tokens(page)
    page.get_by_role("button", name="Undo").click()
    assert tokens(page) == first
    page.get_by_role("button", name="Redo").click()
    assert tokens(page) == second
    page.keyboard.press("Control+z")
    assert tokens(page) == first
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_a_file_says_what_was_taken_and_a_bad_one_why_not(
    page: Page, tmp_path: pathlib.Path
) -> None:
    use_model(page, "mel_2bar")
    write_midi(str(tmp_path / "tune.mid"), random_rows(get_task("mel_2bar"), 2), "mel_2bar")
    (tmp_path / "bad.mid").write_bytes(b"this is no music")
    corner = page.locator(".corner1")
    before = state(page)["corners"]
    for name in ("bad.mid", "tune.mid"):
        with page.expect_file_chooser() as chooser:
            corner.get_by_role("button", name="File").click()
        chooser.value.set_files(tmp_path / name)
        if name == "bad.mid":
            expect(page.get_by_role("alert")).to_contain_text("bad.mid")
            assert state(page)["corners"] == before
    expect(page.locator(".report .taken")).to_contain_text("tune.mid")
    expect(corner.get_by_text("your file")).to_be_visible()
    taken = state(page)["corners"][1]["tokens"]
    page.locator(".report").get_by_label("Bars from").select_option(index=1)
    wait(page, "old => String(studio.app.state.corners[1].tokens) !== String(old)", taken)


def test_the_map_shows_files_plays_points_and_finds_neighbours(
    page: Page, tmp_path: pathlib.Path
) -> None:
    for number, row in enumerate(random_rows(get_task("drums_2bar"), 6)):
        write_midi(str(tmp_path / f"beat {number}.mid"), row[None], "drums_2bar")
    (tmp_path / "notes.txt").write_text("not music")
    show(page, "Map")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(sorted(tmp_path.iterdir()))
    expect(page.get_by_text("points from 6 files")).to_be_visible()
    expect(page.get_by_text("Left out: 1")).to_be_visible()
    points = page.get_by_role("application", name="Map of your music")
    box = points.bounding_box()
    assert box is not None
    for down in range(20, int(box["height"]), 14):  # the leftmost point is 20 pixels from the edge
        if not state(page)["now"]["label"].startswith("beat "):
            points.click(position={"x": 20, "y": down})
    expect(page.locator("#now h2")).to_contain_text("beat ")
    points.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("Nearest")).to_be_visible()
    assert page.get_by_text("distance").count() >= 2
    page.keyboard.press("Enter")
    expect(page.locator("#now h2")).to_contain_text("beat ")
    page.get_by_label("Play on hover").uncheck()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save selection (1)").click()
    assert download.value.suggested_filename == "selection.zip"


def test_reading_for_the_map_can_be_stopped(page: Page, tmp_path: pathlib.Path) -> None:
    for number, row in enumerate(random_rows(get_task("drums_2bar"), 51)):
        write_midi(str(tmp_path / f"{number}.mid"), row[None], "drums_2bar")
    show(page, "Map")
    page.evaluate("""() => {
      const [stop] = [...document.querySelectorAll('button')].filter(
        ({textContent}) => textContent === 'Stop reading');
      new MutationObserver(() => stop.hidden || stop.click()).observe(stop, {attributes: true});
    }""")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(sorted(tmp_path.iterdir()))
    expect(page.get_by_text("points from 50 files")).to_be_visible()
    expect(page.get_by_text("1 files: reading was stopped")).to_be_attached()


def test_the_page_reads_and_writes_rows_as_the_pipeline_does(page: Page) -> None:
    for name in ("mel_2bar", "drums_2bar", "trio_16bar"):
        task = get_task(name)
        model = {
            "steps": task.num_steps,
            "tracks": [{"pitched": track.is_pitched} for track in task.tracks],
        }
        for row in random_rows(task, 3):
            found = page.evaluate(
                """async ([row, model]) => {
                  const {notesOf, rowOf} = await import('/static/tokens.js');
                  const notes = notesOf(row, model);
                  return [notes, rowOf(notes, model), notesOf(rowOf(notes, model), model)];
                }""",
                [row.tolist(), model],
            )
            notes, written, again = found
            assert notes == again
            assert [(n["track"], n["start"], n["end"], n["pitch"]) for n in notes] == drawn(
                row, task
            )
            assert np.shape(written) == row.shape


def drawn(row: np.ndarray, task: Task) -> list[tuple[int, int, int, int]]:
    """Notes of a row as the pipeline draws them: track, start, end, pitch or class."""
    return [
        (number, start, start + length, pitch)
        for number, track in enumerate(task.tracks)
        for start, length, pitch in CODECS[track.kind]
        .drawn_notes(row if len(task.tracks) == 1 else row[:, number])
        .tolist()
    ]


def test_the_score_is_drawn(page: Page) -> None:
    page.get_by_role("button", name="Score").click()
    page.wait_for_selector(".score svg path", state="attached")
    page.get_by_role("button", name="Score").click()
    expect(page.locator(".score")).to_be_hidden()
    abc = page.evaluate("""async () => {
      const {abcOf} = await import('/static/score.js');
      const model = {steps: 32, tracks: [{pitched: true}]};
      const row = new Array(32).fill(0);
      [row[0], row[6], row[8], row[16], row[20]] = [41, 1, 54, 53, 1];
      return abcOf(row, model, 96);
    }""")
    # A dotted quarter and rests, a note tied over no bar line, a quarter and the rest of the bar.
    assert abc.splitlines()[3:] == ["Q:1/4=96", "K:C", "V:1 clef=treble", "C6z2 ^c8 | c4 z12 |"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_violation(page: Page, theme: str) -> None:
    require(AXE.is_file(), "axe-core (npm ci --ignore-scripts in tests/browser)")
    page.emulate_media(color_scheme="light" if theme == "light" else "dark")
    page.evaluate(AXE.read_text())
    for view in ("Palette", "Shape", "Sketch", "Map"):
        show(page, view)
        found = page.evaluate("axe.run().then(({violations}) => violations)")
        serious = [
            (violation["id"], [node["html"] for node in violation["nodes"]][:3])
            for violation in found
            if violation["impact"] in ("serious", "critical")
        ]
        assert serious == [], view


def test_a_forecaster_continues_and_the_other_views_say_why_they_are_empty(page: Page) -> None:
    page.get_by_label("Model", exact=True).select_option(FORECASTER)
    wait(page, "studio.app.state.now?.label === 'Your sketch'")
    assert state(page)["view"] == "sketch"
    expect(page.get_by_role("button", name="Reconstruct")).to_be_hidden()
    expect(page.get_by_label("Drift")).to_be_hidden()
    page.get_by_role("button", name="Continue").press("Enter")
    expect(page.get_by_role("button", name="Play Continuation 4")).to_be_visible()
    drawn_before = state(page)["sketch"]["tokens"]
    page.locator("#view-sketch").get_by_role("button", name="Sample").click()
    wait(page, "old => String(studio.app.state.sketch.tokens) !== String(old)", drawn_before)
    for view in ("Palette", "Shape", "Map"):
        show(page, view)
        reason = page.locator(f"#view-{view.lower()} .why-not")
        expect(reason).to_contain_text("has no latent space")
    expect(page.locator("#now").get_by_role("button", name="Shape")).to_be_disabled()


def test_shape_begins_with_the_piece_that_is_heard(page: Page) -> None:
    drag(page, ".grid", [(0.5, 0.5), (0.99, 0.99)])
    blended = tokens(page)
    show(page, "Shape")
    assert state(page)["shape"]["row"]["tokens"] == blended
    slider = page.get_by_label("kick density")
    slider.focus()
    slider.press("End")
    wait(page, "studio.app.state.now.label === 'Shaped piece'")
    show(page, "Palette")
    show(page, "Shape")
    assert state(page)["shape"]["row"]["tokens"] == blended

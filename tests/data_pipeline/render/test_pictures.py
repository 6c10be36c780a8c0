from __future__ import annotations

import pathlib
import struct
from xml.etree import ElementTree

import numpy as np
import pytest

from data_pipeline.render import pictures, style
from musicvae_jax.config import InputError
from musicvae_jax.tasks import DRUM_CLASS_NAMES, TASKS
from tests.support.example_rows import EXAMPLES, MELODY_ROW


def png_size(path: pathlib.Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_of_every_task_is_drawn_and_grows_with_the_rows(
    task: str, tmp_path: pathlib.Path
) -> None:
    tokens = EXAMPLES[task]
    pictures.piano_roll_png(tmp_path / "one.png", [tokens], task, titles=["input"])
    count = 2 if len(tokens) > 64 else 4
    pictures.piano_roll_png(tmp_path / "more.png", np.stack([tokens] * count), task)
    (width, height), (more_width, more_height) = (
        png_size(tmp_path / name) for name in ("one.png", "more.png")
    )
    assert more_height > height
    assert more_width >= width


def draw(rows: list[np.ndarray], task: str, titles: str = "abcdefg") -> pictures._Canvas:
    """Draw a group of rows."""
    return pictures._draw_group(rows, TASKS[task], titles, 3, "head")


def test_notes_stand_at_their_steps_and_pitches() -> None:
    canvas = draw([MELODY_ROW], "mel_2bar")
    words = {name: (x, y) for x, y, name, _ in canvas.words}
    assert {"a", "bar", "1", "2", "C4"} <= set(words)
    (corners,) = canvas.boxes[style.TRACK_COLOURS["melody"]]
    bar = words["2"][0] - words["1"][0]
    starts = (corners[:, 0, 0] - words["1"][0]) / bar * 16
    np.testing.assert_allclose(starts, [0, 4, 16])
    ends = (corners[:, 2, 0] - words["1"][0]) / bar * 16
    np.testing.assert_allclose(ends, np.array([4, 8, 30]) - 0.15)
    middles = corners[:, :, 1].mean(axis=1)
    assert middles[0] == pytest.approx(words["C4"][1])
    np.testing.assert_allclose(middles[2] - middles[0], 2 * (middles[1] - middles[0]))


@pytest.mark.parametrize("task", TASKS)
def test_every_note_is_a_box(task: str) -> None:
    row = np.asarray(EXAMPLES[task])
    canvas = draw([row, np.zeros_like(row)], task)
    drawn = {colour: sum(map(len, parts)) for colour, parts in canvas.boxes.items()}
    for track, column in zip(TASKS[task].tracks, row.reshape(len(row), -1).T, strict=True):
        notes = (column >= 2).sum()
        hits = sum(int(token).bit_count() for token in column)
        expected = hits if track.name == "drums" else notes
        assert drawn[style.TRACK_COLOURS[track.name]] == expected
    assert "no notes" in {name for _, _, name, _ in canvas.words}


@pytest.mark.parametrize("task", TASKS)
def test_a_row_for_a_page_names_bars_lines_and_tempo(task: str) -> None:
    row = np.asarray(EXAMPLES[task])
    drawn = pictures.piano_roll_svg(row, TASKS[task], qpm=96.0001)
    assert drawn == pictures.piano_roll_svg(row, TASKS[task], qpm=96)
    root = ElementTree.fromstring(drawn)
    assert root.attrib["aria-label"] == f"piano roll, {task}"
    words = {text for text in root.itertext() if text.strip()}
    assert {"1", "2", "96 quarters per minute"} <= words
    for track in TASKS[task].tracks:
        assert words & set(DRUM_CLASS_NAMES if track.name == "drums" else ("C3", "C4", "C5"))
    assert "quarters" not in pictures.piano_roll_svg(row, TASKS[task])


def test_an_empty_row_is_drawn_and_an_empty_group_refused(tmp_path: pathlib.Path) -> None:
    pictures.piano_roll_png(tmp_path / "a.png", [np.zeros(32, int)], "mel_2bar")
    assert png_size(tmp_path / "a.png")
    with pytest.raises(InputError, match="rows: there are none to draw"):
        pictures.piano_roll_png(tmp_path / "b.png", [], "mel_2bar")
    with pytest.raises(InputError, match="titles: 2 for 1 rows"):
        pictures.piano_roll_png(tmp_path / "b.png", [MELODY_ROW], "mel_2bar", titles=["a", "b"])
    assert not (tmp_path / "b.png").exists()


def test_of_too_many_rows_the_first_are_drawn_and_the_picture_says_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PICTURED_ROWS", 2)
    for name, count in (("two.png", 2), ("three.png", 3)):
        pictures.piano_roll_png(tmp_path / name, [MELODY_ROW] * count, "mel_2bar")
    assert png_size(tmp_path / "two.png") == png_size(tmp_path / "three.png")
    assert (tmp_path / "two.png").read_bytes() != (tmp_path / "three.png").read_bytes()


def test_short_rows_stand_side_by_side_as_many_as_asked(tmp_path: pathlib.Path) -> None:
    for columns in (2, 4):
        name = tmp_path / f"{columns}.png"
        pictures.piano_roll_png(name, [MELODY_ROW] * 4, "mel_2bar", columns=columns)
    (width, height), (more_width, less_height) = (
        png_size(tmp_path / f"{columns}.png") for columns in (2, 4)
    )
    assert more_width == pytest.approx(2 * width, abs=2)
    assert less_height < height


def test_the_tempo_is_named_where_it_is_given(tmp_path: pathlib.Path) -> None:
    for name, qpm in (("none.png", None), ("slow.png", 60.0), ("again.png", 60.0)):
        pictures.piano_roll_png(tmp_path / name, [MELODY_ROW], "mel_2bar", qpm=qpm)
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert drawn["slow.png"] == drawn["again.png"] != drawn["none.png"]


@pytest.mark.parametrize("task", TASKS)
def test_panels_are_placed_by_arithmetic_and_do_not_overlap(task: str) -> None:
    canvas = draw([np.asarray(EXAMPLES[task])] * 7, task)
    figure = canvas.figure()
    assert figure.get_layout_engine() is None
    assert len(figure.axes) == 1  # axes, ticks and legends per panel take minutes
    lanes = 2 if task.startswith("trio") else 1
    (beats,) = {len(parts) for parts in canvas.lines.values()}
    assert beats == 7 * lanes
    boxes = [ends.reshape(-1, 2) for ends in canvas.lines[style.BAR]]
    corners = [(*box.min(axis=0), *box.max(axis=0)) for box in boxes]
    width, height = canvas.size
    assert all(0 < x0 < x1 < width and 0 < y0 < y1 < height for x0, y0, x1, y1 in corners)
    for number, one in enumerate(corners):
        for other in corners[number + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0]
            assert apart or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize(("bars", "every"), [(2, 1), (32, 1), (33, 2), (200, 7)])
def test_bar_numbers_are_thinned_out(bars: int, every: int) -> None:
    canvas = draw([np.zeros(16 * bars, int)], "mel_2bar")
    numbers = [name for _, _, name, _ in canvas.words if name.isdigit()]
    assert numbers == [str(n + 1) for n in range(0, bars, every)]
    lines = {colour: np.concatenate(parts)[:, 0, 0] for colour, parts in canvas.lines.items()}
    assert (style.BEAT in lines) == (bars <= 33)
    assert min(np.diff(places).min() for places in lines.values()) >= 6

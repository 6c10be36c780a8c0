from __future__ import annotations

import pathlib
import struct
import sys

import numpy as np
import pytest

from data_pipeline.render import pictures
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS
from tests.support.example_rows import DRUMS_ROW, EXAMPLES, MELODY_ROW


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


def test_a_picture_shows_the_notes_by_pitch_and_the_bars(tmp_path: pathlib.Path) -> None:
    figure = pictures._figure([MELODY_ROW], TASKS["mel_2bar"], ["input"], 3)
    (axis,) = figure.axes
    bars = [(p.get_x(), p.get_y() + p.get_height() / 2) for p in axis.patches]
    assert bars == [(0, 60.0), (4, 62.0), (16, 64.0)]
    assert axis.get_title(loc="left") == "input"
    assert list(axis.get_xticks()) == [0, 16]
    figure = pictures._figure([DRUMS_ROW], TASKS["drums_2bar"], ["input"], 3)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()][:3] == [
        "kick",
        "snare",
        "closed hat",
    ]
    hits = [(p.get_x(), round(p.get_y() + p.get_height() / 2)) for p in axis.patches]
    assert hits[:4] == [(0, 0), (0, 2), (8, 1), (16, 8)]


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


def test_without_matplotlib_the_message_says_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'musicvae-jax\[demo\]'"):
        pictures.piano_roll_png(tmp_path / "a.png", [MELODY_ROW], "mel_2bar")


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
    rows = [np.asarray(EXAMPLES[task])] * 7
    figure = pictures._figure(rows, TASKS[task], list("abcdefg"), 3)
    assert figure.get_layout_engine() is None
    per_row = 2 if TASKS[task].name.startswith("trio") else 1
    boxes = [axis.get_position() for axis in figure.axes]
    assert len(boxes) == 7 * per_row
    assert all(0 < b.x0 < b.x1 < 1 and 0 < b.y0 < b.y1 < 1 for b in boxes)
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = one.x1 <= other.x0 or other.x1 <= one.x0
            assert apart or one.y1 <= other.y0 or other.y1 <= one.y0


@pytest.mark.parametrize(("bars", "every"), [(2, 1), (32, 1), (33, 2), (200, 7)])
def test_bar_numbers_are_thinned_out(bars: int, every: int) -> None:
    figure = pictures._figure([np.zeros(16 * bars, int)], TASKS["mel_2bar"], ["long"], 3)
    numbers = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(numbers) == bars
    assert [n for n in numbers if n] == [str(n + 1) for n in range(0, bars, every)]

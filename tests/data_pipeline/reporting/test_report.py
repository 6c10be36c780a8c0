"""The report's figures and words, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data_pipeline.conversion.manifest import Unit
from data_pipeline.reporting import report
from data_pipeline.selection.near_duplicates import Nearness
from data_pipeline.selection.songs import Songs
from data_pipeline.selection.splits import Selection
from data_pipeline.selection.store import Written
from musicvae_jax.tasks import get_task

UNITS = [
    Unit(name="a.mid", md5="0", split=0, rows={"mel_2bar": 5}, engine="fast"),
    Unit(name="b.mid", md5="1", split=1, rows={"mel_2bar": 3}, engine="fast"),
    Unit(name="c.mid", md5="2", split=0, rows={"mel_2bar": 0}, why_empty={"mel_2bar": "not 4/4"}),
    Unit(
        name="d.mid",
        md5="3",
        split=2,
        reason="unreadable MIDI",
        engine="note_seq",
        fast_refusal="no tracks",
    ),
    Unit(name="e.mid", md5="4", split=0, rows={"mel_2bar": 0}, why_empty={"mel_2bar": "not 4/4"}),
    Unit(name="f.txt", reason="not a music file"),
]
NEAR = {"song": Nearness(1, 8, 90), "file": Nearness(0, 0, 90)}
SONGS: dict[str, Any] = {
    "split_by": "song",
    "songs": 2,
    "files": 300,
    "of_more_than_100_files": [{"files": 299, "md5": "0", "name": "a.mid"}],
}


@pytest.fixture
def figures() -> dict[str, Any]:
    """Figures of a task with 8 rows, of which one is repeated."""
    shared = {"train/validation": 1, "train/test": 0, "validation/test": 0}
    selection = Selection({}, {"train": 5, "validation": 3, "test": 0}, shared)
    written = {
        "train": Written(5, "", (80,)),
        "validation": Written(2, "", (60,)),
        "test": Written(0, "", (0,)),
    }
    return report.task_report(
        get_task("mel_2bar"), UNITS, selection, written, ["C4 .", "^ ."], NEAR
    )


def test_task_figures(figures: dict[str, Any]) -> None:
    assert figures["kept"] == 2
    assert figures["dropped"] == {"not 4/4": 2, "not a music file": 1, "unreadable MIDI": 1}
    assert next(iter(figures["dropped"])) == "not 4/4"
    assert (figures["rows_extracted"], figures["rows_unique"]) == (8, 7)
    assert figures["rows_per_split"] == {"train": 5, "validation": 2, "test": 0}
    # 140 of 7 * 32 tokens.
    assert figures["share_of_no_event"] == {"melody": 0.625}


def test_the_report_as_text(figures: dict[str, Any]) -> None:
    source = {"name": "x", "files": 5, "md5": "", "licence": "free", "citation": "me"}
    text = report.format_report(report.full_report([source], 6, UNITS, [figures], SONGS))
    assert text == (
        "inputs\n"
        "  x: 5 music files\n"
        "    licence: free\n"
        "    citation: me\n"
        "read        6 files, 4 readable\n"
        "engines     fast 2, note_seq 1\n"
        "  left to note_seq: 1  no tracks\n"
        "songs       2 in 300 different files; split by song\n"
        "  one song of 299 files: a.mid\n"
        "\n"
        "mel_2bar\n"
        "  kept      2\n"
        "  dropped   4\n"
        "           2  not 4/4\n"
        "           1  not a music file\n"
        "           1  unreadable MIDI\n"
        "  rows      8; 7 without 1 duplicate\n"
        "    train                5\n"
        "    validation           2\n"
        "    test                 0\n"
        "  rows found in two splits, kept in the first: "
        "train/validation 1, train/test 0, validation/test 0\n"
        "  test rows with a train row within 5% of the tokens: by song 1 of 8 (12.5%), "
        "by file 0 of 0\n"
        "  no event  melody 62.5%\n"
        "  examples\n"
        "    C4 .\n"
        "    ^ .\n"
        "\n"
        "warning: mel_2bar: no rows in test; choose other shares with --split or draw again with "
        "--split_seed\n"
    )


def test_tunes_are_counted_beside_files(figures: dict[str, Any]) -> None:
    text = report.format_report(report.full_report([], 2, UNITS, [figures], SONGS))
    assert "read        2 files (6 with each tune counted), 4 readable\n" in text


def test_examples_are_spread_and_not_silent() -> None:
    rows = np.zeros((100, 32), np.uint8)
    rows[1::2, 0] = 1 + np.arange(50)
    texts = report.example_rows(rows, np.arange(100), get_task("mel_2bar"))
    rest = " . . . . . . . . . . . . . . . | . . . . . . . . . . . . . . . ."
    # The first row with an event at or after 0, 20, 40, 60 and 80; token 11 is pitch 30.
    assert [text.split()[0] for text in texts] == ["^", "F#1", "E2", "D3", "C4"]
    assert texts[1] == "F#1" + rest
    assert report.example_rows(rows, np.array([1, 3]), get_task("mel_2bar")) == [
        "^" + rest,
        "A0" + rest,
    ]
    assert report.example_rows(rows, np.zeros(0, int), get_task("mel_2bar")) == []


def test_long_rows_are_left_to_the_page(figures: dict[str, Any]) -> None:
    rows = np.ones((4, 256), np.uint8)
    assert report.example_rows(rows, np.arange(4), get_task("mel_16bar")) == []
    whole = report.full_report([], 6, UNITS, [figures | {"examples": []}], SONGS)
    assert "  examples  in report.html\n" in report.format_report(whole)


def test_a_printed_report_has_60_lines_at_most(figures: dict[str, Any]) -> None:
    reasons = {f"reason {number}": 1 for number in range(100)}
    songs = [{"files": 200, "md5": str(n), "name": f"{n}.mid"} for n in range(100)]
    whole = report.full_report([], 6, UNITS, [figures | {"dropped": reasons}], SONGS)
    whole["left_by_fast_engine"] = reasons
    whole["songs"] = SONGS | {"of_more_than_100_files": songs}
    lines = report.format_report(whole).splitlines()
    assert len(lines) <= 60
    assert "    and 88 more, see report.json" in lines


@pytest.mark.parametrize(
    ("task", "dropped", "meter", "expected"),
    [
        ("drums_2bar", {"no drums": 12}, "4/4",
         "0 of 12 files have channel-10 drums: try --task=mel_2bar"),
        ("drums_2bar", {"no drums": 7, "no drums of the 9 classes": 1, "not 4/4": 4}, "4/4",
         "8 of 12 files have no channel-10 drums: try --task=mel_2bar"),
        ("drums_2bar", {"no drums": 5, "not 4/4": 7}, "4/4",
         "7 of 12 files have no music in 4/4: try --meter=any"),
        ("drums_2bar", {"no drums": 5, "not 4/4": 7}, "any",
         "5 of 12 files have no channel-10 drums: try --task=mel_2bar"),
        ("mel_2bar", {"no melody: no notes but drums": 12}, "4/4",
         "0 of 12 files have pitched notes in 21..108: try --task=drums_2bar"),
        ("mel_2bar", {"no melody in programs 0..31": 12}, "4/4",
         "0 of 12 files have a melody in programs 0..31: try --programs=any"),
        ("trio_16bar", {"no band: no bass": 8, "no band: no drums": 4}, "4/4",
         "0 of 12 files have melody, bass and drums together: try --task=mel_2bar"),
        ("mel_16bar", {"too short": 12}, "4/4",
         "0 of 12 files have enough bars in a row: try a 2-bar task"),
        ("mel_16bar", {"no notes": 12}, "4/4", "0 of 12 files have rows for mel_16bar"),
    ],
)  # fmt: skip
def test_hints(task: str, dropped: dict[str, int], meter: str, expected: str) -> None:
    figures = {"task": task, "dropped": dropped}
    assert report.hint({"units_read": 12, "units": 20, "tasks": [figures]}, meter) == expected


def test_hint_when_nothing_is_readable() -> None:
    figures = {"task": "mel_2bar", "dropped": {"not a music file": 1}}
    whole = {"units_read": 0, "units": 1, "tasks": [figures]}
    assert report.hint(whole, "4/4") == "none of 1 file can be read as music"


def test_songs_have_the_first_name_of_their_smallest_md5() -> None:
    units = [Unit(name=f"{number}.mid", md5=f"{number:03d}") for number in range(150)]
    units += [Unit(name="0 copy.mid", md5="000"), Unit(name="x.txt")]
    songs = Songs(sorted({str(u.md5) for u in units if u.md5}), np.zeros(150, np.int64))
    found = report.songs_report(songs, units, "file")
    assert (found["split_by"], found["files"], found["songs"]) == ("file", 150, 1)
    assert found["of_more_than_100_files"] == [{"files": 150, "md5": "000", "name": "0 copy.mid"}]

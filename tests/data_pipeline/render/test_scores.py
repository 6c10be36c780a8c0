from __future__ import annotations

import pathlib
import sys
import warnings
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from data_pipeline.codecs import drums
from data_pipeline.render import files, scores
from data_pipeline.render.scores import Event, best_key, musicxml, split_bars
from data_pipeline.render.sequences import lay_out_rows
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS
from tests.support.example_rows import DRUMS_ROW, EXAMPLES, MELODY_ROW
from tests.support.note_lists import row, steps


def read_back(text: str) -> Any:
    """The score as music21 reads it."""
    from music21 import converter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # music21's own, of what it imports
        return converter.parseData(text, format="musicxml")


def sounding(part: Any) -> list[tuple[int, int, int]]:
    """Start and length in steps, and pitch, of the notes of a part, ties joined."""
    notes = part.stripTies().flatten().notes
    return [
        (round(n.offset * 4), round(n.quarterLength * 4), p.midi) for n in notes for p in n.pitches
    ]


@pytest.mark.parametrize("task", ["mel_2bar", "mel_16bar", "trio_16bar"])
def test_a_score_read_again_has_the_rows_notes(task: str) -> None:
    score = read_back(musicxml(EXAMPLES[task], task))
    notes = lay_out_rows(EXAMPLES[task], task).notes
    for number, part in enumerate(list(score.parts)[:2]):
        chosen = notes[~notes["is_drum"] & (notes["instrument"] == number)]
        lengths = chosen["end_step"] - chosen["start_step"]
        expected = zip(chosen["start_step"], lengths, chosen["pitch"], strict=True)
        assert sounding(part) == list(expected)
        assert len(part.getElementsByClass("Measure")) == TASKS[task].num_bars


@pytest.mark.parametrize("seed", range(4))
def test_any_melody_survives(seed: int) -> None:
    draw = np.random.default_rng(seed)
    tokens = np.where(draw.random(64) < 0.4, draw.choice([1, *range(30, 70)], 64), 0)
    notes = lay_out_rows([tokens[:32], tokens[32:]], "mel_2bar").notes
    score = read_back(musicxml([tokens[:32], tokens[32:]], "mel_2bar"))
    lengths = notes["end_step"] - notes["start_step"]
    expected = list(zip(notes["start_step"], lengths, notes["pitch"], strict=True))
    assert sounding(score.parts[0]) == expected


@pytest.mark.parametrize("task", TASKS)
def test_every_bar_is_full_and_every_hit_is_written(task: str) -> None:
    root = ElementTree.fromstring(musicxml(EXAMPLES[task], task).split('.dtd">\n')[1])
    assert len(root.findall("part")) == len(TASKS[task].tracks)
    for part in root.findall("part"):
        for measure in part.findall("measure"):
            lengths = [n.findtext("duration") for n in measure.findall("note")]
            chords = [n.find("chord") is not None for n in measure.findall("note")]
            filled = sum(int(n or 0) for n, c in zip(lengths, chords, strict=True) if not c)
            assert filled == 16
    hits = root.findall(".//unpitched")
    notes = lay_out_rows(EXAMPLES[task], task).notes
    assert len(hits) == np.count_nonzero(notes["is_drum"])


def test_symbols_are_those_a_reader_expects() -> None:
    # A note of 5 steps, from the last 16th of the first bar: tied over the bar line.
    (first, second) = split_bars(steps((0, 6, 60), (15, 20, 62)), 2, is_drums=False)
    assert first == [
        Event(0, 6, (60,)),
        Event(6, 2, ()),
        Event(8, 4, ()),
        Event(12, 2, ()),
        Event(14, 1, ()),
        Event(15, 1, (62,), tied_to=True),
    ]
    assert second == [
        Event(0, 4, (62,), tied_from=True),
        Event(4, 4, ()),
        Event(8, 8, ()),
    ]
    (bar,) = split_bars(steps((0, 3, 60), (3, 4, 62)), 1, is_drums=False)
    assert [event.length for event in bar] == [3, 1, 4, 8]
    (bar,) = split_bars(np.zeros(0, steps((0, 1, 60)).dtype), 1, is_drums=False)
    assert bar == [Event(0, 16, ())]


def test_drums_that_start_together_are_a_chord_up_to_the_next_hit() -> None:
    notes = drums.decode(np.array(row(16, s0=5, s2=1, s4=2)))
    (bar,) = split_bars(notes, 1, is_drums=True)
    assert bar == [
        Event(0, 2, (36, 42)),
        Event(2, 2, (36,)),
        Event(4, 4, (38,)),
        Event(8, 8, ()),
    ]
    root = ElementTree.fromstring(musicxml(DRUMS_ROW, "drums_2bar").split('.dtd">\n')[1])
    heads = [note.findtext("notehead", "normal") for note in root.findall(".//note")[:2]]
    assert heads == ["normal", "x"]
    assert {n.findtext("midi-unpitched") for n in root.findall(".//midi-instrument")} >= {"37"}


def test_beams_join_eighths_and_16ths_within_a_quarter() -> None:
    def beams(*lengths: int) -> list[tuple[str, ...]]:
        starts = np.cumsum([0, *lengths[:-1]]).tolist()
        pairs = zip(starts, lengths, strict=True)
        return scores._beams([Event(start, length, (60,)) for start, length in pairs])

    assert beams(4) == [()]
    assert beams(2, 2) == [("begin",), ("end",)]
    assert beams(1, 1, 2) == [("begin", "begin"), ("continue", "end"), ("end",)]
    assert beams(3, 1) == [("begin",), ("end", "backward hook")]
    assert beams(1, 2, 1) == [
        ("begin", "forward hook"),
        ("continue",),
        ("end", "backward hook"),
    ]
    # The second pair lies in the next quarter.
    assert beams(2, 2, 2, 2) == [("begin",), ("end",)] * 2


@pytest.mark.parametrize(
    ("pitches", "signs"),
    [
        ([60, 62, 64, 65, 67, 69, 71], 0),
        ([67, 69, 71, 72, 74, 76, 78], 1),
        ([65, 67, 69, 70, 72, 74, 76], -1),
        ([66, 68, 70, 71, 73, 75, 77], 6),
        ([], 0),
        ([60], 0),
    ],
)
def test_the_key_is_that_with_most_notes(pitches: list[int], signs: int) -> None:
    assert best_key(np.array(pitches)) == signs


def test_tempo_numbers_and_names_are_written() -> None:
    text = musicxml([MELODY_ROW, MELODY_ROW], "mel_2bar", qpm=90.5, program=73)
    root = ElementTree.fromstring(text.split('.dtd">\n')[1])
    assert root.findtext(".//per-minute") == "90.5"
    assert [mark.text for mark in root.findall(".//rehearsal")] == ["1", "2"]
    assert root.findtext(".//midi-program") == "74"
    assert len(root.findall(".//measure")) == 5
    assert text == musicxml([MELODY_ROW, MELODY_ROW], "mel_2bar", qpm=90.5, program=73)


@pytest.mark.parametrize("task", ["mel_2bar", "drums_2bar"])
def test_a_score_is_engraved(task: str, tmp_path: pathlib.Path) -> None:
    for name in ("a.svg", "b.svg"):
        files.write_score_svg(tmp_path / name, EXAMPLES[task], task)
    drawn = (tmp_path / "a.svg").read_text()
    root = ElementTree.fromstring(drawn)
    groups = [element.get("class") or "" for element in root.iter()]
    assert groups.count("measure") == 2
    notes = lay_out_rows(EXAMPLES[task], task).notes
    if task == "drums_2bar":
        assert groups.count("note") == len(notes)
    assert (tmp_path / "b.svg").read_text() == drawn


def test_without_verovio_the_message_says_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "verovio", None)
    with pytest.raises(InputError, match=r"pip install 'musicvae-jax\[score\]'"):
        files.write_score_svg(tmp_path / "a.svg", MELODY_ROW, "mel_2bar")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="scores as SVG need verovio"):
        files.check_formats(("midi", "svg"))
    files.check_formats(("midi", "wav", "musicxml"))

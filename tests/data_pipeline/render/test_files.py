from __future__ import annotations

import pathlib

import numpy as np
import pytest

from data_pipeline.codecs import drums, melody
from data_pipeline.extraction.engines import extract_rows
from data_pipeline.render import files
from data_pipeline.render.files import concatenate, midi_bytes, row_to_sequence, row_to_text
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS
from tests.support.example_rows import DRUMS_ROW, EXAMPLES, MELODY_ROW, trio_row


@pytest.mark.parametrize("task", TASKS)
def test_a_row_written_as_midi_and_read_again_is_the_row(task: str) -> None:
    content = midi_bytes(row_to_sequence(EXAMPLES[task], task))
    assert np.array_equal(extract_rows(content, task), EXAMPLES[task][None])


def comes_back(tokens: np.ndarray, task: str) -> bool:
    """Whether a row of one track is one whole track to the extraction."""
    notes = drums.decode(tokens) if task.startswith("drums") else melody.decode(tokens)
    if not len(notes):
        return False
    starts, ends = notes["start_step"], notes["end_step"]
    gaps = starts[1:] - ends[:-1]
    return bool(starts[0] < 16 and ends[-1] > len(tokens) - 16 and gaps.max(initial=0) < 16)


@pytest.mark.parametrize(
    ("task", "config"),
    [
        ("mel_2bar", "cat-mel_2bar_big"),
        ("mel_16bar", "hierdec-mel_16bar"),
        ("drums_2bar", "cat-drums_2bar_small"),
        ("drums_16bar", "drums_16bar"),
    ],
)
def test_golden_rows_come_back_from_midi(task: str, config: str, shared: pathlib.Path) -> None:
    rows = np.load(shared / "golden" / f"conversion_{config}.npz")["tokens"]
    rows = np.array([tokens for tokens in rows if comes_back(tokens, task)])
    assert len(rows) > 200
    for tokens in rows[:: len(rows) // 25]:
        content = midi_bytes(row_to_sequence(tokens, task))
        assert np.array_equal(extract_rows(content, task), tokens[None])


def test_golden_trios_come_back_from_midi(shared: pathlib.Path) -> None:
    rows = np.load(shared / "golden" / "conversion_hierdec-trio_16bar.npz")["tokens"]
    onsets = (rows >= [2, 2, 1]).reshape(len(rows), 16, 16, 3)
    # A note in every bar of every track; a note off cannot come before a column's first note.
    first = np.take_along_axis(rows, (rows != 0).argmax(1)[:, None], 1)[:, 0]
    rows = rows[onsets.any(axis=2).all(axis=(1, 2)) & (first >= [2, 2, 1]).all(axis=1)]
    assert len(rows) > 100
    for tokens in rows[:: len(rows) // 10]:
        content = midi_bytes(row_to_sequence(tokens, "trio_16bar"))
        assert np.array_equal(extract_rows(content, "trio_16bar"), tokens[None])


def test_a_melody_has_the_references_times_velocity_and_program() -> None:
    sequence = row_to_sequence(MELODY_ROW, "mel_2bar")
    assert [(n.start_time, n.end_time, n.pitch) for n in sequence.notes] == [
        (0.0, 0.5, 60),
        (0.5, 1.0, 62),
        (2.0, 3.75, 64),
    ]
    assert {(n.velocity, n.program, n.instrument) for n in sequence.notes} == {(80, 0, 0)}
    assert [tempo.qpm for tempo in sequence.tempos] == [120.0]
    assert sequence.total_time == 3.75


def test_tempo_and_program_are_chosen() -> None:
    sequence = row_to_sequence(MELODY_ROW, "mel_2bar", qpm=60.0, program=73)
    assert sequence.notes[1].start_time == 1.0
    assert sequence.notes[0].program == 73
    trio = row_to_sequence(trio_row(), "trio_16bar", program=73)
    assert {(n.instrument, n.program, n.is_drum) for n in trio.notes} == {
        (0, 73, False),
        (1, 33, False),
        (9, 0, True),
    }


def test_rows_are_put_one_after_the_other_with_a_bar_of_rest() -> None:
    sequence = concatenate([MELODY_ROW, MELODY_ROW[:16]], "mel_2bar")
    # The second begins at bar 4, 6 seconds in.
    assert [note.start_time for note in sequence.notes] == [0.0, 0.5, 2.0, 6.0, 6.5]
    assert concatenate([MELODY_ROW] * 2, "mel_2bar", rest_bars=0).notes[3].start_time == 4.0


def test_equal_rows_give_equal_bytes_and_nothing_else_is_left(tmp_path: pathlib.Path) -> None:
    for name in ("a.mid", "b.mid"):
        files.write_midi(tmp_path / name, trio_row(), "trio_16bar")
        files.piano_roll_png(tmp_path / f"{name}.png", [trio_row()], "trio_16bar")
    read = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(read) == ["a.mid", "a.mid.png", "b.mid", "b.mid.png"]
    assert read["a.mid"] == read["b.mid"]
    assert read["a.mid.png"] == read["b.mid.png"]


def test_a_list_of_rows_is_written_as_one_file(tmp_path: pathlib.Path) -> None:
    both = [DRUMS_ROW, DRUMS_ROW]
    files.write_midi(tmp_path / "ab.mid", both, "drums_2bar", rest_bars=2)
    expected = midi_bytes(concatenate(both, "drums_2bar", rest_bars=2))
    assert (tmp_path / "ab.mid").read_bytes() == expected
    files.write_midi(tmp_path / "ab.mid", np.array(both), "drums_2bar", rest_bars=2)
    assert (tmp_path / "ab.mid").read_bytes() == expected


def test_a_failed_write_leaves_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "taken.mid").mkdir()
    with pytest.raises(IsADirectoryError, match=r"taken\.mid"):
        files.write_midi(tmp_path / "taken.mid", MELODY_ROW, "mel_2bar")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.mid"]


def test_text_has_a_word_per_step_and_bars_between_strokes() -> None:
    assert row_to_text(MELODY_ROW, "mel_2bar") == (
        "C4 . . . D4 . . . ^ . . . . . . . | E4 . . . . . . . . . . . . . ^ ."
    )
    assert row_to_text(DRUMS_ROW, "drums_2bar") == (
        "KH . . . . . . . S . . . . . . . | R . . . . . . . . . . . . . . KSHOLMTCR"
    )
    lines = row_to_text(trio_row(), "trio_16bar").splitlines()
    assert [line[:12] for line in lines] == ["melody: C4 .", "  bass: E2 .", " drums: KS ."]


@pytest.mark.parametrize(
    ("tokens", "task", "message"),
    [
        (np.zeros((256, 2), int), "trio_16bar", r"shape is \(256, 2\), .* rows of \[T, 3\]"),
        (np.zeros((1, 32), int), "mel_2bar", r"shape is \(1, 32\), mel_2bar has rows of \[T\]"),
        (np.zeros(0, int), "mel_2bar", r"shape is \(0,\)"),
        (np.full(32, 90), "mel_2bar", r"melody tokens of mel_2bar go from 0 to 89.* 90\.\.90"),
        (np.full(32, -1), "drums_2bar", r"drums tokens of drums_2bar go from 0 to 511.* -1"),
    ],
)
def test_rows_that_do_not_fit_the_task_are_refused(
    tokens: np.ndarray, task: str, message: str
) -> None:
    for function in (row_to_sequence, row_to_text):
        with pytest.raises(InputError, match=message):
            function(tokens, task)


def test_tempo_and_program_out_of_range_are_refused() -> None:
    for qpm in (0.0, float("nan"), 2000.0):
        with pytest.raises(InputError, match=r"qpm: .* from 1 to 1000"):
            row_to_sequence(MELODY_ROW, "mel_2bar", qpm=qpm)
    with pytest.raises(InputError, match=r"program: 128 is out of range, .* 0 to 127"):
        row_to_sequence(MELODY_ROW, "mel_2bar", program=128)

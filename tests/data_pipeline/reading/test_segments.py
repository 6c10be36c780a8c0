from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.reading import segments as segments
from data_pipeline.reading.notes import import_note_seq, notes_from_sequence
from data_pipeline.reading.segments import NOTE_DTYPE, NoteArrays, split_segments
from musicvae_jax.config import InputError
from tests.support.note_lists import steps, unit


def seconds(*notes: tuple[float, float]) -> NoteArrays:
    array = np.array([(start, end, 60, 0, 0, False) for start, end in notes], NOTE_DTYPE)
    return NoteArrays(array, total_seconds=max(end for _, end in notes))


def spans(segment: segments.Segment) -> list[tuple[int, int]]:
    return list(zip(segment.notes["start_step"], segment.notes["end_step"], strict=True))


def test_half_a_step_rounds_up_and_a_note_lasts_one_step_at_least() -> None:
    (segment,) = split_segments(seconds((0.0, 0.5), (0.06, 0.07), (0.0625, 0.3125)))
    assert spans(segment) == [(0, 4), (0, 1), (1, 3)]
    assert segment.total_steps == 4


def test_a_tempo_change_splits_cuts_the_note_and_starts_the_grid_anew() -> None:
    # 60 quarters per minute from second 2: a step lasts 0.25 s there.
    notes = unit(steps((0, 4, 60), (12, 24, 62), (18, 20, 64)), tempos=((0.0, 120.0), (2.0, 60.0)))
    first, second = split_segments(notes)
    assert spans(first) == [(0, 4), (12, 16)]
    assert spans(second) == [(1, 2)]
    assert (first.start_seconds, second.start_seconds) == (0.0, 2.0)


def test_changes_that_change_nothing_or_come_too_late_do_not_split() -> None:
    same = ((0.0, 120.0), (1.0, 120.0), (3.0, 90.0))
    notes = unit(steps((0, 24, 60)), tempos=same, meters=((0.5, 4, 4),))
    assert len(split_segments(notes)) == 1  # the music ends at second 3


def test_the_last_of_several_changes_at_one_time_counts() -> None:
    notes = unit(steps((0, 8, 60)), meters=((0.0, 3, 4), (0.0, 4, 4)), tempos=((0.0, 60.0),))
    (segment,) = split_segments(notes)
    assert segment.reason is None
    assert spans(segment) == [(0, 4)]  # 60 quarters per minute from the start


def test_a_piece_without_notes_is_a_piece() -> None:
    notes = unit(steps((0, 4, 60), (40, 44, 60)), tempos=((1.0, 100.0), (2.0, 120.0)))
    assert [len(segment.notes) for segment in split_segments(notes)] == [1, 0, 1]


@pytest.mark.parametrize(
    ("numerator", "denominator", "reason"),
    [
        (4, 4, None),
        (2, 2, None),
        (8, 8, None),
        (3, 4, segments.NOT_4_4),
        (6, 8, segments.NOT_4_4),
        (17, 32, segments.NOT_4_4),
        (0, 4, segments.BAD_METER),
        (3, 3, segments.BAD_METER),
        (4, 0, segments.BAD_METER),
    ],
)
def test_only_bars_of_sixteen_steps_pass(
    numerator: int, denominator: int, reason: str | None
) -> None:
    notes = unit(steps((0, 4, 60)), meters=((0.0, numerator, denominator),))
    assert split_segments(notes)[0].reason == reason
    assert split_segments(notes, "any")[0].reason is None


def test_any_meter_keeps_tempo_splits_and_drops_meter_splits() -> None:
    notes = unit(steps((0, 64, 60)), meters=((1.0, 3, 4),), tempos=((2.0, 90.0),))
    assert [segment.start_seconds for segment in split_segments(notes)] == [0.0, 1.0, 2.0]
    assert [segment.start_seconds for segment in split_segments(notes, "any")] == [0.0, 2.0]


def test_an_unknown_meter_is_refused() -> None:
    with pytest.raises(InputError, match="meter: '3/4' is not one of 4/4, any"):
        split_segments(unit(steps((0, 4, 60))), "3/4")


def test_no_length_is_no_piece() -> None:
    assert split_segments(NoteArrays(np.zeros(0, NOTE_DTYPE))) == []


@pytest.mark.parametrize("qpm", [float("nan"), float("inf"), 1e300])
def test_times_past_all_numbers_are_refused(qpm: float) -> None:
    (segment,) = split_segments(unit(steps((0, 4, 60)), tempos=((0.0, qpm),)))
    assert segment.reason == segments.BAD_TIMES
    assert len(segment.notes) == 0


def test_random_units_are_split_and_quantised_as_note_seq_does() -> None:
    note_seq = import_note_seq()
    lib = note_seq.sequences_lib
    rng = np.random.default_rng(0)
    for _ in range(30):
        sequence = note_seq.NoteSequence()
        for start, length in zip(rng.uniform(0, 8, 20), rng.uniform(0.01, 3, 20), strict=True):
            sequence.notes.add(start_time=start, end_time=start + length, pitch=60, velocity=1)
        sequence.total_time = max(note.end_time for note in sequence.notes)
        for time in rng.choice([0.0, 0.0, 1.0, 2.5, 4.0, 20.0], 3):
            sequence.tempos.add(time=time, qpm=rng.choice([120.0, 100.0, 97.3]))
            sequence.time_signatures.add(
                time=time, numerator=int(rng.choice([3, 4])), denominator=4
            )
        expected = []
        for part in lib.split_note_sequence_on_time_changes(sequence):
            part = lib.quantize_note_sequence(part, 4)
            notes = sorted((n.quantized_start_step, n.quantized_end_step) for n in part.notes)
            expected.append((notes, lib.steps_per_bar_in_quantized_sequence(part) == 16))
        got = split_segments(notes_from_sequence(sequence))
        assert [(sorted(spans(segment)), segment.reason is None) for segment in got] == expected

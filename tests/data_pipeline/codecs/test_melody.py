from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.codecs import melody
from data_pipeline.reading.notes import import_note_seq
from musicvae_jax.tasks import Track
from tests.support.note_lists import row, segment, steps

C4, D4, E4 = 41, 43, 45  # tokens of pitches 60, 62, 64
ANY_PROGRAM = Track(name="melody", kind="melody")
PIANOS_TO_GUITARS = Track(name="melody", kind="melody", programs=range(32))


def encode(*parts: np.ndarray, num_steps: int = 16) -> list[list[int]]:
    found = melody.encode(segment(*parts), ANY_PROGRAM, num_steps)
    assert not isinstance(found, str)
    assert found.rows.dtype == np.uint8
    return found.rows.tolist()


def test_the_lowest_and_highest_pitches_have_the_outer_tokens() -> None:
    assert encode(steps((0, 4, 21), (4, 16, 108))) == [row(16, s0=2, s4=89)]


def test_of_notes_that_start_together_the_highest_is_kept_with_its_own_length() -> None:
    assert encode(steps((0, 12, 60), (0, 4, 64), (8, 16, 62))) == [row(16, s0=E4, s4=1, s8=D4)]


def test_a_new_note_ends_the_one_before_and_a_short_one_leaves_silence() -> None:
    assert encode(steps((0, 12, 60), (4, 6, 64))) == [row(16, s0=C4, s4=E4, s6=1)]


def test_a_note_that_ends_where_the_next_begins_has_no_note_off() -> None:
    assert encode(steps((0, 4, 60), (4, 16, 62))) == [row(16, s0=C4, s4=D4)]


def test_a_note_that_ends_inside_the_last_bar_gets_a_note_off_one_on_the_bar_line_none() -> None:
    assert encode(steps((0, 15, 60))) == [row(16, s0=C4, s15=1)]
    assert encode(steps((0, 16, 60))) == [row(16, s0=C4)]


def test_a_bar_of_silence_ends_the_melody() -> None:
    near, far = steps((0, 4, 60), (19, 24, 62)), steps((0, 4, 60), (20, 24, 62))
    assert encode(near, num_steps=32) == [row(32, s0=C4, s4=1, s19=D4, s24=1)]
    assert encode(far, num_steps=32) == []
    assert encode(far) == [row(16, s0=C4, s4=1), row(16, s4=D4, s8=1)]


def test_silence_is_counted_from_the_end_of_the_last_note_kept() -> None:
    # The long first note is cut by the second: silence begins at step 6, not at step 12.
    assert encode(steps((0, 12, 60), (4, 6, 64), (22, 32, 62)), num_steps=32) == []
    assert len(encode(steps((0, 12, 60), (4, 6, 64), (21, 32, 62)), num_steps=32)) == 1


def test_note_offs_before_the_first_note_of_a_window_are_cleared() -> None:
    assert encode(steps((0, 20, 60), (24, 28, 62))) == [row(16, s0=C4), row(16, s8=D4, s12=1)]


def test_a_window_inside_a_held_note_is_silent_and_kept() -> None:
    assert encode(steps((0, 32, 60))) == [row(16, s0=C4), row(16)]


def test_a_melody_begins_at_the_bar_of_its_first_note() -> None:
    assert encode(steps((35, 48, 60))) == [row(16, s3=C4)]


def test_a_melody_is_cut_after_100_bars_and_the_search_continues_after_its_end() -> None:
    rows = encode(steps((0, 3200, 60), (3216, 3232, 62)))
    assert len(rows) == 100 + 1
    assert rows[-1] == row(16, s0=D4)


def test_a_note_of_many_hours_takes_no_memory() -> None:
    assert len(encode(steps((0, 10**12, 60)))) == 100


def test_instruments_are_melodies_of_their_own() -> None:
    both = encode(steps((0, 16, 60)), steps((8, 16, 62), instrument=1))
    assert both == [row(16, s0=C4), row(16, s8=D4)]


def test_notes_that_no_token_can_say_are_left_out_before_all_else() -> None:
    # Pitch 109 is the highest and would win; 20 would bridge the gap.
    assert encode(steps((0, 4, 60), (0, 9, 109), (10, 26, 20), (20, 24, 62))) == [
        row(16, s0=C4, s4=1),
        row(16, s4=D4, s8=1),
    ]


@pytest.mark.parametrize(
    ("part", "track", "reason"),
    [
        (steps((0, 16, 36), is_drum=True), ANY_PROGRAM, melody.NO_MELODY),
        (steps((0, 16, 60), program=32), PIANOS_TO_GUITARS, "no melody in programs 0..31"),
        (steps((0, 16, 20), (0, 16, 109)), ANY_PROGRAM, "no melody: no pitches 21..108"),
    ],
)
def test_a_segment_without_melody_has_a_reason(part: np.ndarray, track: Track, reason: str) -> None:
    assert melody.encode(segment(part), track, 16) == reason


def test_programs_choose_the_notes() -> None:
    parts = (steps((0, 16, 60), program=31), steps((0, 16, 62), program=32, instrument=1))
    found = melody.encode(segment(*parts), PIANOS_TO_GUITARS, 16)
    assert not isinstance(found, str)
    assert np.array_equal(found.rows, [row(16, s0=C4)])


def test_rows_come_with_their_instrument_and_first_bar() -> None:
    parts = steps((16, 64, 60), instrument=4), steps((0, 32, 62), instrument=7)
    found = melody.encode(segment(*parts), ANY_PROGRAM, 32)
    assert not isinstance(found, str)
    assert found.bars.tolist() == [1, 2, 0]
    assert found.instruments.tolist() == [[4], [4], [7]]


def test_random_pieces_give_the_melodies_of_note_seq() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        parts = []
        for instrument in range(3):
            starts = rng.integers(0, 150, 25)
            ends = starts + rng.integers(1, 12, 25)
            pitches = rng.integers(21, 109, 25)
            notes = list(zip(starts.tolist(), ends.tolist(), pitches.tolist(), strict=True))
            parts.append(steps(*notes, instrument=instrument))
        assert sorted(encode(*parts, num_steps=32)) == sorted(_windows_of_note_seq(parts))


def _windows_of_note_seq(parts: list[np.ndarray]) -> list[list[int]]:
    """Extract with note-seq's own Melody class, window by window."""
    note_seq = import_note_seq()
    rows = []
    for part in parts:
        sequence = note_seq.NoteSequence()
        sequence.quantization_info.steps_per_quarter = 4
        sequence.time_signatures.add(numerator=4, denominator=4)
        for note in part:
            sequence.notes.add(
                quantized_start_step=int(note["start_step"]),
                quantized_end_step=int(note["end_step"]),
                pitch=int(note["pitch"]),
                velocity=80,
            )
        search = 0
        while True:
            found = note_seq.Melody()
            found.from_quantized_sequence(
                sequence, search, ignore_polyphonic_notes=True, pad_end=True
            )
            if not len(found):
                break
            search = found.end_step
            for end in range(32, len(found) + 1, 16):
                window = list(found[end - 32 : end])
                # Its no event is -2 and its note off -1.
                rows.append([e + 2 if e < 0 else e - 19 for e in window])
    return rows


def test_decoding_reads_notes_to_the_next_event_or_the_end() -> None:
    notes = melody.decode(np.array(row(32, s1=1, s2=C4, s4=D4, s8=1, s9=1, s20=E4)))
    assert [tuple(n)[:3] for n in notes.tolist()] == [(2, 4, 60), (4, 8, 62), (20, 32, 64)]
    assert not len(melody.decode(np.zeros(32, int)))


def test_decoding_marks_the_notes() -> None:
    (note,) = melody.decode(np.array(row(16, s0=C4)), program=7, instrument=1)
    assert (note["program"], note["instrument"], note["is_drum"]) == (7, 1, False)


def test_encoding_what_was_decoded_gives_the_row_back() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        tokens = rng.choice([0, 0, 0, 1, C4, D4, 89], 32)
        tokens[[0, 16, 31]] = rng.integers(2, 90, 3)  # nothing is lost at the ends
        offs = np.flatnonzero(tokens == 1).tolist()
        heard = [i for i in offs if tokens[:i].max() >= 2 and not _silent_before(tokens, i)]
        tokens[[i for i in offs if i not in heard]] = 0
        assert encode(melody.decode(tokens), num_steps=32) == [tokens.tolist()]


def _silent_before(tokens: np.ndarray, step: int) -> bool:
    """A note off after a note off says nothing new."""
    events = np.flatnonzero(tokens[:step])
    return bool(tokens[events[-1]] == 1)


def test_words_are_pitch_names() -> None:
    assert melody.words(np.array([0, 1, 2, C4, 89], np.uint8)) == [".", "^", "A0", "C4", "C8"]


def test_notes_are_drawn_by_pitch_in_a_range_of_14_at_least() -> None:
    tokens = np.array(row(16, s0=C4, s4=D4, s6=1))
    assert melody.drawn_notes(tokens).tolist() == [[0, 4, 60], [4, 2, 62]]
    low, high = melody.drawn_lines(np.array([60, 62]))
    assert (low, high) == (54, 68)
    assert melody.line_names(low, high) == {55: "G3", 60: "C4", 67: "G4"}
    assert melody.line_names(30, 90) == {p: f"C{p // 12 - 1}" for p in range(36, 91, 12)}

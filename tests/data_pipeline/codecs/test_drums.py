from __future__ import annotations

import numpy as np

from data_pipeline.codecs import drums
from musicvae_jax.tasks import DRUM_CLASS_NAMES, TASKS
from tests.support.note_lists import row, segment, steps

KICK, SNARE, HAT = 1, 2, 4
(TRACK,) = TASKS["drums_2bar"].tracks


def hit(*hits: tuple[int, int], instrument: int = 0, length: int = 1) -> np.ndarray:
    notes = [(step, step + length, pitch) for step, pitch in hits]
    return steps(*notes, instrument=instrument, is_drum=True)


def encode(*parts: np.ndarray, num_steps: int = 16) -> list[list[int]]:
    found = drums.encode(segment(*parts), TRACK, num_steps)
    assert not isinstance(found, str)
    assert found.rows.dtype == np.uint16
    return found.rows.tolist()


def test_there_are_63_pitches_in_nine_classes_and_none_twice() -> None:
    pitches = [pitch for group in drums.CLASS_PITCHES for pitch in group]
    assert len(drums.CLASS_PITCHES) == len(DRUM_CLASS_NAMES) == 9
    assert len(pitches) == len(set(pitches)) == 63


def test_hits_of_one_step_add_up_and_a_class_counts_once() -> None:
    # 35 and 36 are both kick; 42 closed hat; 59 and 82 ride.
    assert encode(hit((0, 35), (0, 36), (0, 42), (5, 59), (5, 82))) == [row(16, s0=5, s5=256)]


def test_all_instruments_are_one_track_and_lengths_do_not_matter() -> None:
    parts = hit((0, 36), length=60), hit((4, 38), instrument=1)
    assert encode(*parts) == [row(16, s0=KICK, s4=SNARE)]


def test_a_track_ends_when_the_next_hit_is_a_bar_after_the_step_that_follows_the_last() -> None:
    assert encode(hit((0, 36), (16, 38)), num_steps=32) == [row(32, s0=KICK, s16=SNARE)]
    assert encode(hit((0, 36), (17, 38)), num_steps=32) == []
    assert encode(hit((0, 36), (17, 38))) == [row(16, s0=KICK), row(16, s1=SNARE)]


def test_pitches_of_no_class_do_not_bridge_a_gap() -> None:
    assert encode(hit((0, 36), (8, 88), (17, 38)), num_steps=32) == []


def test_a_track_begins_at_the_bar_of_its_first_hit_and_hops_a_bar() -> None:
    parts = hit((17, 36), (33, 38), (49, 42))
    assert encode(parts, num_steps=32) == [
        row(32, s1=KICK, s17=SNARE),
        row(32, s1=SNARE, s17=HAT),
    ]


def test_a_segment_without_drums_has_a_reason() -> None:
    assert drums.encode(segment(steps((0, 16, 36))), TRACK, 16) == "no drums"
    assert drums.encode(segment(hit((0, 88))), TRACK, 16) == "no drums of the 9 classes"


def test_decoding_writes_the_first_pitch_of_each_class_one_step_long() -> None:
    notes = drums.decode(np.array(row(16, s0=511, s3=HAT)))
    assert notes["pitch"].tolist() == [36, 38, 42, 46, 45, 48, 50, 49, 51, 42]
    assert set(notes["instrument"].tolist()) == {9}
    assert notes["is_drum"].all()
    assert ((notes["end_step"] - notes["start_step"]) == 1).all()


def test_encoding_what_was_decoded_gives_every_token_back() -> None:
    tokens = np.arange(512)
    tokens[0] = 1  # a track begins with a hit
    assert encode(drums.decode(tokens), num_steps=512) == [tokens.tolist()]


def test_words_are_the_letters_of_the_classes() -> None:
    assert drums.words(np.array([0, 1, 5, 511], np.uint16)) == [".", "K", "KH", "KSHOLMTCR"]


def test_each_class_is_a_line_of_a_picture() -> None:
    tokens = np.array(row(16, s2=KICK + HAT, s5=256))
    assert drums.drawn_notes(tokens).tolist() == [[2, 1, 0], [2, 1, 2], [5, 1, 8]]
    low, high = drums.drawn_lines(np.zeros(0, int))
    assert tuple(drums.line_names(low, high).values()) == DRUM_CLASS_NAMES

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.codecs import trio
from musicvae_jax.tasks import TASKS
from tests.support.note_lists import segment, steps

BAR = 16
TRACKS = TASKS["trio_16bar"].tracks


def held(first_bar: int, last_bar: int, pitch: int = 60, **about: int) -> np.ndarray:
    """One note per bar, each a bar long."""
    bars = range(first_bar, last_bar)
    return steps(
        *((bar * BAR, (bar + 1) * BAR, pitch) for bar in bars),
        program=about.get("program", 0),
        instrument=about.get("instrument", 0),
    )


def kicks(first_bar: int, last_bar: int, instrument: int = 9) -> np.ndarray:
    hits = ((bar * BAR, bar * BAR + 1, 36) for bar in range(first_bar, last_bar))
    return steps(*hits, instrument=instrument, is_drum=True)


def bass(first_bar: int, last_bar: int, **about: int) -> np.ndarray:
    return held(first_bar, last_bar, 40, **({"program": 33, "instrument": 1} | about))


def encode(*parts: np.ndarray, bars: int = 16) -> np.ndarray:
    found = trio.encode(segment(*parts), TRACKS, bars * BAR)
    assert not isinstance(found, str), found
    assert found.rows.dtype == np.uint16
    return found.rows


def test_columns_are_melody_bass_and_drums() -> None:
    rows = encode(held(0, 16), bass(0, 16), kicks(0, 16))
    assert rows.shape == (1, 256, 3)
    assert rows[0, ::BAR].tolist() == [[41, 21, 1]] * 16
    assert np.count_nonzero(rows) == 48


def test_windows_hop_a_bar() -> None:
    assert len(encode(held(0, 20), bass(0, 20), kicks(0, 20))) == 5


def test_two_bars_of_rest_between_notes_count_as_played_and_five_do_not() -> None:
    def rows(rest: int) -> int | str:
        melody = np.concatenate([held(0, 10), held(10 + rest, 40)])
        found = trio.encode(segment(melody, bass(0, 40), kicks(0, 40)), TRACKS, 256)
        return found if isinstance(found, str) else len(found.rows)

    # Each side reaches two bars into the rest.
    assert rows(4) == 25
    # Bar 12 is silent: windows from bar 13 on, 40 - 13 - 16 + 1 of them.
    assert rows(5) == 12


def test_the_first_two_and_last_two_bars_count_as_played_if_anything_plays_there() -> None:
    # The melody comes in at bar 4, so coverage reaches back to bar 2; 0 and 1 are forgiven.
    assert len(encode(held(4, 16), bass(0, 16), kicks(0, 16))) == 1
    # One bar later, bar 2 is not covered.
    late = segment(held(5, 16), bass(0, 16), kicks(0, 16))
    assert trio.encode(late, TRACKS, 256) == trio.NOT_TOGETHER
    assert len(encode(held(0, 12), bass(0, 16), kicks(0, 16))) == 1


def test_a_window_can_begin_with_a_note_off() -> None:
    melody = steps((0, 20, 60), *((bar * BAR, bar * BAR + 4, 62) for bar in range(2, 17)))
    rows = encode(melody, bass(0, 17), kicks(0, 17))
    assert rows[1, :BAR, 0].tolist() == [0] * 4 + [1] + [0] * 11


def test_a_melody_does_not_end_at_a_gap() -> None:
    melody = np.concatenate([held(0, 4), held(7, 16)])
    column = encode(melody, bass(0, 16), kicks(0, 16))[0, :, 0]
    assert np.flatnonzero(column == 41).tolist() == [b * BAR for b in range(16) if not 4 <= b < 7]
    assert np.flatnonzero(column == 1).tolist() == [4 * BAR]


def test_a_melody_that_ends_early_gets_a_note_off_there_even_on_a_bar_line() -> None:
    column = encode(held(0, 14), bass(0, 16), kicks(0, 16))[0, :, 0]
    assert column[14 * BAR] == 1


def test_every_triple_of_instruments_gives_its_own_rows() -> None:
    melodies = held(0, 16), held(0, 16, 64, instrument=2, program=5)
    rows = encode(*melodies, bass(0, 16), kicks(0, 16), kicks(0, 16, instrument=10))
    assert rows[:, 0].tolist() == [[41, 21, 1], [41, 21, 1], [45, 21, 1], [45, 21, 1]]


def test_an_instrument_of_two_types_or_a_number_past_127_is_left_out() -> None:
    band = bass(0, 16), kicks(0, 16)
    mixed = np.concatenate([held(0, 15), held(15, 16, program=80)])
    assert trio.encode(segment(mixed, *band), TRACKS, 256) == "no band: no melody"
    far = held(0, 16, instrument=128)
    assert trio.encode(segment(far, *band), TRACKS, 256) == "no band: no melody"
    near = held(0, 16, instrument=127)
    assert len(encode(near, *band)) == 1


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((held(0, 16), kicks(0, 16)), "no band: no bass"),
        ((bass(0, 16),), "no band: no melody, no drums"),
        ((held(0, 16, 20), bass(0, 16), kicks(0, 16)), trio.NOT_TOGETHER),
    ],
)
def test_a_segment_without_band_names_what_is_missing(
    parts: tuple[np.ndarray, ...], reason: str
) -> None:
    assert trio.encode(segment(*parts), TRACKS, 256) == reason


def test_a_segment_of_fifteen_bars_has_no_rows() -> None:
    assert len(encode(held(0, 15), bass(0, 15), kicks(0, 15))) == 0


def test_bars_past_1024_are_not_looked_at() -> None:
    rows = encode(held(0, 1030), bass(0, 1030), kicks(0, 1030))
    assert len(rows) == 1024 - 15


def test_many_triples_stop_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio, "MAX_ROWS", 7)
    melodies = [held(0, 20, 60 + i, instrument=20 + i) for i in range(4)]
    assert len(encode(*melodies, bass(0, 20), kicks(0, 20))) == 7


def test_a_note_of_many_hours_takes_no_memory() -> None:
    long = steps((0, 10**12, 60))
    assert len(encode(long, bass(0, 1024), kicks(0, 1024))) == 1024 - 15


def test_decoding_gives_each_track_its_program_and_instrument() -> None:
    row = np.zeros((32, 3), np.uint16)
    row[0] = [41, 21, 3]
    notes = trio.decode(row, program=5)
    fields = ["pitch", "program", "instrument", "is_drum", "end_step"]
    assert notes[fields].tolist() == [
        (60, 5, 0, False, 32),
        (40, 33, 1, False, 32),
        (36, 0, 9, True, 1),
        (38, 0, 9, True, 1),
    ]


def test_encoding_what_was_decoded_gives_the_row_back() -> None:
    row = np.zeros((256, 3), np.uint16)
    row[::BAR] = [41, 21, 3]
    row[6::BAR] = [1, 23, 4]
    assert np.array_equal(encode(trio.decode(row)), row[None])

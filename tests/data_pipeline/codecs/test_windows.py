from __future__ import annotations

import numpy as np

from data_pipeline.codecs.windows import MAX_STEPS, lay_out, windows


def lay(*spans: tuple[int, int]) -> tuple[list[int], list[int]]:
    starts, ends = np.array(spans).T
    layout = lay_out(starts, ends, np.zeros(len(starts), int))
    return layout.origins.tolist(), layout.lengths.tolist()


def test_a_track_goes_from_the_bar_of_its_first_note_to_the_bar_line_after_its_last() -> None:
    assert lay((17, 20), (30, 33)) == ([16], [32])
    assert lay((17, 20), (30, 32)) == ([16], [16])


def test_a_bar_of_silence_ends_a_track_and_a_step_less_does_not() -> None:
    assert lay((0, 4), (19, 24)) == ([0], [32])
    assert lay((0, 4), (20, 24)) == ([0, 16], [16, 16])


def test_a_track_is_cut_after_100_bars() -> None:
    assert lay((0, 5000), (5001, 5002)) == ([0], [MAX_STEPS])


def test_instruments_are_tracks_of_their_own() -> None:
    layout = lay_out(np.array([0, 4, 0]), np.array([4, 8, 4]), np.array([1, 1, 2]))
    assert layout.track.tolist() == [0, 0, 1]
    assert layout.offsets.tolist() == [0, 16]


def test_windows_hop_a_bar_and_stay_inside_their_track() -> None:
    layout = lay_out(np.array([0, 0, 0]), np.array([48, 16, 32]), np.array([0, 1, 2]))
    events = np.arange(48 + 16 + 32)
    rows, bars, instruments = windows(events, layout, 32)
    assert bars.tolist() == [0, 1, 0]
    assert instruments.tolist() == [[0], [0], [2]]
    assert rows[:, 0].tolist() == [0, 16, 64]
    assert (np.diff(rows, axis=1) == 1).all()

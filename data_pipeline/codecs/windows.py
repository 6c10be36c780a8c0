"""Tracks on the step grid: where each begins and ends, and the windows cut from it.

All tracks of a segment lie one after the other in one flat array, so that a segment costs the
same few array operations whether it holds one track or forty.

Reference: magenta/models/music_vae/data.py (window cutting), note_seq/events_lib.py.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from musicvae_jax.tasks import STEPS_PER_BAR

GAP_STEPS = STEPS_PER_BAR  # this much silence ends a track
MAX_STEPS = 100 * STEPS_PER_BAR  # a track is cut here before windows are taken


class Encoded(NamedTuple):
    """Rows of one segment, by instrument, then time, and where they come from.

    Attributes:
      rows: tokens [N, T] or [N, T, K].
      bars: int [N], first bar of each row, counted from 0 at the segment's start.
      instruments: int [N, G], numbers of the instruments of each row in the order of the task's
        tracks; G is 0 where all instruments count as one, as for drums.
    """

    rows: np.ndarray
    bars: np.ndarray
    instruments: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layout:
    """M tracks in one flat array of events.

    Attributes:
      track: int [N], track of each event's note.
      instruments: int [M], instrument of each track.
      origins: int [M], step of the segment at which a track begins: a bar line.
      lengths: int [M], steps: whole bars, at most MAX_STEPS.
      offsets: int [M], where a track begins in the flat array.
    """

    track: np.ndarray
    instruments: np.ndarray
    origins: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray

    def empty(self, dtype: type[np.generic]) -> np.ndarray:
        """Return the flat array [sum of lengths], all zeros."""
        return np.zeros(int(self.lengths.sum()), dtype)

    def write(
        self, events: np.ndarray, steps: np.ndarray, values: np.ndarray, where: np.ndarray
    ) -> None:
        """Write `values` [N] at the notes' `steps` [N] that `where` [N] names.

        What lies at or after its track's end is left out.
        """
        position = steps - self.origins[self.track]
        keep = where & (position < self.lengths[self.track])
        events[self.offsets[self.track[keep]] + position[keep]] = values[keep]


def lay_out(starts: np.ndarray, ends: np.ndarray, instruments: np.ndarray) -> Layout:
    """Break notes into tracks at gaps and instruments.

    A track begins at the bar of its first note, ends at the bar line at or after the end of
    its last, and breaks where the next note starts GAP_STEPS or more after the last one's end.

    Args:
      starts: int [N], steps, ascending within an instrument; N is at least 1.
      ends: int [N], steps, exclusive.
      instruments: int [N], ascending.
    """
    opens = np.ones(len(starts), np.bool_)
    opens[1:] = (starts[1:] - ends[:-1] >= GAP_STEPS) | (np.diff(instruments) != 0)
    first = np.flatnonzero(opens)
    last = np.append(first[1:], len(starts)) - 1
    origins = starts[first] // STEPS_PER_BAR * STEPS_PER_BAR
    bars = -((origins - ends[last]) // STEPS_PER_BAR)
    lengths = np.minimum(bars * STEPS_PER_BAR, MAX_STEPS)
    offsets = np.cumsum(lengths) - lengths
    return Layout(np.cumsum(opens) - 1, instruments[first], origins, lengths, offsets)


def windows(events: np.ndarray, layout: Layout, num_steps: int) -> Encoded:
    """Cut every track into windows of T = `num_steps` steps that hop by one bar.

    A track shorter than T gives none.
    """
    counts = np.maximum((layout.lengths - num_steps) // STEPS_PER_BAR + 1, 0)
    tracks = np.repeat(np.arange(len(counts)), counts)
    hops = np.arange(len(tracks)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = layout.offsets[tracks] + hops * STEPS_PER_BAR
    return Encoded(
        events[starts[:, None] + np.arange(num_steps)[None, :]],
        layout.origins[tracks] // STEPS_PER_BAR + hops,
        layout.instruments[tracks][:, None],
    )

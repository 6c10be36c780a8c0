"""Measures of piano rolls: where notes start, how many together, which pitches, and originality.

Notes have no length there, and several lines sound at once, so the measures of melodies do not
apply. The distance of two rows is that of Jaccard: of the note starts in either row, the share that
is in one only. A row moved by a tick or a semitone is a different row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from musicvae_jax.analysis import melody, originality, rhythm
from musicvae_jax.analysis.measures import Measure, of_events, of_values, row_means
from musicvae_jax.analysis.originality import Nearest
from musicvae_jax.tasks import LOWEST_ROLL_PITCH, ROLL_PITCHES, ROLL_TICKS, Task
from musicvae_jax.tokens import roll_starts

MOST_TOGETHER = 12
_CHUNK = 2**14  # training rows that are indexed together
_PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def measures(rows: np.ndarray, task: Task) -> list[Measure]:
    """Measure rows [N, T]: rhythm, then pitches."""
    (track,) = task.tracks
    name, num_rows = track.name, len(rows)
    index, cells = roll_starts(rows)
    ticks, lines = np.divmod(cells, ROLL_PITCHES)
    pitches = lines + LOWEST_ROLL_PITCH
    num_ticks = task.num_bars * task.steps_per_bar
    together = np.unique(index * num_ticks + ticks, return_counts=True)
    chords = together[0] // num_ticks, np.minimum(together[1], MOST_TOGETHER) - 1
    counts = np.bincount(index, minlength=num_rows) / task.num_bars
    highest = np.full(num_rows, -1)
    lowest = np.full(num_rows, 128)
    np.maximum.at(highest, index, pitches)
    np.minimum.at(lowest, index, pitches)
    span = np.where(highest >= 0, highest - lowest, np.nan)
    sizes = [str(n) for n in range(1, MOST_TOGETHER)] + [f"{MOST_TOGETHER}+"]
    places = [str(tick + 1) for tick in range(ROLL_TICKS)]
    mean = row_means(index, pitches.astype(np.float64), num_rows)
    return [
        of_events(
            "tick of the bar", rhythm.FAMILY, name, (index, ticks % ROLL_TICKS), num_rows, places
        ),
        of_values("note starts per bar", rhythm.FAMILY, name, counts, 0, 60, 30),
        of_events("notes that start together", rhythm.FAMILY, name, chords, num_rows, sizes),
        of_events(
            "pitch class", melody.FAMILY, name, (index, pitches % 12), num_rows, _PITCH_CLASSES
        ),
        of_values("mean pitch", melody.FAMILY, name, mean, 12, 108, 32),
        of_values("range, semitones", melody.FAMILY, name, span, 0, 96, 32),
    ]


class _Index(NamedTuple):
    """Some training rows by cell.

    Attributes:
      rows: uint16 [M], the row of each note start, counted from the first of these rows; those of a
        cell lie together.
      bounds: int64 [C + 1], where those of each cell begin; C is the number of logits of a row.
      sizes: int64 [R], note starts of each row.
    """

    rows: np.ndarray
    bounds: np.ndarray
    sizes: np.ndarray

    def shared(self, cells: np.ndarray) -> np.ndarray:
        """Count the note starts that each row has in common with cells [M]: int64 [R]."""
        first, stop = self.bounds[cells], self.bounds[cells + 1]
        lengths = stop - first
        places = np.repeat(stop - np.cumsum(lengths), lengths) + np.arange(lengths.sum())
        return np.bincount(self.rows[places], minlength=len(self.sizes))


class KnownStarts(NamedTuple):
    """Training rows, prepared for comparisons: `_CHUNK` rows in each index but the last."""

    indices: tuple[_Index, ...]

    def measures(self, tokens: np.ndarray) -> tuple[list[Measure], Nearest]:
        """See `originality.KnownRows`."""
        near = nearest(tokens, self)
        return originality.of_nearest(near), near


def know(train: np.ndarray, task: Task) -> KnownStarts:
    """Prepare training rows [M, T]."""
    parts = [train[start : start + _CHUNK] for start in range(0, max(len(train), 1), _CHUNK)]
    return KnownStarts(tuple(_index(np.asarray(part), task.num_logits) for part in parts))


def _index(rows: np.ndarray, num_cells: int) -> _Index:
    """Sort the note starts of rows [R, T] by cell."""
    index, cells = roll_starts(rows)
    order = np.argsort(cells, kind="stable")
    bounds = np.append(0, np.cumsum(np.bincount(cells, minlength=num_cells)))
    return _Index(index[order].astype(np.uint16), bounds, np.bincount(index, minlength=len(rows)))


def nearest(rows: np.ndarray, known: KnownStarts) -> Nearest:
    """Find the training row with the least Jaccard distance; two empty rows are equal."""
    index, cells = roll_starts(rows)
    ends = np.cumsum(np.bincount(index, minlength=len(rows)))
    distance = np.full(len(rows), np.inf)
    row = np.zeros(len(rows), np.int64)
    for number, (first, stop) in enumerate(zip([0, *ends[:-1].tolist()], ends, strict=True)):
        for chunk, part in enumerate(known.indices):
            shared = part.shared(cells[first:stop])
            either = part.sizes + (stop - first) - shared
            apart = 1.0 - (shared + (either == 0)) / np.maximum(either, 1)
            place = int(apart.argmin())
            if apart[place] < distance[number]:
                distance[number], row[number] = apart[place], chunk * _CHUNK + place
    return Nearest(distance, row)

"""Measures of piano rolls: where notes start, how many together, and which pitches.

Notes have no length there, and several lines sound at once, so the measures of melodies do not
apply.
"""

from __future__ import annotations

import numpy as np

from musicvae_jax.analysis import melody, rhythm
from musicvae_jax.analysis.measures import Measure, of_events, of_values, row_means
from musicvae_jax.tasks import LOWEST_ROLL_PITCH, ROLL_PITCHES, ROLL_TICKS, RollTask
from musicvae_jax.tokens import roll_starts

MOST_TOGETHER = 12
_PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def measures(rows: np.ndarray, task: RollTask) -> list[Measure]:
    """Measure rows [N, T]: rhythm, then pitches."""
    (track,) = task.tracks
    name, num_rows = track.name, len(rows)
    index, cells = roll_starts(rows)
    ticks, lines = np.divmod(cells, ROLL_PITCHES)
    pitches = lines + LOWEST_ROLL_PITCH
    together = np.unique(index * task.num_ticks + ticks, return_counts=True)
    chords = together[0] // task.num_ticks, np.minimum(together[1], MOST_TOGETHER) - 1
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

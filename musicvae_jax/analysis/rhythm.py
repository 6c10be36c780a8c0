"""Measures of rhythm: onsets, note lengths, similarity of bars.

References: groove consistency is Wu and Yang 2020, "The Jazz Transformer on the front line",
section 4.3, as `muspy.groove_consistency` has it.
"""

from __future__ import annotations

import numpy as np

from musicvae_jax.analysis.measures import Measure, of_events, of_values
from musicvae_jax.tasks import DRUM_CLASS_NAMES, STEPS_PER_BAR, Track
from musicvae_jax.tokens import hits, melody_notes, onsets

FAMILY = "rhythm"
LEVELS = ("bar", "half", "quarter", "eighth", "uneven 16th")
MAX_LENGTH = 32  # steps; longer notes count as this long

_POSITIONS = tuple(str(step + 1) for step in range(STEPS_PER_BAR))
_PER_BAR = tuple(str(count) for count in range(STEPS_PER_BAR + 1))


def metrical_levels() -> np.ndarray:
    """Return the index in `LEVELS` of each step of a bar, int64 [16].

    It is that of the longest note value whose grid the step lies on.
    """
    steps = np.arange(STEPS_PER_BAR)
    grids = STEPS_PER_BAR >> np.arange(len(LEVELS))
    return (steps[:, None] % grids[None, :] == 0).argmax(axis=1)


def measures(column: np.ndarray, track: Track) -> list[Measure]:
    """Measure one track.

    Args:
      column: tokens int64 [N, T], T whole bars.
      track: what they mean.
    """
    starts = onsets(column, track)
    num_rows, name = len(column), track.name
    rows, steps = np.nonzero(starts)
    places = steps % STEPS_PER_BAR
    levels = metrical_levels()[places]
    groove = groove_consistency(starts)  # in 16ths; 1 has a bin of its own
    found = [
        of_events("onsets by metrical level", FAMILY, name, (rows, levels), num_rows, LEVELS),
        of_events("onsets by 16th of the bar", FAMILY, name, (rows, places), num_rows, _POSITIONS),
        of_values("share of onsets on uneven 16ths", FAMILY, name, uneven_share(starts), 0, 1, 16),
        _per_bar("notes per bar" if track.is_pitched else "steps with hits per bar", name,
                 starts),
        of_values("groove consistency", FAMILY, name, groove, 0, 17 / 16, 17),
    ]  # fmt: skip
    if not track.is_pitched:
        return found + _classes(column, name)
    notes = melody_notes(column)
    lengths = np.minimum(notes.length, MAX_LENGTH) - 1
    labels = [str(step + 1) for step in range(MAX_LENGTH - 1)] + [f"{MAX_LENGTH}+"]
    return [
        *found,
        of_events("note length, 16ths", FAMILY, name, (notes.row, lengths), num_rows, labels),
    ]


def uneven_share(starts: np.ndarray) -> np.ndarray:
    """Return the share of each row's onsets on the 2nd, 4th, ... 16th of the bar.

    Args:
      starts: bool [N, T].

    Returns:
      float64 [N], NaN for rows without onsets.
    """
    total = starts.sum(axis=1)
    uneven = starts[:, 1::2].sum(axis=1)
    return np.divide(uneven, total, out=np.full(len(starts), np.nan), where=total > 0)


def groove_consistency(starts: np.ndarray) -> np.ndarray:
    """Return how alike the onset patterns of neighbouring bars are.

    Args:
      starts: bool [N, T], T at least two whole bars.

    Returns:
      float64 [N]: 1 less the mean share of the bar's 16ths where one bar has an onset and the
      next has none, or the other way round.
    """
    bars = starts.reshape(len(starts), -1, STEPS_PER_BAR)
    return 1.0 - (bars[:, 1:] != bars[:, :-1]).mean(axis=(1, 2))


def _per_bar(what: str, name: str, starts: np.ndarray) -> Measure:
    """Count the onsets of each bar."""
    counts = starts.reshape(len(starts), -1, STEPS_PER_BAR).sum(axis=2)
    rows = np.repeat(np.arange(len(counts)), counts.shape[1])
    return of_events(what, FAMILY, name, (rows, counts.ravel()), len(starts), _PER_BAR)


def _classes(column: np.ndarray, name: str) -> list[Measure]:
    """Measure each drum class by itself."""
    found = []
    hit = hits(column)
    for number, drum in enumerate(DRUM_CLASS_NAMES):
        starts = hit[:, :, number]
        rows, steps = np.nonzero(starts)
        place = (rows, steps % STEPS_PER_BAR)
        found += [
            of_events(f"{drum}: 16th of the bar", FAMILY, name, place, len(column), _POSITIONS),
            _per_bar(f"{drum}: hits per bar", name, starts),
        ]
    return found

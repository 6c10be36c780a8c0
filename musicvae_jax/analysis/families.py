"""All measures of a task's rows, by what the rows hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from musicvae_jax.analysis import melody, originality, piano_rolls, rhythm, structure
from musicvae_jax.analysis.measures import Measure
from musicvae_jax.analysis.originality import KnownRows
from musicvae_jax.tasks import Task
from musicvae_jax.tokens import columns_of

FAMILIES = (rhythm.FAMILY, melody.FAMILY, structure.FAMILY, originality.FAMILY)


def measure_rows(tokens: np.ndarray, task: Task) -> list[Measure]:
    """Measure rhythm, melody and structure.

    Args:
      tokens: [N, T] or [N, T, K] integer.
      task: what they mean.
    """
    return _OF_CONTENT[task.content].measures(tokens, task) + structure.measures(tokens, task)


def know(train: np.ndarray, task: Task) -> KnownRows:
    """Prepare training rows [M, T] or [M, T, K] for measures of originality."""
    return _OF_CONTENT[task.content].know(train, task)


def _measure_tracks(tokens: np.ndarray, task: Task) -> list[Measure]:
    """Measure rhythm and melody, track by track."""
    found: list[Measure] = []
    for column, track in zip(columns_of(tokens, task), task.tracks, strict=True):
        found += rhythm.measures(column, track)
        if track.is_pitched:
            found += melody.measures(column, track.name)
    return found


class _Measures(NamedTuple):
    """Measures of rows with a content: of rhythm and melody, and the training rows to compare."""

    measures: Callable[[np.ndarray, Task], list[Measure]]
    know: Callable[[np.ndarray, Task], KnownRows]


_OF_CONTENT = {
    "tokens": _Measures(_measure_tracks, originality.know),
    "note starts": _Measures(piano_rolls.measures, piano_rolls.know),
}

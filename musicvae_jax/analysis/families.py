"""All measures of a task's rows."""

from __future__ import annotations

import numpy as np

from musicvae_jax.analysis import melody, originality, piano_rolls, rhythm, structure
from musicvae_jax.analysis.measures import Measure
from musicvae_jax.tasks import RollTask, Task
from musicvae_jax.tokens import columns_of

FAMILIES = (rhythm.FAMILY, melody.FAMILY, structure.FAMILY, originality.FAMILY)


def measure_rows(tokens: np.ndarray, task: Task) -> list[Measure]:
    """Measure rhythm, melody and structure.

    Args:
      tokens: [N, T] or [N, T, K] integer.
      task: what they mean.
    """
    if isinstance(task, RollTask):
        return piano_rolls.measures(tokens, task) + structure.measures(tokens, task)
    found = []
    for column, track in zip(columns_of(tokens, task), task.tracks, strict=True):
        found += rhythm.measures(column, track)
        if track.is_pitched:
            found += melody.measures(column, track.name)
    return found + structure.measures(tokens, task)

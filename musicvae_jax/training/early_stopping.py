"""State of plateau learning-rate decay and early stopping.

This is host code on a few NumPy scalars. They are part of the training state, so checkpoints
include them and a resumed run makes the same decisions as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from musicvae_jax.config import Config


class Patience(NamedTuple):
    """Best scores and validations without improvement; scalars, or [G] for a sweep of G points.

    Attributes:
      rate_scale: learning-rate factor accumulated by the schedule "plateau", float32.
      plateau_best: best score so far for "plateau", float32; smaller is better.
      plateau_waited: validations since the best score or the last rate decay, int32.
      stop_best: best score so far for early stopping, float32; smaller is better.
      stop_waited: validations since that score, int32.
    """

    rate_scale: np.ndarray
    plateau_best: np.ndarray
    plateau_waited: np.ndarray
    stop_best: np.ndarray
    stop_waited: np.ndarray


def first_patience() -> Patience:
    """Return the state before the first validation."""
    worst, zero = np.float32(math.inf), np.int32(0)
    return Patience(np.asarray(np.float32(1)), *map(np.asarray, (worst, zero, worst, zero)))


def validated(patience: Patience, config: Config, figures: Mapping[str, float]) -> Patience:
    """Update the state of one run after a validation.

    Args:
      patience: state before the validation, scalars.
      config: configuration of the run.
      figures: validation scores; NaN counts as no improvement.
    """
    train, run = config.train, config.run
    best, waited = _watch(
        figures, train.plateau_metric, train.plateau_min_delta, patience[1], patience[2]
    )
    scale = patience.rate_scale
    if train.learning_rate_schedule == "plateau" and waited >= train.plateau_patience:
        scale, waited = scale * np.float32(train.plateau_factor), np.int32(0)
    stop = _watch(figures, run.stop_metric, run.stop_min_delta, patience[3], patience[4])
    return Patience(*map(np.asarray, (scale, best, waited, *stop)))


def _watch(
    figures: Mapping[str, float],
    metric: str,
    min_delta: float,
    best: np.ndarray,
    waited: np.ndarray,
) -> tuple[np.float32, np.int32]:
    """Compare a score with the best so far: (best, validations without improvement)."""
    value = np.float32(-figures[metric] if metric == "accuracy" else figures[metric])
    # The first score always improves on infinity, whatever the margin.
    if value < np.float32(best) - np.float32(min_delta):
        return value, np.int32(0)
    return np.float32(best), np.int32(waited + 1)


def is_exhausted(patience: Patience, config: Config) -> bool:
    """Return whether early stopping should end the run."""
    limit = config.run.stop_patience
    return limit > 0 and int(patience.stop_waited) >= limit


def needs_validation(config: Config) -> bool:
    """Return whether the run needs validations, for a plateau schedule or early stopping."""
    return config.train.learning_rate_schedule == "plateau" or config.run.stop_patience > 0


def waited(patience: Patience, config: Config) -> dict[str, float]:
    """Return the validations without improvement for each rule in use, as metrics."""
    figures = {}
    if config.train.learning_rate_schedule == "plateau":
        figures["plateau_waited"] = float(patience.plateau_waited)
    if config.run.stop_patience:
        figures["stop_waited"] = float(patience.stop_waited)
    return figures

"""State of plateau learning-rate decay and early stopping.

Host code over a few NumPy scalars. They are part of the training state, so that a checkpoint
holds them and a resumed run decides as one that never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from musicvae_jax.config import Config


class Patience(NamedTuple):
    """Best figures and waiting times; scalars, or [G] for the points of a sweep.

    Attributes:
      rate_scale: what the schedule "plateau" has multiplied the learning rate by, float32.
      plateau_best: best figure it has seen, float32; a better one is smaller.
      plateau_waited: validations since then, or since the rate last fell, int32.
      stop_best: best figure that early stopping has seen, float32; a better one is smaller.
      stop_waited: validations since then, int32.
    """

    rate_scale: np.ndarray
    plateau_best: np.ndarray
    plateau_waited: np.ndarray
    stop_best: np.ndarray
    stop_waited: np.ndarray


def first_patience() -> Patience:
    """Return what a run knows before its first validation."""
    nothing, none = np.float32(math.inf), np.int32(0)
    return Patience(np.asarray(np.float32(1)), *map(np.asarray, (nothing, none, nothing, none)))


def validated(patience: Patience, config: Config, figures: Mapping[str, float]) -> Patience:
    """Return what is known after one more validation of one run.

    Args:
      patience: what was known, scalars.
      config: whose schedule and early stopping decide.
      figures: of the validation; one that is not a number counts as no better.
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
    """Compare a figure with the best so far: (best, validations without a better one)."""
    value = np.float32(-figures[metric] if metric == "accuracy" else figures[metric])
    # The first figure beats infinity whatever the margin.
    if value < np.float32(best) - np.float32(min_delta):
        return value, np.int32(0)
    return np.float32(best), np.int32(waited + 1)


def is_exhausted(patience: Patience, config: Config) -> bool:
    """Return whether early stopping ends the run."""
    limit = config.run.stop_patience
    return limit > 0 and int(patience.stop_waited) >= limit


def needs_validation(config: Config) -> bool:
    """Return whether the run depends on validations: a plateau schedule, or early stopping."""
    return config.train.learning_rate_schedule == "plateau" or config.run.stop_patience > 0


def waited(patience: Patience, config: Config) -> dict[str, float]:
    """Return the validations without improvement, as figures of those rules that are in use."""
    figures = {}
    if config.train.learning_rate_schedule == "plateau":
        figures["plateau_waited"] = float(patience.plateau_waited)
    if config.run.stop_patience:
        figures["stop_waited"] = float(patience.stop_waited)
    return figures

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest

from musicvae_jax.config import Config
from musicvae_jax.tasks import get_task
from musicvae_jax.training import early_stopping
from musicvae_jax.training.early_stopping import Patience


def _config(**fields: Any) -> Config:
    return get_task("mel_2bar").config.replace(**fields)


def _after(config: Config, figures: list[float], metric: str = "loss") -> list[Patience]:
    found = [early_stopping.first_patience()]
    for figure in figures:
        found.append(early_stopping.validated(found[-1], config, {"loss": 0.0} | {metric: figure}))
    return found[1:]


def test_the_rate_falls_when_nothing_got_better_for_long_enough() -> None:
    config = _config(
        learning_rate_schedule="plateau",
        plateau_patience=2,
        plateau_factor=0.25,
        plateau_min_delta=1.0,
    )
    # Better by at least 1: 10 and 8; 7.5 is not, so the rate falls at the fourth figure.
    found = _after(config, [10.0, 8.0, 7.5, 8.0, 7.2, 6.9, 20.0, math.nan])
    assert [float(p.rate_scale) for p in found] == [1, 1, 1, 0.25, 0.25, 0.25, 0.25, 0.0625]
    assert [int(p.plateau_waited) for p in found] == [0, 0, 1, 0, 1, 0, 1, 0]
    assert [float(p.plateau_best) for p in found][-3:] == [np.float32(6.9)] * 3


def test_other_schedules_keep_the_rate() -> None:
    found = _after(_config(plateau_patience=1), [1.0, 2.0, 3.0])
    assert [float(p.rate_scale) for p in found] == [1, 1, 1]


def test_training_ends_when_its_patience_does() -> None:
    config = _config(stop_patience=2, stop_metric="accuracy")
    found = _after(config, [0.5, 0.4, 0.6, 0.6, 0.1], "accuracy")
    assert [int(p.stop_waited) for p in found] == [0, 1, 0, 1, 2]
    assert [early_stopping.is_exhausted(p, config) for p in found] == [False] * 4 + [True]
    assert not early_stopping.is_exhausted(found[-1], _config())


def test_runs_that_depend_on_validations_are_known() -> None:
    assert not early_stopping.needs_validation(_config())
    assert early_stopping.needs_validation(_config(stop_patience=1))
    assert early_stopping.needs_validation(_config(learning_rate_schedule="plateau"))


def test_its_arrays_keep_their_types() -> None:
    first, after = early_stopping.first_patience(), _after(_config(), [1.0])[0]
    types = [(leaf.dtype, leaf.shape) for leaf in jax.tree.leaves(first)]
    assert types == [(leaf.dtype, leaf.shape) for leaf in jax.tree.leaves(after)]
    assert [str(kind) for kind, _ in types] == ["float32", "float32", "int32", "float32", "int32"]


@pytest.mark.parametrize("metric", ["loss_reference", "reconstruction_nats", "kl_bits"])
def test_any_figure_of_a_validation_may_decide(metric: str) -> None:
    found = _after(_config(stop_metric=metric, stop_patience=1), [2.0, 3.0], metric)
    assert [int(p.stop_waited) for p in found] == [0, 1]

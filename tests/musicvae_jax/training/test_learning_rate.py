from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import TrainConfig
from musicvae_jax.training.learning_rate import learning_rate_at
from musicvae_jax.training.optimiser import Hyperparameters, hyperparameters


def _hyper(**fields: Any) -> Hyperparameters:
    return hyperparameters(dataclasses.replace(TrainConfig(), **fields))


@pytest.mark.parametrize(("step", "rate"), [(0, 1e-3), (1, 9.99901e-4), (10_000, 3.742e-4)])
def test_the_learning_rate_decays_to_its_minimum(step: int, rate: float) -> None:
    found = learning_rate_at(jnp.int32(step), _hyper())
    # The float32 of 0.9999 is 1.7e-8 lower, which shows at 10,000 steps.
    np.testing.assert_allclose(found, rate, rtol=4e-4)
    last = learning_rate_at(jnp.int32(10_000_000), _hyper())
    np.testing.assert_allclose(last, 1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "fields", "rates"),
    [
        # Steps 0, 1, 2, 4, 8 and 100.
        ("constant", {}, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("constant", {"warmup_steps": 4}, [0.0, 0.25, 0.5, 1.0, 1.0, 1.0]),
        ("cosine", {"cosine_steps": 8}, [1.0, 0.96574, 0.86819, 0.55, 0.1, 0.1]),
        ("cosine", {"cosine_steps": 8, "warmup_steps": 4}, [0.0, 0.25, 0.5, 1.0, 0.1, 0.1]),
        ("exponential", {"decay_rate": 0.5}, [1.0, 0.55, 0.325, 0.15625, 0.103516, 0.1]),
        ("exponential", {"decay_rate": 0.5, "warmup_steps": 2}, [0, 0.275, 0.325, 0.15625]),
        ("plateau", {}, [0.3, 0.3, 0.3, 0.3, 0.3, 0.3]),
        ("plateau", {"warmup_steps": 2}, [0.0, 0.15, 0.3, 0.3, 0.3, 0.3]),
        ("plateau", {"min_learning_rate": 0.5}, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_schedules_of_the_learning_rate(
    schedule: str, fields: dict[str, Any], rates: list[float]
) -> None:
    hyper = _hyper(**{"learning_rate": 1.0, "min_learning_rate": 0.1} | fields)
    steps = [0, 1, 2, 4, 8, 100][: len(rates)]
    found = [learning_rate_at(jnp.int32(n), hyper, schedule, 0.3) for n in steps]
    np.testing.assert_allclose(found, rates, rtol=1e-4, atol=1e-7)

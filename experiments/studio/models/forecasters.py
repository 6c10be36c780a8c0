"""Models without a latent space in the studio: they sample and continue, step by step."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from experiments.studio.fields import wrong
from experiments.studio.models.played import PlayedModel, batch_size, compiled_bars
from experiments.studio.models.worker import Worker
from experiments.studio.rows import Given
from musicvae_jax.config import Config
from musicvae_jax.models.registry import Forecaster, Params
from musicvae_jax.tasks import STEPS_PER_BAR, get_task


class ForecasterModel(PlayedModel):
    """A forecaster, with its calls compiled for few sizes."""

    def __init__(
        self, name: str, config: Config, params: Params, model: Forecaster, worker: Worker
    ) -> None:
        super().__init__(name, get_task(config.task), params, worker)

        # Temperature 0 is a program of its own, without random numbers.
        @functools.partial(jax.jit, static_argnums=(2, 5))
        def run(
            params: Params,
            seed: jax.Array,
            num_steps: int,
            key: jax.Array,
            temperature: jax.Array,
            is_greedy: bool,
        ) -> Any:
            return model.continuation(
                params, seed, num_steps, key, 0.0 if is_greedy else temperature
            )

        self._run = run

    def sample(
        self, num: int, key: jax.Array, temperature: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Write rows from nothing: [num, T(, K)] int32, and no z."""
        nothing = np.zeros((0, *self.task.row_shape[1:]), np.int32)
        return self._continued(nothing, self.task.num_steps, num, key, temperature), None

    def continuation(
        self, given: Given, bars: int, drift: float, num: int, key: jax.Array, temperature: float
    ) -> np.ndarray:
        """Continue a row, whose last bar is filled up without events; `drift` has no effect.

        Raises:
          RefusedError: there are no tokens.
        """
        del drift
        if given.tokens is None:
            raise wrong(f"row.tokens: {self.name} has no latent space and continues tokens only")
        whole_bars = -(-given.length // STEPS_PER_BAR) * STEPS_PER_BAR
        num_steps = compiled_bars(bars) * STEPS_PER_BAR
        made = self._continued(given.tokens[:whole_bars], num_steps, num, key, temperature)
        return made[:, : bars * STEPS_PER_BAR]

    def _continued(
        self, seed: np.ndarray, num_steps: int, num: int, key: jax.Array, temperature: float
    ) -> np.ndarray:
        """Continue one seed [S(, K)]: [num, num_steps(, K)]."""
        seeds = np.broadcast_to(seed, (batch_size(num), *seed.shape))
        made = self._run(self.params, seeds, num_steps, key, temperature, temperature == 0)
        return np.asarray(made)[:num]

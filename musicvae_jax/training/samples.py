"""Samples that a run writes while it trains, so that one can hear and see what it has learned."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from musicvae_jax import data
from musicvae_jax.config import Config
from musicvae_jax.devices import sharding
from musicvae_jax.models.registry import Forecaster, Model
from musicvae_jax.tasks import STEPS_PER_BAR, get_task

NUM_SAMPLES = 4
TEMPERATURE = 0.5


class Samples(NamedTuple):
    """Rows that a model generated.

    Attributes:
      rows: [N, *task.row_shape].
      z: what they were decoded from, [N, Z] float32; Z is 0 for a forecaster.
    """

    rows: np.ndarray
    z: np.ndarray


class Sampler:
    """Generates rows from the same starting points each time, compiled once.

    A VAE decodes fixed points of its prior N(0, I). A forecaster continues the first bar of evenly
    spaced rows. The random keys are fixed too, so equal parameters give equal samples, and the
    random numbers of training do not change.

    Args:
      model: the model.
      config: configuration of the run.
      rows: rows that a forecaster continues, [N, *task.row_shape]; at least one.
      mesh: devices.
      params: parameters, for their shapes.
    """

    def __init__(
        self, model: Model, config: Config, rows: np.ndarray, mesh: Mesh, params: Any
    ) -> None:
        task = get_task(config.task)
        self._row_type = rows.dtype
        z_key, key = jax.random.split(jax.random.key(0))
        if isinstance(model, Forecaster):
            chosen = rows[data.spread_rows(len(rows), NUM_SAMPLES)]
            start = jnp.asarray(chosen[:, :STEPS_PER_BAR], jnp.int32)
            self._z = np.zeros((len(chosen), 0), np.float32)
        else:
            start = jax.random.normal(z_key, (NUM_SAMPLES, config.model.z_size))
            self._z = np.asarray(start)

        replicated = sharding.replicated(mesh)
        shardings = sharding.of_tree(mesh, params, config.run.param_sharding)
        # On the host: each process of a run gives them to its own devices.
        self._start, self._key = jax.device_get((start, jax.random.key_data(key)))
        self._generate = jax.jit(
            _generating(model, task.num_steps, mesh),
            in_shardings=(shardings, replicated, replicated),
            out_shardings=replicated,
        )

    def __call__(self, params: Any) -> Samples:
        """Generate the rows with these parameters; all processes of a run must call it."""
        rows = self._generate(params, self._start, self._key)
        return Samples(np.asarray(rows).astype(self._row_type), self._z)


# Kept, so that runs with equal models share what JAX compiles.
@functools.lru_cache(4)
def _generating(model: Model, num_steps: int, mesh: Mesh) -> Callable[..., jax.Array]:
    """Return what generates rows from `(params, start, data of a key)`."""

    def generate(params: Any, start: jax.Array, key_data: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key_data)
        if mesh.size > 1:
            params = sharding.gathered(mesh, params)
        if not isinstance(model, Forecaster):
            return model.generate(params, start, key, TEMPERATURE)
        rest = model.continuation(params, start, num_steps - STEPS_PER_BAR, key, TEMPERATURE)
        return jnp.concatenate([start, rest], axis=1)

    return generate


def make_sampler(
    model: Model, config: Config, store: data.Store, mesh: Mesh, params: Any
) -> Sampler | None:
    """Build the sampler of a run, None if `sample_every` is 0."""
    if not config.run.sample_every:
        return None
    splits = store.splits
    rows = splits["validation"] if len(splits["validation"]) else splits["train"]
    return Sampler(model, config, rows, mesh, params)

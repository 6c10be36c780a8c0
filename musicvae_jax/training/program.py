"""Compiled programs for training steps and validation, and the placement of their input rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from musicvae_jax import data, metrics
from musicvae_jax.config import Config, RunConfig
from musicvae_jax.devices import sharding
from musicvae_jax.models.registry import Forecaster, Model
from musicvae_jax.training.early_stopping import Patience
from musicvae_jax.training.state import TrainState
from musicvae_jax.training.step import (
    Batch,
    Metrics,
    make_eval_step,
    make_run_steps,
    make_train_step,
    take_from_chunk,
    take_from_device,
    with_kl_bits,
)

# Rows that need at most this share of the device's memory are kept on the device.
SHARE_FOR_ROWS = 0.25
# The limit for devices that do not report their memory (CPUs), in bytes.
BYTES_FOR_ROWS = 2 << 30
_KEPT = 4  # programs


class Dispatch:
    """The compiled program of several training steps, and the batches it consumes.

    Attributes:
      size: largest number of steps per call.
      on_device: whether the rows are on the devices, where batches are then gathered.
      memory_bytes: memory of a call on each device.
    """

    def __init__(
        self, model: Model, config: Config, rows: np.ndarray, mesh: Mesh, state: TrainState
    ) -> None:
        self.size = config.run.steps_per_dispatch
        self._train = config.train
        self._host_rows = rows
        self._chunk_sharding = sharding.along_data(mesh, axis=1)
        replicated = sharding.replicated(mesh)
        shardings = sharding.of_tree(mesh, state, config.run.param_sharding)
        self.on_device = fits(rows, config.run.data_placement, mesh)
        kept = np.asarray(rows if self.on_device else rows[:0])
        self._rows = sharding.place(replicated, kept.shape, kept.__getitem__)
        jitted = jax.jit(
            _run_steps(model, _without_host_fields(config), mesh, self.on_device),
            in_shardings=(shardings, replicated, self._chunk_sharding, replicated),
            out_shardings=(shardings, replicated),
            donate_argnums=0,
        )
        # Compile ahead of time to know the memory before the first call.
        arguments = (state, self._rows, self.chunk(0, 1), jnp.int32(1))
        self._compiled = jitted.lower(*arguments).compile()
        self.memory_bytes = memory_bytes(self._compiled)

    def __call__(self, state: TrainState, step: int, count: int) -> tuple[TrainState, Metrics]:
        """Run `count` steps after step `step`; `state` is donated.

        The call returns before the device has finished, so the next call can gather its batches
        while these steps run. No other prefetching is needed.
        """
        return self._compiled(state, self._rows, self.chunk(step, count), np.int32(count))

    def chunk(self, step: int, count: int) -> jax.Array:
        """Return the batches of `count` steps, padded to `size` with the first one.

        Each process reads only the rows that its own devices hold.
        """
        train = self._train
        chunk = batches(train.seed, step, count, self.size, len(self._host_rows), train.batch_size)
        if self.on_device:
            return sharding.place(self._chunk_sharding, chunk.shape, chunk.__getitem__)
        return sharding.place_rows(self._chunk_sharding, self._host_rows, chunk)

    def records(self, found: Metrics) -> list[dict[str, np.ndarray]]:
        """Wait for the metrics of a call and return them, [C] each."""
        return [jax.device_get(found)]

    def run_state(self, state: TrainState, run: int) -> TrainState:
        """Return the state unchanged, as there is only one run."""
        del run
        return state

    def with_patience(self, state: TrainState, waiting: Sequence[Patience]) -> TrainState:
        """Return the state with the updated patience."""
        return dataclasses.replace(state, patience=placed_like(waiting[0], state.patience))

    def freeze(self, run: int) -> None:
        """Do nothing, as the loop ends with its only run."""


def _without_host_fields(config: Config) -> Config:
    """Replace the fields that no compiled step depends on by fixed values."""
    train = dataclasses.replace(config.train, seed=0)
    return dataclasses.replace(config, train=train, run=RunConfig())


# The functions are kept, so that trainings with equal settings, such as a run and its resumption in
# the same process, share what JAX traces and compiles.
@functools.lru_cache(_KEPT)
def _run_steps(model: Model, config: Config, mesh: Mesh, on_device: bool) -> Callable[..., Any]:
    """Return the program of several training steps."""
    take = take_from_device if on_device else take_from_chunk
    return make_run_steps(make_train_step(_gathering(model, mesh), config), take)


@functools.lru_cache(_KEPT)
def _eval_step(model: Model, config: Config, mesh: Mesh) -> Callable[..., Metrics]:
    """Return the evaluation step."""
    return make_eval_step(_gathering(model, mesh), config)


def _gathering(model: Model, mesh: Mesh) -> Model:
    """Wrap a model so that it gathers its parameters before using them."""
    if mesh.size == 1:
        return model

    def gathering(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(params: Any, *args: Any, **options: Any) -> Any:
            return function(sharding.gathered(mesh, params), *args, **options)

        return run

    if isinstance(model, Forecaster):
        return model._replace(next_logits=gathering(model.next_logits))
    return model._replace(encode=gathering(model.encode), logits=gathering(model.logits))


def placed_like(new: Any, old: Any) -> Any:
    """Place the arrays of `new` on the devices of those of `old`."""
    return jax.tree.map(lambda n, o: jax.device_put(n, o.sharding), new, old)


def batches(
    seed: int, step: int, count: int, size: int, num_rows: int, batch_size: int
) -> np.ndarray:
    """Return the row indices of `count` steps from `step`, padded to `size` with the first.

    Returns:
      [size, B] integer.
    """
    steps = [step + (i if i < count else 0) for i in range(size)]
    return np.stack([data.batch_indices(seed, n, num_rows, batch_size) for n in steps])


def fits(rows: np.ndarray, placement: str, mesh: Mesh) -> bool:
    """Return whether the rows should be kept on the device."""
    if placement != "auto":
        return placement == "device"
    if mesh.is_multi_process:
        return False
    stats = mesh.devices.flat[0].memory_stats() or {}
    limit = stats.get("bytes_limit", BYTES_FOR_ROWS / SHARE_FOR_ROWS) * SHARE_FOR_ROWS
    return rows.nbytes <= limit


def memory_bytes(compiled: Any) -> int:
    """Return the memory of a compiled program; donated arguments count once."""
    sizes = compiled.memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )


class Validation:
    """Scores validation rows with teacher forcing and the same noise every time.

    Attributes:
      chosen: indices of the rows that are scored.
    """

    def __init__(
        self, model: Model, config: Config, rows: np.ndarray, mesh: Mesh, params: Any
    ) -> None:
        self.chosen = data.spread_rows(len(rows), config.run.eval_examples)
        self._rows, self._config = rows, config
        part = config.train.batch_size // config.train.accumulation
        parts = mesh.shape[sharding.DATA_AXIS]
        whole_batches = -(-len(self.chosen) // parts) * parts
        self._batch_size = max(min(part, whole_batches), parts)
        self._data_sharding, replicated = sharding.along_data(mesh), sharding.replicated(mesh)
        shardings = sharding.of_tree(mesh, params, config.run.param_sharding)
        self._step = jax.jit(
            _eval_step(model, _without_host_fields(config), mesh),
            in_shardings=(shardings, replicated, self._data_sharding, self._data_sharding),
            out_shardings=replicated,
        )

    def __call__(self, state: TrainState, config: Config | None = None) -> dict[str, float]:
        """Return `example_values` averaged over the rows, with any KL in bits.

        Args:
          state: provides the parameters and hyper-parameters.
          config: configuration of the run, if its hyper-parameters or seed differ from those
            given at construction.
        """
        sums: dict[str, np.ndarray] = {}
        seed, z_size = (config or self._config).train.seed, self._config.model.z_size
        # Drawn for all rows at once, so a row's noise does not depend on batch size or devices.
        eps = np.random.default_rng(seed).standard_normal((len(self.chosen), z_size), np.float32)
        for indices, mask in data.padded_batches(len(self.chosen), self._batch_size):
            tokens = sharding.place_rows(self._data_sharding, self._rows, self.chosen[indices])
            batch = Batch(tokens, self._place(eps[indices]))
            found = self._step(state.params, state.hyper, batch, self._place(mask))
            sums = metrics.add_sums(sums, found)
        examples = float(sums.pop("examples"))
        return with_kl_bits({name: float(value) / examples for name, value in sums.items()})

    def _place(self, values: np.ndarray) -> jax.Array:
        """Shard a host array along the data axis."""
        return sharding.place(self._data_sharding, values.shape, values.__getitem__)

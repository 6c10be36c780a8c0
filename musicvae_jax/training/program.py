"""Compiled programs for several training steps and for a validation, and their input rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from musicvae_jax import data, metrics
from musicvae_jax.config import Config
from musicvae_jax.devices import sharding
from musicvae_jax.models.registry import Model
from musicvae_jax.training.early_stopping import Patience
from musicvae_jax.training.step import (
    Batch,
    Metrics,
    TrainState,
    make_eval_step,
    make_run_steps,
    make_train_step,
    take_from_chunk,
    take_from_device,
)

# Rows that take no more than this share of the device's memory are kept there.
SHARE_FOR_ROWS = 0.25
# The same for a device that does not tell its memory (a CPU), in bytes.
BYTES_FOR_ROWS = 2 << 30


class Dispatch:
    """The compiled program of several steps, fed with the batches of those steps.

    Attributes:
      size: most steps of one call.
      on_device: the rows lie on the devices and batches are gathered there.
      memory_bytes: what the program holds on each device while it runs.
    """

    def __init__(
        self, model: Model, config: Config, rows: np.ndarray, mesh: Mesh, state: TrainState
    ) -> None:
        self.size = config.run.steps_per_dispatch
        self._train = config.train
        self._host_rows = rows
        self._chunk_sharding = sharding.along_data(mesh, axis=1)
        whole = sharding.replicated(mesh)
        placed = sharding.of_tree(mesh, state, config.run.param_sharding)
        self.on_device = fits(rows, config.run.data_placement, mesh)
        kept = np.asarray(rows if self.on_device else rows[:0])
        self._rows = sharding.place(whole, kept.shape, kept.__getitem__)
        take = take_from_device if self.on_device else take_from_chunk
        step = make_train_step(_gathering(model, mesh), config)
        run_steps = make_run_steps(step, take)
        jitted = jax.jit(
            run_steps,
            in_shardings=(placed, whole, self._chunk_sharding, whole),
            out_shardings=(placed, whole),
            donate_argnums=0,
        )
        # Compiled ahead of the first call, so that the memory it takes is known before.
        arguments = (state, self._rows, self.chunk(0, 1), jnp.int32(1))
        self._compiled = jitted.lower(*arguments).compile()
        self.memory_bytes = memory_bytes(self._compiled)

    def __call__(self, state: TrainState, step: int, count: int) -> tuple[TrainState, Metrics]:
        """Make `count` steps from `step`; `state` is used up.

        Returns before the device is done. The caller's next call gathers its batches while
        these steps run: that is all the prefetching there is, and all that is needed.
        """
        return self._compiled(state, self._rows, self.chunk(step, count), np.int32(count))

    def chunk(self, step: int, count: int) -> jax.Array:
        """Return the batches of `count` steps, filled up to `size` with the first.

        Rows are read where they go: each process reads its own.
        """
        train = self._train
        chunk = batches(train.seed, step, count, self.size, len(self._host_rows), train.batch_size)
        if self.on_device:
            return sharding.place(self._chunk_sharding, chunk.shape, chunk.__getitem__)
        return sharding.place_rows(self._chunk_sharding, self._host_rows, chunk)

    def records(self, found: Metrics) -> list[dict[str, np.ndarray]]:
        """Wait for the metrics of a call: [C] each."""
        return [jax.device_get(found)]

    def run_state(self, state: TrainState, run: int) -> TrainState:
        """Return the state: there is one run."""
        del run
        return state

    def with_patience(self, state: TrainState, waiting: Sequence[Patience]) -> TrainState:
        """Put what validations said into the state."""
        return dataclasses.replace(state, patience=placed_like(waiting[0], state.patience))

    def freeze(self, run: int) -> None:
        """Do nothing: the loop ends with its only run."""


def _gathering(model: Model, mesh: Mesh) -> Model:
    """Let a model bring its parameters together before it uses them."""
    if mesh.size == 1:
        return model

    def encode(params: Any, *args: Any, **options: Any) -> Any:
        return model.encode(sharding.gathered(mesh, params), *args, **options)

    def logits(params: Any, *args: Any, **options: Any) -> Any:
        return model.logits(sharding.gathered(mesh, params), *args, **options)

    return model._replace(encode=encode, logits=logits)


def placed_like(new: Any, old: Any) -> Any:
    """Put the arrays of a tree where those of another lie."""
    return jax.tree.map(lambda n, o: jax.device_put(n, o.sharding), new, old)


def batches(
    seed: int, step: int, count: int, size: int, num_rows: int, batch_size: int
) -> np.ndarray:
    """Return the row numbers of `count` steps from `step`, filled up to `size` with the first.

    Returns:
      [size, B] integer.
    """
    steps = [step + (i if i < count else 0) for i in range(size)]
    return np.stack([data.batch_indices(seed, n, num_rows, batch_size) for n in steps])


def fits(rows: np.ndarray, placement: str, mesh: Mesh) -> bool:
    """Decide where the rows go."""
    if placement != "auto":
        return placement == "device"
    if mesh.is_multi_process:
        return False
    stats = mesh.devices.flat[0].memory_stats() or {}
    limit = stats.get("bytes_limit", BYTES_FOR_ROWS / SHARE_FOR_ROWS) * SHARE_FOR_ROWS
    return rows.nbytes <= limit


def memory_bytes(compiled: Any) -> int:
    """Return what a compiled program holds while it runs; donated arguments count once."""
    sizes = compiled.memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )


class Validation:
    """Scores the validation rows, teacher forced, with the same noise each time.

    Attributes:
      chosen: numbers of the rows that are scored.
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
        self._cut, whole = sharding.along_data(mesh), sharding.replicated(mesh)
        placed = sharding.of_tree(mesh, params, config.run.param_sharding)
        self._step = jax.jit(
            make_eval_step(_gathering(model, mesh), config),
            in_shardings=(placed, whole, self._cut, self._cut),
            out_shardings=whole,
        )

    def __call__(self, state: TrainState, config: Config | None = None) -> dict[str, float]:
        """Return the means over the rows of `example_values`, KL in bits.

        Args:
          state: its parameters and numbers are used.
          config: of the run; it may differ in numbers and seed from the one compiled for.
        """
        sums: dict[str, np.ndarray] = {}
        seed, z_size = (config or self._config).train.seed, self._config.model.z_size
        # Drawn for all rows at once: batch size and devices do not change the noise of a row.
        eps = np.random.default_rng(seed).standard_normal((len(self.chosen), z_size), np.float32)
        for indices, mask in data.padded_batches(len(self.chosen), self._batch_size):
            tokens = sharding.place_rows(self._cut, self._rows, self.chosen[indices])
            batch = Batch(tokens, self._place(eps[indices]))
            found = self._step(state.params, state.hyper, batch, self._place(mask))
            sums = metrics.add_sums(sums, found)
        examples = float(sums.pop("examples"))
        figures = {name: float(value) / examples for name, value in sums.items()}
        figures["kl_bits"] = figures.pop("kl_nats") / math.log(2.0)
        return figures

    def _place(self, values: np.ndarray) -> jax.Array:
        """Place an array that is known as a whole."""
        return sharding.place(self._cut, values.shape, values.__getitem__)

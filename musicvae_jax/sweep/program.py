"""Compiled steps of several runs whose states are stacked on a leading axis, G.

The points of a sweep are distributed over the devices. Each device computes `side_by_side` points
at a time with `jax.vmap`, one such group after the other. On an accelerator that one run does not
fully use, many points take the time of one. On a CPU, batched products are not faster.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from musicvae_jax.config import Config
from musicvae_jax.devices.sharding import make_mesh, replicated
from musicvae_jax.models.registry import Model, build_model
from musicvae_jax.training import program
from musicvae_jax.training.early_stopping import Patience
from musicvae_jax.training.optimiser import Hyperparameters
from musicvae_jax.training.state import TrainState, state_shapes
from musicvae_jax.training.step import (
    Metrics,
    make_run_steps,
    make_train_step,
    take_from_chunk,
    take_from_device,
)

POINT_AXIS = "points"
# Largest share of a device's memory that a program may use.
SHARE_FOR_PROGRAM = 0.8
# Fields besides those of `Hyperparameters` that no compiled program depends on.
HOST_FIELDS = (
    "seed",
    "plateau_factor",
    "plateau_patience",
    "plateau_min_delta",
    "plateau_metric",
    "stop_patience",
    "stop_metric",
    "stop_min_delta",
    "stop_after_skipped",
)

RunSteps = Callable[..., tuple[TrainState, Metrics]]


def program_key(config: Config) -> tuple[Any, ...]:
    """Return the fields that must be equal for configurations to share a compiled program."""
    numbers = {field.name for field in dataclasses.fields(Hyperparameters)} | set(HOST_FIELDS)
    return tuple((k, v) for k, v in config.flat().items() if k not in numbers)


def general_config(configs: Sequence[Config]) -> Config:
    """Return a configuration whose program works for all points: the maximum of each field.

    A value of 0 removes a part of the program that points with larger values need.
    """
    names = [field.name for field in dataclasses.fields(Hyperparameters)]
    flat = [config.flat() for config in configs]
    return configs[0].replace(**{name: max(values[name] for values in flat) for name in names})


def make_sweep_steps(run_steps: RunSteps, side_by_side: int, own_batches: bool) -> RunSteps:
    """Build `(states, active, rows, chunk, count) -> (states, records)` of stacked points.

    Args:
      run_steps: steps of one point, see `make_run_steps`.
      side_by_side: points per `jax.vmap`; 1 computes them one after the other.
      own_batches: `chunk` has a leading axis of points.
    """

    def sweep_steps(
        states: TrainState,
        active: jax.Array,
        rows: jax.Array,
        chunk: jax.Array,
        count: jax.Array,
    ) -> tuple[TrainState, Metrics]:
        def point(x: Any) -> tuple[TrainState, Metrics]:
            state, is_active, own = x

            def advance(state: TrainState) -> tuple[TrainState, Metrics]:
                return run_steps(state, rows, own if own_batches else chunk, count)

            def keep(state: TrainState) -> tuple[TrainState, Metrics]:
                _, shapes = jax.eval_shape(advance, state)
                return state, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

            return jax.lax.cond(is_active, advance, keep, state)

        points = states, active, chunk if own_batches else active
        if side_by_side >= active.shape[0] > 1:
            return jax.vmap(point)(points)
        return jax.lax.map(point, points, batch_size=side_by_side if side_by_side > 1 else None)

    return sweep_steps


class SweepProgram:
    """The compiled steps of all points of a group.

    Attributes:
      size: largest number of steps per call.
      side_by_side: points that a device computes at once.
      on_device: whether the rows are on the devices.
      memory_bytes: memory of a call on each device.
    """

    def __init__(
        self,
        model: Model,
        configs: Sequence[Config],
        rows: np.ndarray,
        devices: Sequence[jax.Device],
        side_by_side: int,
    ) -> None:
        config = general_config(configs)
        self.size, self._configs, self._host_rows = config.run.steps_per_dispatch, configs, rows
        devices = list(devices)[: len(configs)]
        self._mesh = Mesh(np.asarray(devices), (POINT_AXIS,))
        self._each = -(-len(configs) // len(devices))  # points per device
        self._point_sharding = NamedSharding(self._mesh, PartitionSpec(POINT_AXIS))
        self._replicated = replicated(self._mesh)
        self._first_device = replicated(make_mesh(devices[:1]))
        self._active = np.arange(self._each * len(devices)) < len(configs)
        self.on_device = program.fits(rows, config.run.data_placement, self._mesh)
        self._rows = jax.device_put(
            np.asarray(rows if self.on_device else rows[:0]), self._replicated
        )
        self._seeds = [c.train.seed for c in configs]
        self._own_batches = len(set(self._seeds)) > 1
        take = take_from_device if self.on_device else take_from_chunk
        run_steps = make_run_steps(make_train_step(model, config), take)
        self._compile(run_steps, state_shapes(model, config), side_by_side)
        self._pick = jax.jit(lambda block, n: jax.tree.map(lambda leaf: leaf[n], block))

    def _compile(self, run_steps: RunSteps, shapes: TrainState, side_by_side: int) -> None:
        """Compile for `side_by_side` points at once; for 0, for as many as memory allows."""
        states = jax.tree.map(self._stacked_shape, shapes)
        arguments = (states, self._active, self._rows, self._chunk(0, 1), jnp.int32(1))
        spread, whole = PartitionSpec(POINT_AXIS), PartitionSpec()
        limit = memory_limit(self._mesh.devices.flat[0]) * SHARE_FOR_PROGRAM
        self.side_by_side = min(side_by_side or self._each, self._each)
        while True:
            steps = jax.shard_map(
                make_sweep_steps(run_steps, self.side_by_side, self._own_batches),
                mesh=self._mesh,
                in_specs=(spread, spread, whole, spread if self._own_batches else whole, whole),
                out_specs=(spread, spread),
                # This check rejects the constants that the recurrence starts from.
                check_vma=False,
            )
            self._compiled = jax.jit(steps, donate_argnums=0).lower(*arguments).compile()
            self.memory_bytes = program.memory_bytes(self._compiled)
            if side_by_side or self.side_by_side == 1 or self.memory_bytes <= limit:
                return
            self.side_by_side = -(-self.side_by_side // 2)

    def _stacked_shape(self, leaf: Any) -> jax.ShapeDtypeStruct:
        shape = (len(self._active), *leaf.shape)
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=self._point_sharding)

    def _chunk(self, first: int, count: int) -> jax.Array:
        """Return the batches of `count` steps: [C, B(, T...)], with [G, ...] if seeds differ."""
        rows, batch_size = len(self._host_rows), self._configs[0].train.batch_size

        def of(seed: int) -> np.ndarray:
            chunk = program.batches(seed, first, count, self.size, rows, batch_size)
            return chunk if self.on_device else self._host_rows[chunk]

        if not self._own_batches:
            return jax.device_put(of(self._seeds[0]), self._replicated)
        found = {seed: of(seed) for seed in set(self._seeds)}
        return jax.device_put(
            self._padded([found[seed] for seed in self._seeds]), self._point_sharding
        )

    def _padded(self, values: Sequence[Any]) -> np.ndarray:
        """Stack one array per point, padded with copies of the first."""
        missing = len(self._active) - len(values)
        return np.stack([*values, *[values[0]] * missing])

    def stack(self, states: Sequence[TrainState]) -> TrainState:
        """Stack the states of the points and distribute them over the devices."""
        return jax.tree.map(
            lambda *leaves: jax.device_put(self._padded(leaves), self._point_sharding),
            *[jax.device_get(state) for state in states],
        )

    def __call__(self, state: TrainState, step: int, count: int) -> tuple[TrainState, Metrics]:
        """Advance every point that is not frozen by `count` steps after step `step`."""
        active = jax.device_put(self._active, self._point_sharding)
        chunk = self._chunk(step, count)
        return self._compiled(state, active, self._rows, chunk, np.int32(count))

    def records(self, found: Metrics) -> list[dict[str, np.ndarray]]:
        """Wait for the metrics of a call and return those of each point, [C] each."""
        host: dict[str, np.ndarray] = jax.device_get(found)
        return [{k: v[n] for k, v in host.items()} for n in range(len(self._configs))]

    def run_state(self, state: TrainState, run: int) -> TrainState:
        """Return the state of one point, on the first device."""
        number, place = divmod(run, self._each)
        device = self._mesh.devices.flat[number]

        def block(leaf: jax.Array) -> jax.Array:
            return next(s.data for s in leaf.addressable_shards if s.device == device)

        return jax.device_put(self._pick(jax.tree.map(block, state), place), self._first_device)

    def with_patience(self, state: TrainState, waiting: Sequence[Patience]) -> TrainState:
        """Return the states with the patience that validations gave each point."""
        stacked = jax.tree.map(lambda *leaves: self._padded(leaves), *waiting)
        placed = program.placed_like(stacked, state.patience)
        return dataclasses.replace(state, patience=placed)

    def freeze(self, run: int) -> None:
        """Stop advancing a point."""
        self._active[run] = False


def memory_limit(device: jax.Device) -> float:
    """Return a device's memory in bytes; for a CPU, half of the machine's memory."""
    stats = device.memory_stats() or {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return float(stats.get("bytes_limit", machine / 2))


def most_points(config: Config, devices: Sequence[jax.Device]) -> int:
    """Return how many points fit into the memory of all devices together, at least 1."""
    shapes = state_shapes(build_model(config), config)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    # Arguments, results, and the same again for gradients.
    each = int(memory_limit(devices[0]) * SHARE_FOR_PROGRAM / (3 * size))
    return max(each, 1) * len(devices)

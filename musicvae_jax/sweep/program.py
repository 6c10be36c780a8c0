"""Compiled steps of several runs whose states are stacked on a leading axis, G.

The points are shared out to the devices; on each, `side_by_side` of them are one `jax.vmap`,
and these bundles come in turn. An accelerator that one run leaves idle does many at once in the
time of one; a CPU does not, its batched products take as long as the products one by one.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from musicvae_jax.config import Config
from musicvae_jax.devices import mesh as sharding
from musicvae_jax.models.registry import Model, build_model
from musicvae_jax.training import program
from musicvae_jax.training import step as training
from musicvae_jax.training.early_stopping import Patience
from musicvae_jax.training.optimiser import Hyperparameters
from musicvae_jax.training.step import TrainState

GRID_AXIS = "grid"
# A program may take this share of a device's memory.
SHARE_FOR_PROGRAM = 0.8
# Fields that no compiled program depends on, beside those of `Hyperparameters`.
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

RunSteps = Callable[..., tuple[TrainState, training.Metrics]]


def program_key(config: Config) -> tuple[Any, ...]:
    """Return what two configurations must share to be points of one program."""
    numbers = {field.name for field in dataclasses.fields(Hyperparameters)} | set(HOST_FIELDS)
    return tuple((k, v) for k, v in config.flat().items() if k not in numbers)


def general_config(configs: Sequence[Config]) -> Config:
    """Return the configuration whose program serves all: each number is the largest.

    A number of 0 leaves a part of the program out, so that one point with more needs it.
    """
    names = [field.name for field in dataclasses.fields(Hyperparameters)]
    flat = [config.flat() for config in configs]
    return configs[0].replace(**{name: max(values[name] for values in flat) for name in names})


def make_grid_steps(run_steps: RunSteps, side_by_side: int, own_batches: bool) -> RunSteps:
    """Build `(states, active, rows, chunk, count) -> (states, records)` of stacked points.

    Args:
      run_steps: of `training.make_run_steps`, of one point.
      side_by_side: points that one `jax.vmap` computes at once; 1 takes them in turn.
      own_batches: `chunk` has a leading axis of points.
    """

    def grid_steps(
        states: TrainState, active: jax.Array, rows: jax.Array, chunk: jax.Array, count: jax.Array
    ) -> tuple[TrainState, training.Metrics]:
        def point(x: Any) -> tuple[TrainState, training.Metrics]:
            state, is_active, own = x

            def go(state: TrainState) -> tuple[TrainState, training.Metrics]:
                return run_steps(state, rows, own if own_batches else chunk, count)

            def stay(state: TrainState) -> tuple[TrainState, training.Metrics]:
                _, shapes = jax.eval_shape(go, state)
                return state, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

            return jax.lax.cond(is_active, go, stay, state)

        points = states, active, chunk if own_batches else active
        if side_by_side >= active.shape[0] > 1:
            return jax.vmap(point)(points)
        return jax.lax.map(point, points, batch_size=side_by_side if side_by_side > 1 else None)

    return grid_steps


class GridProgram:
    """The compiled steps of all points of a group.

    Attributes:
      size: most steps of one call.
      side_by_side: points that a device computes at once.
      on_device: the rows lie on the devices.
      memory_bytes: what a call holds on each device.
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
        self._mesh = Mesh(np.asarray(devices), (GRID_AXIS,))
        self._each = -(-len(configs) // len(devices))  # points per device
        self._cut = NamedSharding(self._mesh, PartitionSpec(GRID_AXIS))
        self._whole = sharding.replicated(self._mesh)
        self._first = sharding.replicated(sharding.make_mesh(devices[:1]))
        self._active = np.arange(self._each * len(devices)) < len(configs)
        self.on_device = program.fits(rows, config.run.data_placement, self._mesh)
        self._rows = jax.device_put(np.asarray(rows if self.on_device else rows[:0]), self._whole)
        self._seeds = [c.train.seed for c in configs]
        self._own_batches = len(set(self._seeds)) > 1
        take = training.take_from_device if self.on_device else training.take_from_chunk
        run_steps = training.make_run_steps(training.make_train_step(model, config), take)
        init = functools.partial(training.init_state, model, config)
        self._compile(run_steps, jax.eval_shape(init), side_by_side)
        self._pick = jax.jit(lambda block, n: jax.tree.map(lambda leaf: leaf[n], block))

    def _compile(self, run_steps: RunSteps, shapes: TrainState, side_by_side: int) -> None:
        """Compile for as many points at once as asked for, or as memory allows."""
        states = jax.tree.map(self._stacked_shape, shapes)
        arguments = (states, self._active, self._rows, self._chunk(0, 1), jnp.int32(1))
        spread, whole = PartitionSpec(GRID_AXIS), PartitionSpec()
        limit = memory_limit(self._mesh.devices.flat[0]) * SHARE_FOR_PROGRAM
        self.side_by_side = min(side_by_side or self._each, self._each)
        while True:
            steps = jax.shard_map(
                make_grid_steps(run_steps, self.side_by_side, self._own_batches),
                mesh=self._mesh,
                in_specs=(spread, spread, whole, spread if self._own_batches else whole, whole),
                out_specs=(spread, spread),
                # The loop of a recurrence starts from constants, which this check refuses.
                check_vma=False,
            )
            self._compiled = jax.jit(steps, donate_argnums=0).lower(*arguments).compile()
            self.memory_bytes = program.memory_bytes(self._compiled)
            if side_by_side or self.side_by_side == 1 or self.memory_bytes <= limit:
                return
            self.side_by_side = -(-self.side_by_side // 2)

    def _stacked_shape(self, leaf: Any) -> jax.ShapeDtypeStruct:
        shape = (len(self._active), *leaf.shape)
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=self._cut)

    def _chunk(self, step: int, count: int) -> jax.Array:
        """Return the batches of some steps: [C, B(, T...)], with [G, ...] where seeds differ."""
        rows, batch_size = len(self._host_rows), self._configs[0].train.batch_size

        def of(seed: int) -> np.ndarray:
            chunk = program.batches(seed, step, count, self.size, rows, batch_size)
            return chunk if self.on_device else self._host_rows[chunk]

        if not self._own_batches:
            return jax.device_put(of(self._seeds[0]), self._whole)
        found = {seed: of(seed) for seed in set(self._seeds)}
        return jax.device_put(self._padded([found[seed] for seed in self._seeds]), self._cut)

    def _padded(self, values: Sequence[Any]) -> np.ndarray:
        """Stack one array per point, filled up with the first."""
        missing = len(self._active) - len(values)
        return np.stack([*values, *[values[0]] * missing])

    def stack(self, states: Sequence[TrainState]) -> TrainState:
        """Put the states of the points together, spread over the devices."""
        return jax.tree.map(
            lambda *leaves: jax.device_put(self._padded(leaves), self._cut),
            *[jax.device_get(state) for state in states],
        )

    def __call__(
        self, state: TrainState, step: int, count: int
    ) -> tuple[TrainState, training.Metrics]:
        """Make `count` steps from `step` of every point that is not frozen."""
        active = jax.device_put(self._active, self._cut)
        chunk = self._chunk(step, count)
        return self._compiled(state, active, self._rows, chunk, np.int32(count))

    def records(self, found: training.Metrics) -> list[dict[str, np.ndarray]]:
        """Wait for the metrics of a call and return those of each point, [C] each."""
        host: dict[str, np.ndarray] = jax.device_get(found)
        return [{k: v[n] for k, v in host.items()} for n in range(len(self._configs))]

    def run_state(self, state: TrainState, run: int) -> TrainState:
        """Return the state of one point, on the first device."""
        number, place = divmod(run, self._each)
        device = self._mesh.devices.flat[number]

        def block(leaf: jax.Array) -> jax.Array:
            return next(s.data for s in leaf.addressable_shards if s.device == device)

        return jax.device_put(self._pick(jax.tree.map(block, state), place), self._first)

    def with_patience(self, state: TrainState, waiting: Sequence[Patience]) -> TrainState:
        """Put what validations said of each point into the states."""
        stacked = jax.tree.map(lambda *leaves: self._padded(leaves), *waiting)
        placed = program.placed_like(stacked, state.patience)
        return dataclasses.replace(state, patience=placed)

    def freeze(self, run: int) -> None:
        """Make no more steps of a point."""
        self._active[run] = False


def memory_limit(device: jax.Device) -> float:
    """Return a device's memory in bytes; of a CPU half the machine's."""
    stats = device.memory_stats() or {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return float(stats.get("bytes_limit", machine / 2))


def most_points(config: Config, devices: Sequence[jax.Device]) -> int:
    """Return how many points' states fit the devices' memory at once, 1 or more."""
    shapes = jax.eval_shape(functools.partial(training.init_state, build_model(config), config))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    # Once as arguments and once as results, and as much again for one point's gradients.
    each = int(memory_limit(devices[0]) * SHARE_FOR_PROGRAM / (3 * size))
    return max(each, 1) * len(devices)

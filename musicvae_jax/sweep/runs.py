"""Many runs in one program: states stacked on a leading axis, the G points of a sweep.

The hyper-parameters of a sweep are arrays of the state (rates, weights, limits), so one compiled
program advances every point, on the same batches. The training loop is that of a single run, and
each point has a run folder like a single run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices.sharding import make_mesh, replicated
from musicvae_jax.models.registry import Model, build_model
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.sweep.program import SweepProgram, most_points, program_key
from musicvae_jax.training import early_stopping, loop
from musicvae_jax.training.callbacks import Observer
from musicvae_jax.training.program import Validation
from musicvae_jax.training.samples import make_sampler
from musicvae_jax.training.state import (
    TrainState,
    count_parameters,
    init_state,
    split_seed,
    state_from_params,
    state_shapes,
)

Tree = Any

# A second program is compiled and timed if that takes at most this share of the time left.
TRIAL_SHARE = 0.1


class Point(NamedTuple):
    """One point: its configuration, run folder and observer."""

    config: Config
    run_dir: str
    observer: Observer


class Timing(NamedTuple):
    """Times of a group's programs.

    Attributes:
      seconds: seconds per step of all points, by the number of points a device computes at once.
      chosen: the number that is used.
      compile_seconds: to compile the first program and start it; 0 where it was not measured.
      steps: number of steps that are left.
    """

    seconds: dict[int, float]
    chosen: int
    compile_seconds: float = 0.0
    steps: int = 0

    @property
    def seconds_left(self) -> float:
        """Estimated time of the steps that are left."""
        return self.seconds[self.chosen] * self.steps


def faster_program(
    programs: Sequence[SweepProgram], states: Sequence[TrainState], steps: int = 2
) -> tuple[SweepProgram, Timing]:
    """Time a few steps of each program on copies of the states and choose the fastest.

    Returns:
      the program and the measured times.
    """
    seconds: dict[int, float] = {}
    for program in programs:
        state = program.stack(states)
        for _ in range(2):  # the first is a warm-up
            start = time.perf_counter()
            state, _ = jax.block_until_ready(program(state, 0, min(steps, program.size)))
            seconds[program.side_by_side] = (time.perf_counter() - start) / steps
    best = min(programs, key=lambda program: seconds[program.side_by_side])
    return best, Timing(seconds, best.side_by_side)


def fit_points(
    points: Sequence[Point],
    store: data.Store,
    *,
    side_by_side: int | None = 1,
    should_stop: Callable[[], bool] = lambda: False,
    devices: Sequence[jax.Device] | None = None,
    timed: Callable[[Timing], None] = lambda timing: None,
) -> list[loop.Outcome]:
    """Train the points of one program, each from its latest checkpoint, to `train_steps`.

    If the points are at different steps, for example after a kill between two saves, those behind
    catch up first.

    Args:
      points: points with equal `program_key`.
      store: the training data.
      side_by_side: points that a device computes at once: 1 for one after the other, 0 for as
        many as its memory holds; None times the first, also the second if compiling it takes
        little of the time left (`TRIAL_SHARE`), and chooses the faster.
      should_stop: called between dispatches; if it returns true, the states are saved and
        training stops.
      devices: devices to distribute the points over, all by default.
      timed: called with the measured times, if `side_by_side` is None.

    Raises:
      ValueError: the points do not share a program.
      InputError: the store has too few rows, or the LSTM backend is cuDNN, which cannot be
        vectorised.
    """
    configs = [point.config for point in points]
    if len({program_key(config) for config in configs}) > 1:
        raise ValueError("points: they differ in more than numbers, group them by program_key")
    if configs[0].run.lstm_backend == "cudnn":
        raise InputError(
            "lstm_backend: cudnn cannot train several points in one program; use "
            "--executor=local or --lstm_backend=xla"
        )
    for config in configs:
        loop.check_rows(config, store)
    devices = list(devices or jax.devices())
    model = build_model(configs[0])
    with contextlib.ExitStack() as stack:
        opened = [Checkpoints(p.run_dir, create=True) for p in points]
        for checkpoints in opened:
            stack.callback(checkpoints.close)
        runs = [loop.Run(p.config, p.observer, c) for p, c in zip(points, opened, strict=True)]
        states = _first_states(model, runs, devices)
        group = _Group(model, runs, store, devices, side_by_side, timed)
        return group.train(states, should_stop)


def _first_states(
    model: Model, runs: Sequence[loop.Run], devices: Sequence[jax.Device]
) -> list[TrainState]:
    """Restore each point's latest checkpoint, or draw its parameters, once per seed."""
    mesh = make_mesh(devices[:1])
    draw = jax.jit(model.init, out_shardings=replicated(mesh))
    drawn: dict[int, Tree] = {}
    states = []
    for config, _, checkpoints in runs:
        state = loop.restored(state_shapes(model, config), config, mesh, checkpoints)
        if state is None:
            seed = config.train.seed
            init_key, run_key = split_seed(seed)
            if seed not in drawn:
                drawn[seed] = draw(init_key)
            state = state_from_params(drawn[seed], config, run_key)
        states.append(jax.device_get(state))
    return states


@dataclasses.dataclass
class _Group:
    """Points that one program trains."""

    model: Model
    runs: Sequence[loop.Run]
    store: data.Store
    devices: Sequence[jax.Device]
    side_by_side: int | None
    timed: Callable[[Timing], None]

    def train(
        self, states: list[TrainState], should_stop: Callable[[], bool]
    ) -> list[loop.Outcome]:
        """Train until every point has ended; points that are behind catch up first."""
        last = self.runs[0].config.run.train_steps
        outcomes = []
        for run, state in zip(self.runs, states, strict=True):
            exhausted = early_stopping.is_exhausted(state.patience, run.config)
            left_over = int(state.step) < last and not exhausted
            outcomes.append(loop.Outcome(state, int(state.step), left_over, exhausted))
        while True:
            left = [n for n, found in enumerate(outcomes) if found.stopped]
            if not left or should_stop():
                return outcomes
            steps = sorted({outcomes[n].step for n in left})
            group = [n for n in left if outcomes[n].step == steps[0]]
            until = steps[1] if len(steps) > 1 else last
            group = group[: most_points(self.runs[0].config, self.devices)]
            found = self._round(group, [outcomes[n].state for n in group], until, should_stop)
            for n, outcome in zip(group, found, strict=True):
                outcomes[n] = outcome

    def _round(
        self,
        group: Sequence[int],
        states: Sequence[TrainState],
        until: int,
        should_stop: Callable[[], bool],
    ) -> list[loop.Outcome]:
        """Train points that are at the same step until step `until`."""
        runs, config = [self.runs[n] for n in group], self.runs[group[0]].config
        program = self._program([run.config for run in runs], states, until)
        mesh = make_mesh(self.devices[:1])
        rows = self.store.splits["validation"]
        validation = Validation(self.model, config, rows, mesh, states[0].params)
        sampler = make_sampler(self.model, config, self.store, mesh, states[0].params)
        for run, state in zip(runs, states, strict=True):
            summary = loop.summary(run.config, self.store, mesh, state, program, validation)
            run.observer.started(summary)
        step = int(states[0].step)
        together = loop.Loop(runs, program, validation, should_stop, sampler, until=until)
        trained = together.train(program.stack(states), step)
        return [found._replace(state=jax.device_get(found.state)) for found in trained]

    def _program(
        self, configs: Sequence[Config], states: Sequence[TrainState], until: int
    ) -> SweepProgram:
        """Compile the program, or two of them and choose the faster."""
        rows = self.store.splits["train"]

        def compiled(side_by_side: int) -> SweepProgram:
            return SweepProgram(self.model, configs, rows, self.devices, side_by_side)

        if self.side_by_side is not None:
            return compiled(self.side_by_side)
        start = time.perf_counter()
        program = compiled(1)
        _, timing = faster_program([program], states)
        compile_seconds, steps = time.perf_counter() - start, until - int(states[0].step)
        timing = timing._replace(compile_seconds=compile_seconds, steps=steps)
        is_worth = compile_seconds <= TRIAL_SHARE * timing.seconds_left
        if len(configs) > len(self.devices) and is_worth:
            program, both = faster_program([program, compiled(0)], states)
            timing = both._replace(compile_seconds=compile_seconds, steps=steps)
        self.timed(timing)
        return program


class Cost(NamedTuple):
    """Cost of training a configuration on one device.

    Attributes:
      parameters: number of parameters of the model.
      memory_bytes: estimated memory: arguments, results and temporaries.
      seconds_per_step: measured time of a step.
    """

    parameters: int
    memory_bytes: int
    seconds_per_step: float


def measured_cost(config: Config, store: data.Store, steps: int = 3) -> Cost:
    """Compile a configuration's steps and time a few of them on one device."""
    model = build_model(config)
    state = init_state(model, config)
    parameters = count_parameters(state.params)
    program = SweepProgram(model, [config], store.splits["train"], jax.devices()[:1], 1)
    _, timing = faster_program([program], [state], steps)
    return Cost(parameters, program.memory_bytes, timing.seconds[1])

"""The training loop: dispatch, record, validate, save, stop, resume.

It prints nothing and writes only checkpoints. An `Observer` receives everything else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices import processes, sharding
from musicvae_jax.models.registry import build_model, compute_dtype
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.training import early_stopping
from musicvae_jax.training.callbacks import Observer, Summary
from musicvae_jax.training.early_stopping import Patience
from musicvae_jax.training.meter import Window
from musicvae_jax.training.optimiser import hyperparameters
from musicvae_jax.training.program import Dispatch, Validation, placed_like
from musicvae_jax.training.samples import Sampler, make_sampler
from musicvae_jax.training.standstill import Standstill
from musicvae_jax.training.state import TrainState, count_parameters, drawn_state, state_shapes
from musicvae_jax.training.step import Metrics

# Target length of a dispatch, so that the loop responds quickly to signals.
SECONDS_PER_DISPATCH = 2.0


class Outcome(NamedTuple):
    """How training ended.

    Attributes:
      state: final training state.
      step: number of optimiser steps done.
      stopped: whether it was stopped on request with steps left.
      exhausted: whether early stopping ended it.
      cause: why the run was ended if its steps no longer changed any parameter, or "".
    """

    state: TrainState
    step: int
    stopped: bool
    exhausted: bool = False
    cause: str = ""


def check_fits(
    config: Config, store: data.Store, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Check that a run can start on these devices (all by default) and return their mesh.

    Raises:
      InputError: there are too few rows for a batch, the batch cannot be split evenly over the
        devices, a schedule or early stopping needs validation rows and there are none, or the
        LSTM backend is not available.
    """
    mesh = sharding.make_mesh(devices, config.run.model_parallel)
    part = config.train.batch_size // config.train.accumulation
    sharding.check_divides(mesh, part, "batch_size / accumulation")
    check_rows(config, store)
    build_model(config)
    return mesh


def fit(
    config: Config,
    store: data.Store,
    run_dir: str,
    observer: Observer,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    devices: Sequence[jax.Device] | None = None,
    params: Any = None,
) -> Outcome:
    """Train up to `train_steps`, from the latest checkpoint if there is one.

    Args:
      config: configuration of the run.
      store: training and validation data.
      run_dir: run folder, which holds the checkpoints.
      observer: callbacks.
      should_stop: called between dispatches; if it returns true, the state is saved and training
        stops.
      devices: devices to train on, all by default.
      params: initial parameters of a new run instead of random ones, with the same shapes.

    Raises:
      InputError: see `check_fits`.
    """
    mesh = check_fits(config, store, devices)
    model = build_model(config)
    shapes = state_shapes(model, config)
    with Checkpoints(run_dir, create=True) as checkpoints:
        state = restored(shapes, config, mesh, checkpoints)
        if state is None:
            shardings = sharding.of_tree(mesh, shapes, config.run.param_sharding)
            state = drawn_state(model, config, shardings)
            if params is not None:
                placed = placed_like(params, state.params)
                state = dataclasses.replace(state, params=placed)
        program = Dispatch(model, config, store.splits["train"], mesh, state)
        validation = Validation(model, config, store.splits["validation"], mesh, state.params)
        sampler = make_sampler(model, config, store, mesh, state.params)
        observer.started(summary(config, store, mesh, state, program, validation))
        run = Run(config, observer, checkpoints)
        # A stop request to one process stops all of them at the same step.
        stop = processes.agreed(mesh, should_stop)
        return Loop([run], program, validation, stop, sampler).train(state, int(state.step))[0]


def check_rows(config: Config, store: data.Store) -> None:
    """Check that a store has enough rows for a run.

    Raises:
      InputError: there are too few rows for a batch, or a schedule or early stopping needs
        validation rows and there are none.
    """
    data.check_enough_rows(len(store.splits["train"]), config.train.batch_size)
    if early_stopping.needs_validation(config) and not len(store.splits["validation"]):
        raise InputError(
            "learning_rate_schedule=plateau and stop_patience need validation rows, and "
            f"{store.path} has none"
        )


def restored(
    shapes: TrainState, config: Config, mesh: Mesh, checkpoints: Checkpoints
) -> TrainState | None:
    """Restore the last good checkpoint, if there is one."""
    step = checkpoints.last_good_step()
    if step is None:
        return None
    shardings = sharding.of_tree(mesh, shapes, config.run.param_sharding)
    shapes = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        shardings,
    )
    # Fields that did not exist when the state was saved take their initial values.
    saved = checkpoints.state_names(step)
    wanted = {name: value for name, value in _without_params(shapes).items() if name in saved}
    wanted["hyper"] = {k: v for k, v in vars(shapes.hyper).items() if k in saved["hyper"]}
    params, rest = checkpoints.restore(step, shapes.params, wanted)
    first = hyperparameters(config.train), early_stopping.first_patience()
    hyper, waiting = jax.device_put(first, sharding.replicated(mesh))
    rest["hyper"] = dataclasses.replace(hyper, **rest["hyper"])
    return TrainState(params=params, **({"patience": waiting} | rest))


def _without_params(state: TrainState) -> dict[str, Any]:
    """Return all fields of a state except the parameters, by name."""
    return {name: value for name, value in vars(state).items() if name != "params"}


def summary(
    config: Config,
    store: data.Store,
    mesh: Mesh,
    state: TrainState,
    program: Program,
    validation: Validation,
) -> Summary:
    """Collect the facts to report before the first step."""
    device = mesh.devices.flat[0]
    rows = len(store.splits["train"])
    return Summary(
        devices=f"{mesh.size} x {device.device_kind}",
        dtype=jnp.dtype(compute_dtype(config.train.dtype)).name,
        parameters=count_parameters(state.params),
        train_rows=rows,
        validation_rows=len(validation.chosen),
        steps_per_epoch=rows / config.train.batch_size,
        memory_bytes=program.memory_bytes,
        rows_on="device" if program.on_device else "host",
        first_step=int(state.step),
    )


class Program(Protocol):
    """The compiled training steps of one run, or of several in parallel.

    Attributes:
      size: largest number of steps per call.
      on_device: whether the rows are on the devices.
      memory_bytes: memory of a call on each device.
    """

    size: int
    on_device: bool
    memory_bytes: int

    def __call__(self, state: TrainState, step: int, count: int) -> tuple[TrainState, Metrics]:
        """Run `count` steps after step `step`; `state` is donated."""

    def records(self, found: Metrics) -> list[dict[str, np.ndarray]]:
        """Wait for the metrics of a call and return them per run, [C] each."""

    def run_state(self, state: TrainState, run: int) -> TrainState:
        """Return the state of one run."""

    def with_patience(self, state: TrainState, waiting: Sequence[Patience]) -> TrainState:
        """Return the state with the updated patience of each run."""

    def freeze(self, run: int) -> None:
        """Stop advancing a run."""


class Run(NamedTuple):
    """A run that is trained, alone or in parallel with others that share its program."""

    config: Config
    observer: Observer
    checkpoints: Checkpoints


class Loop:
    """Trains one run, or several in parallel that validate, record and save at the same steps.

    Args:
      runs: runs with equal `RunConfig`.
      program: their compiled steps.
      validation: scores one run.
      should_stop: called between dispatches.
      sampler: generates the samples of one run, if `sample_every` asks for any.
      until: step to stop at; None for `train_steps`.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        program: Program,
        validation: Validation,
        should_stop: Callable[[], bool],
        sampler: Sampler | None = None,
        *,
        until: int | None = None,
    ) -> None:
        self._runs, self._program, self._validation = runs, program, validation
        self._should_stop, self._sampler = should_stop, sampler
        self._limits = limits = runs[0].config.run
        self._periods = [limits.log_every, limits.eval_every, limits.save_every]
        self._periods += [limits.sample_every] * (sampler is not None)
        self._until = limits.train_steps if until is None else until
        self._active, self._exhausted = [True] * len(runs), [False] * len(runs)
        self._causes = [""] * len(runs)

    def train(self, state: TrainState, step: int) -> list[Outcome]:
        """Run the steps after `step`."""
        window = Window(self._runs[0].config.train.batch_size)
        running: tuple[Metrics, int] | None = None
        states = [self._program.run_state(state, n) for n in range(len(self._runs))]
        self._end_exhausted(jax.device_get([run_state.patience for run_state in states]))
        self._standstills = [
            Standstill(run.config, int(run_state.zeroed), int(run_state.skipped))
            for run, run_state in zip(self._runs, states, strict=True)
        ]
        while step < self._until and any(self._active) and not self._should_stop():
            count = self._count(step, window.seconds_per_step)
            state, record = self._program(state, step, count)
            step += count
            # The next dispatch runs while the metrics of the previous one are fetched.
            if running:
                self._add(window, *running, step - count)
                if window.is_heartbeat_due():
                    self._report(step - count, window, False)
                self._end_still()
            running = record, count
            if self._is_event(step):
                self._add(window, record, count, step)
                running = None
                state = self._handle(state, step, window)
        jax.block_until_ready(running)
        for n in self._still_active():
            self._save(n, self._program.run_state(state, n), step, math.inf)
        return [self._outcome(n, state, step) for n in range(len(self._runs))]

    def _outcome(self, n: int, state: TrainState, step: int) -> Outcome:
        """Return how a run ended; a run that ended before the others keeps its own last step."""
        run_state = self._program.run_state(state, n)
        stopped = self._active[n] and step < self._limits.train_steps
        return Outcome(run_state, int(run_state.step), stopped, self._exhausted[n], self._causes[n])

    def _add(self, window: Window, record: Metrics, count: int, step: int) -> None:
        """Add the metrics of the `count` steps up to `step`, and detect runs at a standstill."""
        records = self._program.records(record)
        window.add(records, count)
        for n in self._still_active():
            self._standstills[n].add({name: v[:count] for name, v in records[n].items()})
            self._causes[n] = self._standstills[n].cause(step)

    def _still_active(self) -> list[int]:
        return [n for n, active in enumerate(self._active) if active]

    def _end(self, n: int) -> None:
        """Stop advancing a run."""
        self._active[n] = False
        self._program.freeze(n)

    def _end_still(self) -> None:
        """End the runs at a standstill, without a checkpoint: nothing new was learned."""
        for n in self._still_active():
            if self._causes[n]:
                self._end(n)

    def _end_exhausted(self, waiting: Sequence[Patience]) -> None:
        """End the runs whose early stopping has run out of patience."""
        for n in self._still_active():
            if early_stopping.is_exhausted(waiting[n], self._runs[n].config):
                self._exhausted[n] = True
                self._end(n)

    def _count(self, step: int, seconds_per_step: float) -> int:
        """Return the number of steps of the next dispatch, at most up to the next event."""
        left = [self._until - step, *(period - step % period for period in self._periods)]
        in_time = int(min(SECONDS_PER_DISPATCH / max(seconds_per_step, 1e-9), self._program.size))
        if jax.process_count() > 1:
            # All processes must run the same steps, but their clocks differ.
            in_time = self._program.size
        return min(*left, max(in_time, 1))

    def _is_event(self, step: int) -> bool:
        """Return whether a record, validation, checkpoint or sample is due after `step`."""
        return step == self._limits.train_steps or any(step % p == 0 for p in self._periods)

    def _report(self, step: int, window: Window, is_record: bool) -> None:
        """Report progress to every observer; a heartbeat goes to the first one only."""
        for n in self._still_active() if is_record else self._still_active()[:1]:
            progress = window.progress(n, step, self._limits.train_steps, is_record)
            self._runs[n].observer.trained(progress)

    def _handle(self, state: TrainState, step: int, window: Window) -> TrainState:
        """Record, sample, validate and save as due; return the updated state."""
        limits, is_last = self._limits, step == self._limits.train_steps
        if is_last or step % limits.log_every == 0:
            self._report(step, window, True)
            window.restart()
        self._end_still()
        if self._sampler and (is_last or step % limits.sample_every == 0):
            self._sample(state, step, self._sampler)
        validates = len(self._validation.chosen) > 0 and (is_last or step % limits.eval_every == 0)
        if validates or is_last or step % limits.save_every == 0:
            state = self._validate_and_save(state, step, validates)
        window.resume_clock()
        return state

    def _sample(self, state: TrainState, step: int, sampler: Sampler) -> None:
        """Pass samples of each run to its observer."""
        for n in self._still_active():
            params = self._program.run_state(state, n).params
            self._runs[n].observer.sampled(step, sampler(params))

    def _validate_and_save(self, state: TrainState, step: int, validates: bool) -> TrainState:
        """Validate each run if due, and save it if due or if it is the best so far."""
        limits, waiting = self._limits, list[Patience]()
        # An extra validation at the last step does not count: a longer run would not have it.
        is_due = validates and step % limits.eval_every == 0
        for n, (config, observer, checkpoints) in enumerate(self._runs):
            run_state, loss = self._program.run_state(state, n), math.inf
            if self._active[n] and validates:
                figures = self._validation(run_state, config)
                loss = figures["loss"]
                if is_due:
                    run_state = _with_patience(run_state, config, figures)
                observer.validated(
                    step, figures | early_stopping.waited(run_state.patience, config)
                )
            # Do not save parameters whose last step was not finite: resuming there would fail.
            saves = step % limits.save_every == 0 and self._standstills[n].last_is_finite
            waiting.append(jax.device_get(run_state.patience))
            saves |= step == limits.train_steps or early_stopping.is_exhausted(waiting[n], config)
            if self._active[n] and (saves or loss < checkpoints.best_loss()):
                self._save(n, run_state, step, loss)
        if is_due:
            state = self._program.with_patience(state, waiting)
            self._end_exhausted(waiting)
        return state

    def _save(self, n: int, state: TrainState, step: int, loss: float) -> None:
        """Write a checkpoint unless this step already has one."""
        config, observer, checkpoints = self._runs[n]
        if checkpoints.latest_step() == step:
            return
        checkpoints.save(step, state.params, _without_params(state), config, loss)
        observer.saved(step)


def _with_patience(state: TrainState, config: Config, figures: dict[str, float]) -> TrainState:
    """Return the state after a validation, with the new scalars placed like the old ones."""
    after = early_stopping.validated(jax.device_get(state.patience), config, figures)
    return dataclasses.replace(state, patience=placed_like(after, state.patience))

"""The one training loop: dispatch, record, validate, save, stop, resume.

It prints nothing and knows no file but the checkpoints: an `Observer` is told what happens.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from musicvae_jax import data, patience, sharding, training
from musicvae_jax.checkpoints import Checkpoints
from musicvae_jax.config import Config, InputError
from musicvae_jax.dispatch import Dispatch, Validation
from musicvae_jax.models.registry import Model, build_model, compute_dtype
from musicvae_jax.optimiser import hyperparameters
from musicvae_jax.training import TrainState

# A call to the device is cut to about this long, so that a signal is answered soon.
SECONDS_PER_DISPATCH = 2.0
# How often an observer hears of steps that are not due for a record, in seconds.
HEARTBEAT_SECONDS = 10.0


class Summary(NamedTuple):
    """What is known before the first step.

    Attributes:
      devices: number and kind.
      dtype: type of the matrix products.
      parameters: numbers in the model.
      train_rows: rows to train on.
      validation_rows: rows scored at each validation.
      steps_per_epoch: steps that see each row once on average.
      memory_bytes: estimate for each device: arguments, results and temporaries.
      rows_on: "device" or "host", where the training rows are.
      first_step: 0, or the step a resumed run goes on from.
    """

    devices: str
    dtype: str
    parameters: int
    train_rows: int
    validation_rows: int
    steps_per_epoch: float
    memory_bytes: int
    rows_on: str
    first_step: int


class Progress(NamedTuple):
    """Where training stands.

    Attributes:
      step: optimiser steps done.
      figures: means of the steps since the last record.
      examples_per_second: since the last record.
      seconds_left: until the last step, at that rate.
      is_record: a multiple of `log_every` or the last step: worth keeping.
    """

    step: int
    figures: dict[str, float]
    examples_per_second: float
    seconds_left: float
    is_record: bool


class Observer(Protocol):
    """Is told what happens during training."""

    def started(self, summary: Summary) -> None:
        """The first step is about to be made."""

    def trained(self, progress: Progress) -> None:
        """Some steps were made."""

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """The validation rows were scored."""

    def saved(self, step: int) -> None:
        """A checkpoint was written."""


class Outcome(NamedTuple):
    """How training ended.

    Attributes:
      state: the last one.
      step: its optimiser steps.
      stopped: it was asked to stop, and more steps are left.
      exhausted: early stopping ended it.
    """

    state: TrainState
    step: int
    stopped: bool
    exhausted: bool = False


def fit(
    config: Config,
    store: data.Store,
    run_dir: str,
    observer: Observer,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    devices: Sequence[jax.Device] | None = None,
) -> Outcome:
    """Train from the run folder's latest checkpoint, or from the start, to `train_steps`.

    Args:
      config: what to train.
      store: what to train on.
      run_dir: where the checkpoints are.
      observer: is told what happens.
      should_stop: asked between dispatches; when it says yes, the state is saved first.
      devices: all by default.

    Raises:
      InputError: too few rows for a batch, a batch that the devices cannot share, or no
        validation rows for a schedule or early stopping that needs them.
    """
    mesh = sharding.make_mesh(devices, config.run.model_parallel)
    part = config.train.batch_size // config.train.accumulation
    data.check_enough_rows(len(store.splits["train"]), config.train.batch_size)
    sharding.check_divides(mesh, part, "batch_size / accumulation")
    if patience.needs_validation(config) and not len(store.splits["validation"]):
        raise InputError(
            "learning_rate_schedule=plateau and stop_patience need validation rows, and "
            f"{store.path} has none"
        )
    model = build_model(config)
    with Checkpoints(run_dir, create=True) as checkpoints:
        state = _first_state(model, config, mesh, checkpoints)
        dispatch = Dispatch(model, config, store.splits["train"], mesh, state)
        validation = Validation(model, config, store.splits["validation"], mesh, state.params)
        observer.started(_summary(config, store, mesh, state, dispatch, validation))
        run = _Run(config, observer, checkpoints, dispatch, validation, should_stop)
        return run.train(state)


def _first_state(model: Model, config: Config, mesh: Mesh, checkpoints: Checkpoints) -> TrainState:
    """Restore the latest checkpoint, or draw the parameters."""
    init = functools.partial(training.init_state, model, config)
    shapes = jax.eval_shape(init)
    placed = sharding.of_tree(mesh, shapes, config.run.param_sharding)
    step = checkpoints.latest_step()
    if step is None:
        return jax.jit(init, out_shardings=placed)()
    shapes = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        placed,
    )
    # A state that was saved before some fields existed takes their first values.
    saved = checkpoints.state_names(step)
    wanted = {name: value for name, value in _without_params(shapes).items() if name in saved}
    wanted["hyper"] = {k: v for k, v in vars(shapes.hyper).items() if k in saved["hyper"]}
    params, rest = checkpoints.restore(step, shapes.params, wanted)
    first = hyperparameters(config.train), patience.first_patience()
    hyper, waiting = jax.device_put(first, sharding.replicated(mesh))
    rest["hyper"] = dataclasses.replace(hyper, **rest["hyper"])
    return TrainState(params=params, **({"patience": waiting} | rest))


def _without_params(state: TrainState) -> dict[str, Any]:
    """Return the other fields of a state by name."""
    return {name: value for name, value in vars(state).items() if name != "params"}


def _summary(
    config: Config,
    store: data.Store,
    mesh: Mesh,
    state: TrainState,
    dispatch: Dispatch,
    validation: Validation,
) -> Summary:
    """Collect what is known before the first step."""
    device = mesh.devices.flat[0]
    rows = len(store.splits["train"])
    return Summary(
        devices=f"{mesh.size} x {device.device_kind}",
        dtype=jnp.dtype(compute_dtype(config.train.dtype)).name,
        parameters=training.count_parameters(state.params),
        train_rows=rows,
        validation_rows=len(validation.chosen),
        steps_per_epoch=rows / config.train.batch_size,
        memory_bytes=dispatch.memory_bytes,
        rows_on="device" if dispatch.on_device else "host",
        first_step=int(state.step),
    )


class _Window:
    """Means and speed of the steps since the last record."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._reported = time.monotonic()
        self.seconds_per_step = math.inf
        self.restart()

    def restart(self) -> None:
        """Forget the steps so far."""
        self._records: list[dict[str, np.ndarray]] = []
        self._steps, self._seconds = 0, 0.0
        self.resume_clock()

    def resume_clock(self) -> None:
        """Leave the time since the last step out of the speed."""
        self._since = time.monotonic()

    def add(self, record: training.Metrics, count: int) -> None:
        """Wait for a dispatch and add its steps."""
        found = jax.device_get(record)
        self._records.append({name: values[:count] for name, values in found.items()})
        now = time.monotonic()
        self.seconds_per_step = (now - self._since) / count
        self._seconds += now - self._since
        self._steps, self._since = self._steps + count, now

    def is_heartbeat_due(self) -> bool:
        """Return whether the last progress was long ago."""
        return time.monotonic() - self._reported > HEARTBEAT_SECONDS

    def progress(self, step: int, total: int, is_record: bool) -> Progress:
        """Average what there is; a figure with no finite value is NaN."""
        self._reported = time.monotonic()
        figures: dict[str, float] = {}
        for name in self._records[0]:
            values = np.concatenate([record[name] for record in self._records])
            finite = values[np.isfinite(values)]
            figures[name] = float(finite.mean(dtype=np.float64)) if len(finite) else math.nan
            if name in training.LAST_VALUES:
                figures[name] = float(values[-1])
        rate = self._steps / max(self._seconds, 1e-9)
        return Progress(step, figures, rate * self._batch_size, (total - step) / rate, is_record)


class _Run(NamedTuple):
    """The parts of a run that do not change."""

    config: Config
    observer: Observer
    checkpoints: Checkpoints
    dispatch: Dispatch
    validation: Validation
    should_stop: Callable[[], bool]

    def train(self, state: TrainState) -> Outcome:
        """Make the steps that are left."""
        run, step = self.config.run, int(state.step)
        window = _Window(self.config.train.batch_size)
        running: tuple[training.Metrics, int] | None = None
        exhausted = patience.is_exhausted(state.patience, self.config)
        while step < run.train_steps and not exhausted and not self.should_stop():
            count = self._count(step, window.seconds_per_step)
            state, record = self.dispatch(state, step, count)
            step += count
            # The next dispatch is under way while the last one's figures are fetched.
            if running:
                window.add(*running)
                if window.is_heartbeat_due():
                    self.observer.trained(window.progress(step - count, run.train_steps, False))
            running = record, count
            if self._is_event(step):
                window.add(*running)
                running = None
                state = self._handle(state, step, window)
                exhausted = patience.is_exhausted(state.patience, self.config)
        if running:
            window.add(*running)
        self._save(state, step, math.inf)
        return Outcome(state, step, step < run.train_steps and not exhausted, exhausted)

    def _count(self, step: int, seconds_per_step: float) -> int:
        """Return how many steps to make at once: up to the next event, not too long."""
        run = self.config.run
        periods = [run.log_every, run.eval_every, run.save_every]
        left = [run.train_steps - step, *(period - step % period for period in periods)]
        in_time = int(min(SECONDS_PER_DISPATCH / max(seconds_per_step, 1e-9), self.dispatch.size))
        return min(*left, max(in_time, 1))

    def _is_event(self, step: int) -> bool:
        """Return whether something is due after `step`."""
        run = self.config.run
        periods = [run.log_every, run.eval_every, run.save_every]
        return step == run.train_steps or any(step % period == 0 for period in periods)

    def _handle(self, state: TrainState, step: int, window: _Window) -> TrainState:
        """Record, validate and save, whatever is due; return the state with what that changed."""
        run, is_last = self.config.run, step == self.config.run.train_steps
        if is_last or step % run.log_every == 0:
            self.observer.trained(window.progress(step, run.train_steps, True))
            window.restart()
        loss = math.inf
        validates = len(self.validation.chosen) > 0 and (is_last or step % run.eval_every == 0)
        if validates:
            figures = self.validation(state)
            loss = figures["loss"]
            if step % run.eval_every == 0:
                # The last step's is left out: a longer run would not make it.
                state = _with_patience(state, self.config, figures)
            self.observer.validated(step, figures | _waited(state, self.config))
        if validates or is_last or step % run.save_every == 0:
            self._save(state, step, loss)
        window.resume_clock()
        return state

    def _save(self, state: TrainState, step: int, loss: float) -> None:
        """Write a checkpoint, unless this step has one."""
        if self.checkpoints.latest_step() == step:
            return
        self.checkpoints.save(step, state.params, _without_params(state), self.config, loss)
        self.observer.saved(step)


def _with_patience(state: TrainState, config: Config, figures: dict[str, float]) -> TrainState:
    """Return the state after a validation, the new scalars where the old ones lie."""
    after = patience.validated(jax.device_get(state.patience), config, figures)
    placed = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), after, state.patience)
    return dataclasses.replace(state, patience=placed)


def _waited(state: TrainState, config: Config) -> dict[str, float]:
    """Return how long the run has been waiting for a better figure, where that matters."""
    waited = {}
    if config.train.learning_rate_schedule == "plateau":
        waited["plateau_waited"] = float(state.patience.plateau_waited)
    if config.run.stop_patience:
        waited["stop_waited"] = float(state.patience.stop_waited)
    return waited

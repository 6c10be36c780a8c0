"""Train a MusicVAE, or another --architecture, on a folder of tokens.

Example:
  python -m experiments.train --preset=demo --data_dir=data/folk --run_dir=runs/demo

An interrupted run (Ctrl-C included) resumes when you run the same command again. With
--sample_every=STEPS it writes what it generates to RUN/samples while it trains. With
--multihost several machines train together (experiments/launch).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import jax
from absl import flags

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.command_line import shell_line
from experiments.cli import (
    compile_cache,
    config_flags,
    cpu_devices,
    lstm_backend,
    multihost,
    run_record,
    training_time,
)
from experiments.cli.multihost import MachineOptions
from experiments.cli.progress import Recorder, Silent
from experiments.cli.signals import StopSignal
from experiments.encoding import prior
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices import processes
from musicvae_jax.interop import safetensors_file
from musicvae_jax.latent import fitted_prior
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import (
    VAE,
    architectures_of,
    architectures_with,
    build_model,
)
from musicvae_jax.pretrained import packaged
from musicvae_jax.storage import checkpoints, full_disk, run_folder
from musicvae_jax.tasks import get_task
from musicvae_jax.training import fine_tuning, loop
from musicvae_jax.training.state import init_state

# Exit code of a run that was ended because its steps changed no parameter.
STOOD_STILL = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Where the data is and where the run goes."""

    data_dir: str = option(help="Token store written by data_pipeline.prepare.")
    run_dir: str = option(help="Run folder: a new one, or one to resume.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(FolderOptions, MachineOptions):
    """How a single run starts; its configuration has flags of its own."""

    init_from: str | None = option(
        None,
        help="Start from the parameters of this run folder (its best checkpoint), checkpoint "
        "(RUN/checkpoints/STEP), safetensors file or model of this package (which also give the "
        "sizes), as far as they fit; see also --freeze.",
    )
    note: str = option("", help="A sentence about the run, kept in its record for compare.")
    fit_prior: bool = option(
        True,
        help="Fit a prior to the encoded training rows of a VAE at the end, see "
        "experiments.fit_prior.",
    )
    cpu_devices: str = option(cpu_devices.AUTO, help=cpu_devices.HELP)


class Start(NamedTuple):
    """Initial parameters that are not random.

    Attributes:
      place: run folder, checkpoint, safetensors file or model of the package.
      step: how many steps they were trained.
      params: parameters of the new model, on the host.
      report: which were taken over.
    """

    place: str
    step: int
    params: Any
    report: fine_tuning.Report


def read_start(config: Config, run_dir: str, init_from: str | None) -> Start | None:
    """Read the initial parameters of a new run, None for random ones; write nothing.

    Raises:
      InputError: there is no such checkpoint, nothing of it fits, or the run began elsewhere.
    """
    folder = pathlib.Path(run_dir)
    path = folder / run_folder.INIT_FROM
    known = json.loads(path.read_text())["init_from"] if path.is_file() else None
    has_steps = (folder / checkpoints.FOLDER).is_dir() and any(
        place.name.isdecimal() for place in (folder / checkpoints.FOLDER).iterdir()
    )
    place = init_from
    if init_from and not _is_packaged(init_from):
        place = str(pathlib.Path(init_from).resolve())
    if (has_steps or known) and place != known:
        began = f"started from {known}" if known else "started from random parameters"
        raise InputError(
            f"init_from: {folder.resolve()} {began}; give that again, or another run_dir"
        )
    if place is None or has_steps:
        return None
    file = _file_of(place)
    if file:
        saved = safetensors_file.read(file)
        old, step = saved.params, saved.step
    else:
        _, old, step = fine_tuning.read_start(place)
    drawn = init_state(build_model(config), config).params
    params, report = fine_tuning.take_over(drawn, old)
    # On the host: each process puts them on its own devices.
    return Start(place, step, jax.device_get(params), report)


def record_start(folder: pathlib.Path, start: Start) -> None:
    """Print where the initial parameters come from, and write it to the run folder."""
    print(f"parameters of {start.place}, step {start.step:,}:", *start.report.lines(), sep="\n")
    about = {"init_from": start.place, "step": start.step} | start.report._asdict()
    run_folder.write_text(folder / run_folder.INIT_FROM, json.dumps(about, indent=1) + "\n")


def _is_packaged(init_from: str) -> bool:
    """Tell whether this names a model of the package, not a folder."""
    return init_from in packaged.names() and not pathlib.Path(init_from).exists()


def _file_of(init_from: str) -> pathlib.Path | None:
    """Return the safetensors file that is meant, None for a run folder or checkpoint."""
    if _is_packaged(init_from):
        return packaged.path_of(init_from)
    return pathlib.Path(init_from) if init_from.endswith(".safetensors") else None


def checked_inputs(
    data_dir: str, values: flags.FlagValues, init_from: str | None = None
) -> tuple[data.Store, Config]:
    """Open the data, build the configuration from its flags and check that they fit.

    Architecture and sizes that no flag gives are those of the safetensors file or model of the
    package that `init_from` names, if it does.

    Raises:
      InputError: a flag is out of range, or the data is no store, of another task, too small for
        a batch, or changed since it was written.
    """
    store = data.open_store(data_dir)
    task = config_flags.task_name(values) or store.task.name
    config = config_flags.config_for(task, values)
    file = _file_of(init_from) if init_from else None
    if file:
        sizes = vars(safetensors_file.read(file).config.model)
        own = config_flags.given(values)
        config = config.replace(**{name: v for name, v in sizes.items() if name not in own})
    if task != store.task.name:
        held = store.task.name
        advice = f"give --task={held}"
        if values.preset:
            advice = f"choose a preset from `musicvae presets --task={held}`"
        raise InputError(
            f"task: {store.path} holds rows of {held}, not of {task}; {advice}, or prepare data "
            f"with --task={task}"
        )
    data.check_enough_rows(len(store.splits["train"]), config.train.batch_size)
    data.check_content(store)
    return store, config


def check_used(values: flags.FlagValues, task: str, architectures: Collection[str]) -> None:
    """Check that every given setting has an effect, or is the default.

    Args:
      values: parsed flags of the configuration.
      task: whose defaults count.
      architectures: those to be trained; it is enough that one of them uses a setting.

    Raises:
      InputError: a setting has no effect in any of them.
    """
    defaults = get_task(task).config.flat()
    for name, value in config_flags.given(values).items():
        users = [found for found in architectures_with(name) if found in architectures_of(task)]
        if value != defaults[name] and not set(users) & set(architectures):
            raise InputError(
                f"{name}: has no effect with architecture={' or '.join(architectures)}; leave it "
                f"out{', or choose ' if users else ''}{' or '.join(users)}"
            )


def open_folder(run_dir: str, config: Config, store: data.Store) -> pathlib.Path:
    """Open the run folder in the first process, then check that all processes agree."""
    if processes.is_first():
        run_folder.open_run_folder(run_dir, config, store)
    processes.wait_for_all("run folder")
    processes.check_same(config.to_json() + store.fingerprint, "flags or data")
    return pathlib.Path(run_dir).resolve()


def train(options: Options, values: flags.FlagValues) -> None:
    """Train a run; the first process reports.

    Args:
      options: folders, start and machines.
      values: parsed flags of the configuration.

    Raises:
      InputError: the input does not fit, or the disk is full.
    """
    compile_cache.switch_on()
    store, config = checked_inputs(options.data_dir, values, options.init_from)
    check_used(values, config.task, [config.model.architecture])
    if not options.multihost:
        cpu_devices.divide(options.cpu_devices, config, pathlib.Path(options.run_dir))
    config = lstm_backend.resolved(config, pathlib.Path(options.run_dir))
    loop.check_fits(config, store)  # with the devices, before anything is written
    start = read_start(config, options.run_dir, options.init_from)
    folder = open_folder(options.run_dir, config, store)
    if processes.is_first():
        if start:
            record_start(folder, start)
        about = {"init_from": options.init_from, "note": options.note}
        about |= {lstm_backend.KEY: config.run.lstm_backend}
        run_record.write_start(folder, store, **about)
        training_time.warn_if_long(config)
    recorder = Recorder(folder, config.run.train_steps) if processes.is_first() else Silent()
    with _full_disk_reported(folder), StopSignal() as signal:
        outcome = loop.fit(
            config,
            store,
            str(folder),
            recorder,
            should_stop=lambda: signal.received is not None,
            params=start.params if start else None,
        )
        recorder.close()
    has_prior = options.fit_prior and isinstance(build_model(config), VAE)
    if has_prior and not (options.multihost or outcome.stopped or outcome.cause):
        _fit_prior(folder, store)
    if processes.is_first():
        _say_how_it_ended(outcome, config, options.run_dir, store)
    if outcome.cause:
        sys.exit(STOOD_STILL)
    if outcome.stopped:
        sys.exit(signal.exit_code)


@contextlib.contextmanager
def _full_disk_reported(folder: pathlib.Path) -> Iterator[None]:
    """Turn the errors of a full disk into one line."""
    try:
        yield
    except full_disk.DiskFullError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        # At once: each thread that still writes would print the same error.
        os._exit(2)
    except OSError as error:
        if not full_disk.is_disk_full(error):
            raise
        raise InputError(
            f"run_dir: no space left in {folder}, its checkpoints are kept; free some, then run "
            "the same command again"
        ) from error


def _fit_prior(folder: pathlib.Path, store: data.Store) -> None:
    """Fit a prior to the run's best checkpoint, unless that was done; say what was fitted."""
    with checkpoints.Checkpoints(folder) as saved:
        step = saved.find("best")
    try:
        known = fitted_prior.load(folder)
    except InputError:  # damaged: made again
        known = None
    if known is not None and known.step == step:
        return
    trained, params, step = checkpoints.restore_params(folder, step)
    try:
        print(prior.describe(prior.fit_run(folder, MusicVAE(trained, params), step, store)))
    except InputError as error:
        print(f"not fitted: {error}", flush=True)


def _say_how_it_ended(
    outcome: loop.Outcome, config: Config, run_dir: str, store: data.Store
) -> None:
    """Print the last lines, with the command that comes next."""
    if outcome.cause:
        text = f"error: ended after step {outcome.step:,}: {outcome.cause}"
        print(text, file=sys.stderr, flush=True)
        return
    if outcome.stopped:
        print(f"stopped after step {outcome.step:,}; the same command resumes:")
        print(f"  {shell_line('experiments.train', sys.argv[1:])}", flush=True)
        return
    early = (
        f"; stopped early, {config.run.stop_metric} did not improve" if outcome.exhausted else ""
    )
    print(f"done: {outcome.step:,} steps{early}; next:")
    # A store of one or two songs has no test rows.
    split = next(name for name in ("test", "validation", "train") if len(store.splits[name]))
    arguments = [f"--run_dir={run_dir}", f"--split={split}"]
    print(f"  {shell_line('experiments.evaluate', arguments)}", flush=True)


def main(options: Options) -> None:
    """Check the options, then train."""
    with multihost.joined(options):
        train(options, flags.FLAGS)


if __name__ == "__main__":
    config_flags.define()
    cli.run(main, Options)

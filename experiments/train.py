"""Train a MusicVAE on a folder of tokens.

Example:
  python -m experiments.train --preset=demo --data_dir=data/folk --run_dir=runs/demo

An interrupted run (Ctrl-C included) resumes when you run the same command again. With
--multihost several machines train together (experiments/launch).
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from data_pipeline import cli
from data_pipeline.command_line import shell_line
from experiments.cli import (
    compile_cache,
    config_flags,
    cpu_devices,
    machines,
    run_record,
    training_time,
)
from experiments.cli.progress import Recorder, Silent
from experiments.cli.signals import StopSignal
from experiments.encoding import prior
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices import processes
from musicvae_jax.latent import fitted_prior
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage import checkpoints, full_disk, run_folder
from musicvae_jax.training import fine_tuning, loop
from musicvae_jax.training import step as training

# Written into the folder of a run that began with another's parameters.
INIT_FROM = "init_from.json"
# Exit code of a run that was ended because its steps changed no parameter.
STOOD_STILL = 3


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define this entry point's flags."""
    text = "Token store written by data_pipeline.prepare."
    flags.DEFINE_string("data_dir", None, text, flag_values=values)
    text = "Run folder: a new one, or one to resume."
    flags.DEFINE_string("run_dir", None, text, flag_values=values)
    config_flags.define(values)


def define_start_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags of a single run: initial parameters and machines."""
    text = (
        "Start from the parameters of this run folder (its best checkpoint) or checkpoint "
        "(RUN/checkpoints/STEP), as far as they fit; see also --freeze."
    )
    flags.DEFINE_string("init_from", None, text, flag_values=values)
    text = "Fit a prior to the encoded training rows at the end, see experiments.fit_prior."
    flags.DEFINE_boolean("fit_prior", True, text, flag_values=values)
    machines.define_flags(values)
    cpu_devices.define_flags(values)


def first_params(config: Config, folder: pathlib.Path, init_from: str | None) -> Any:
    """Return what a new run begins with, None for parameters drawn at random; say what it is.

    Raises:
      InputError: there is no such checkpoint, nothing of it fits, or the run began elsewhere.
    """
    path = folder / INIT_FROM
    known = json.loads(path.read_text())["init_from"] if path.is_file() else None
    has_steps = (folder / checkpoints.FOLDER).is_dir() and any(
        place.name.isdecimal() for place in (folder / checkpoints.FOLDER).iterdir()
    )
    place = str(pathlib.Path(init_from).resolve()) if init_from else None
    if (has_steps or known) and place != known:
        began = f"began with {known}" if known else "began with parameters drawn at random"
        raise InputError(f"init_from: {folder} {began}; give that again, or another run_dir")
    if place is None or has_steps:
        return None
    _, old, step = fine_tuning.read_start(place)
    drawn = training.init_state(build_model(config), config).params
    params, report = fine_tuning.take_over(drawn, old)
    if processes.is_first():
        print(f"parameters of {place}, step {step:,}:", *report.lines(), sep="\n", flush=True)
        about = {"init_from": place, "step": step} | report._asdict()
        run_folder.write_text(path, json.dumps(about, indent=1) + "\n")
    # Of no device: each process puts them on its own.
    return jax.device_get(params)


def checked_inputs(values: flags.FlagValues) -> tuple[data.Store, Config]:
    """Open the data, build the configuration and check that they fit.

    Raises:
      InputError: a flag is missing or out of range, or the data is no store, of another task,
        too small for a batch, or changed since it was written.
    """
    if not values.data_dir or not values.run_dir:
        raise InputError("--data_dir and --run_dir are needed")
    store = data.open_store(values.data_dir)
    task = config_flags.task_name(values) or store.task.name
    config = config_flags.config_for(task, values)
    if task != store.task.name:
        raise InputError(
            f"task: {store.path} holds rows of {store.task.name}, not of {task}; give "
            f"--task={store.task.name}, or prepare data with --task={task}"
        )
    data.check_enough_rows(len(store.splits["train"]), config.train.batch_size)
    data.check_content(store)
    return store, config


def open_folder(run_dir: str, config: Config, store: data.Store) -> pathlib.Path:
    """Open the run folder: the first process for all, which then check that they agree."""
    if processes.is_first():
        run_folder.open_run_folder(run_dir, config, store)
    processes.wait_for_all("run folder")
    processes.check_same(config.to_json() + store.fingerprint, "flags or data")
    return pathlib.Path(run_dir).resolve()


def train(values: flags.FlagValues) -> None:
    """Train; the first process says how it goes.

    Raises:
      InputError: what is given does not fit, or the disk is full.
    """
    compile_cache.switch_on()
    store, config = checked_inputs(values)
    if not values.multihost:
        cpu_devices.divide(values.cpu_devices, config, pathlib.Path(values.run_dir))
    loop.check_fits(config, store)  # with the devices, before anything is written
    folder = open_folder(values.run_dir, config, store)
    params = first_params(config, folder, values.init_from)
    if processes.is_first():
        run_record.write_start(folder, store, init_from=values.init_from)
        training_time.warn_if_long(config)
    recorder = Recorder(folder, config.run.train_steps) if processes.is_first() else Silent()
    try:
        with StopSignal() as signal:
            outcome = loop.fit(
                config,
                store,
                str(folder),
                recorder,
                should_stop=lambda: signal.received is not None,
                params=params,
            )
        recorder.close()
    except full_disk.DiskFullError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        # At once: threads that still write would say the same, each for itself.
        os._exit(2)
    except OSError as error:
        if not full_disk.is_disk_full(error):
            raise
        raise InputError(
            f"run_dir: no space left in {folder}, its checkpoints are kept; free some, then run "
            "the same command again"
        ) from error
    if values.fit_prior and not (values.multihost or outcome.stopped or outcome.cause):
        _fit_prior(folder, store)
    if processes.is_first():
        _say_how_it_ended(outcome, config, values.run_dir, store)
    if outcome.cause:
        sys.exit(STOOD_STILL)
    if outcome.stopped:
        sys.exit(signal.exit_code)


def _fit_prior(folder: pathlib.Path, store: data.Store) -> None:
    """Fit a prior to the run's best checkpoint, unless that was done; say what was fitted."""
    trained, params, step = checkpoints.restore_params(folder, "best")
    known = fitted_prior.load(folder)
    if known is not None and known.step == step:
        return
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
    early = f"; stopped early, {config.run.stop_metric} got no better" if outcome.exhausted else ""
    print(f"done: {outcome.step:,} steps{early}; next:")
    # A store of one or two songs has no test rows.
    split = next(name for name in ("test", "validation", "train") if len(store.splits[name]))
    arguments = [f"--run_dir={run_dir}", f"--split={split}"]
    print(f"  {shell_line('experiments.evaluate', arguments)}", flush=True)


def main(argv: Sequence[str]) -> None:
    """Check what is given, then train."""
    del argv
    with machines.joined(flags.FLAGS):
        train(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    define_start_flags()
    cli.run(main)

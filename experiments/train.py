r"""Train a MusicVAE on a folder of tokens.

Example:
  python -m experiments.train --flagfile=experiments/flagfiles/demo.flags \
    --data_dir=data/folk --run_dir=runs/demo

The same command resumes a run that was stopped, with Ctrl-C, by SIGTERM or otherwise.
"""

from __future__ import annotations

import json
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from data_pipeline import command
from experiments import compile_cache, config_flags, run_record
from experiments.progress import Recorder
from experiments.stopping import StopSignal
from musicvae_jax import checkpoints, data, fine_tuning, loop, run_folder, training
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import build_model

# Written into the folder of a run that began with another's parameters.
INIT_FROM = "init_from.json"


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define this entry point's flags."""
    text = "Folder that data_pipeline.prepare wrote."
    flags.DEFINE_string("data_dir", None, text, flag_values=values)
    text = "Folder of this run: new, or one to resume."
    flags.DEFINE_string("run_dir", None, text, flag_values=values)
    config_flags.define(values)


def define_start_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags of a run that begins with another's parameters."""
    text = (
        "Begin with the parameters of this run folder (its best checkpoint) or checkpoint "
        "(RUN/checkpoints/STEP), as far as they fit; see also --freeze."
    )
    flags.DEFINE_string("init_from", None, text, flag_values=values)


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
    print(f"parameters of {place}, step {step:,}:", *report.lines(), sep="\n", flush=True)
    about = {"init_from": place, "step": step} | report._asdict()
    run_folder.write_text(path, json.dumps(about, indent=1) + "\n")
    return params


def checked_inputs(values: flags.FlagValues) -> tuple[data.Store, Config]:
    """Open the data, build the configuration and check that they fit.

    Raises:
      InputError: a flag is missing or out of range, or the data is no store, of another task,
        too small for a batch, or changed since it was written.
    """
    if not values.data_dir or not values.run_dir:
        raise InputError("--data_dir and --run_dir are needed")
    store = data.open_store(values.data_dir)
    task = values.task or store.task.name
    config = config_flags.config_for(task, values)
    if task != store.task.name:
        raise InputError(
            f"task: {store.path} holds rows of {store.task.name}, not of {task}; give "
            f"--task={store.task.name}, or prepare data with --task={task}"
        )
    data.check_enough_rows(len(store.splits["train"]), config.train.batch_size)
    data.check_content(store)
    return store, config


def main(argv: Sequence[str]) -> None:
    """Check what is given, then train."""
    del argv
    compile_cache.switch_on()
    store, config = checked_inputs(flags.FLAGS)
    folder = run_folder.open_run_folder(flags.FLAGS.run_dir, config, store)
    params = first_params(config, folder, flags.FLAGS.init_from)
    run_record.write_start(folder, store, init_from=flags.FLAGS.init_from)
    recorder = Recorder(folder, config.run.train_steps)
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
    if outcome.stopped:
        print(f"stopped after step {outcome.step:,}; the same command resumes:")
        print(f"  python -m experiments.train {shlex.join(sys.argv[1:])}", flush=True)
        sys.exit(signal.exit_code)
    early = f"; stopped early, {config.run.stop_metric} got no better" if outcome.exhausted else ""
    print(f"done: {outcome.step:,} steps{early}; next:")
    print(f"  python -m experiments.evaluate --run_dir={flags.FLAGS.run_dir}", flush=True)


if __name__ == "__main__":
    define_flags()
    define_start_flags()
    command.run(main)

r"""Train a MusicVAE on a folder of tokens.

  python -m experiments.train --flagfile=experiments/flagfiles/demo.flags \
    --data_dir=data/folk --run_dir=runs/demo

The same command resumes a run that was stopped, with Ctrl-C, by SIGTERM or otherwise.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from absl import flags

from data_pipeline import command
from experiments import config_flags
from experiments.progress import Recorder
from experiments.stopping import StopSignal
from musicvae_jax import data, loop, run_folder
from musicvae_jax.config import Config, InputError

DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder that data_pipeline.prepare wrote.")
RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of this run: new, or one to resume.")
CONFIG_FIELDS = config_flags.define()


def main(argv: Sequence[str]) -> None:
    """Check what is given, then train."""
    del argv
    if not DATA_DIR.value or not RUN_DIR.value:
        raise InputError("--data_dir and --run_dir are needed")
    store = data.open_store(DATA_DIR.value)
    config = checked_config(store)
    folder = run_folder.open_run_folder(RUN_DIR.value, config, store)
    recorder = Recorder(folder, config.run.train_steps)
    with StopSignal() as signal:
        outcome = loop.fit(
            config, store, str(folder), recorder, should_stop=lambda: signal.received is not None
        )
    recorder.close()
    if outcome.stopped:
        print(f"stopped after step {outcome.step:,}; the same command resumes:")
        print(f"  python -m experiments.train {shlex.join(sys.argv[1:])}", flush=True)
        sys.exit(signal.exit_code)
    print(f"done: {outcome.step:,} steps; next:")
    print(f"  python -m experiments.evaluate --run_dir={RUN_DIR.value}", flush=True)


def checked_config(store: data.Store) -> Config:
    """Build the configuration from the flags and check that the data fits it.

    Raises:
      InputError: the data is of another task, too small for a batch, or changed.
    """
    task = flags.FLAGS.task or store.task.name
    config = config_flags.config_for(task)
    if task != store.task.name:
        raise InputError(
            f"task: {store.path} holds rows of {store.task.name}, not of {task}; give "
            f"--task={store.task.name}, or prepare data with --task={task}"
        )
    data.check_enough_rows(len(store.splits["train"]), config.train.batch_size)
    data.check_content(store)
    return config


if __name__ == "__main__":
    command.run(main)

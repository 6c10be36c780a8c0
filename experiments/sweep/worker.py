"""Train one point of a sweep in this process, from the run folder the sweep has opened.

python -m experiments.sweep.worker --run_dir=SWEEP/points/POINT
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.cli import compile_cache
from experiments.cli.signals import StopSignal
from experiments.sweep.axes import Point
from experiments.sweep.points import PointRecorder, PointRun, write_end
from musicvae_jax import data
from musicvae_jax.storage import run_folder
from musicvae_jax.training import loop


def train_folder(run_dir: str, should_stop: Callable[[], bool] = lambda: False) -> str:
    """Train from the folder's latest checkpoint and record how it ended.

    Workers of a cluster call this too; folder and data must be on a shared file system.

    Returns:
      The folder's name.
    """
    folder = pathlib.Path(run_dir)
    config, known = run_folder.read_config(folder), run_folder.read_data(folder)
    recorder = PointRecorder(PointRun(Point(folder.name, {}, config), folder), None)
    store = data.open_store(known["path"])
    outcome = loop.fit(config, store, str(folder), recorder, should_stop=should_stop)
    recorder.close()
    write_end(folder, config, outcome)
    return folder.name


@dataclasses.dataclass(frozen=True)
class Options:
    """Which point to train."""

    run_dir: str = option(help="Folder of the run, with its config.json and data.json.")
    core: int = option(-1, help="Processor core to stay on; -1 for any.")


def main(options: Options) -> None:
    """Train the point."""
    if options.core >= 0:
        os.sched_setaffinity(0, {options.core})
    compile_cache.switch_on()
    with StopSignal() as signal:
        train_folder(options.run_dir, lambda: signal.received is not None)
    if signal.received is not None:
        sys.exit(signal.exit_code)


if __name__ == "__main__":
    cli.run(main, Options)

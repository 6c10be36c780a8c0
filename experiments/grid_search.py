r"""Train a hyper-parameter sweep, score its points and compare them.

Example:
  python -m experiments.grid_search --preset=demo --data_dir=data/folk \
    --run_dir=sweeps/demo --grid=beta=0.05,0.2,1 --grid=free_bits=0,16,48

An axis is a configuration field with its values: --grid=NAME=v1,v2; layer sizes are joined with
"+": --grid=encoder_sizes=128,256+256. Points that differ only in numbers (beta, free_bits,
learning_rate, seed, ...) are trained together by one program; others form groups that run one after
the other. Each point has a run folder in RUN_DIR/points for evaluate, generate and train. The same
command resumes an interrupted sweep and skips finished points; you may add values.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import sys
from collections.abc import Sequence

import jax
from absl import flags

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.command_line import shell_line
from data_pipeline.conversion import cluster
from experiments import train
from experiments.cli import compile_cache, config_flags, run_record
from experiments.cli.progress import duration
from experiments.cli.run_options import check_ranges
from experiments.cli.signals import StopSignal
from experiments.sweep import executors, report
from experiments.sweep.axes import Axis, Point, make_points, parse_axes, shown
from experiments.sweep.measures import Scoring, measures_of
from experiments.sweep.points import (
    STOOD_STILL,
    PointRun,
    ended,
    groups_of,
    open_folders,
    score,
)
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.sweep import runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(train.FolderOptions, executors.Options):
    """What to sweep; the configuration has flags of its own."""

    grid: tuple[str, ...] = option((), help="An axis, NAME=v1,v2; once per axis.")
    dry_run: bool = option(False, help="Print the points and their cost, then exit.")
    score_split: str = option("validation", help="Split that points are scored on.")
    score_examples: int = option(1024, help="Rows to score, evenly spaced in the split; 0: all.")
    score_draws: int = option(3, help="Samples per row.")

    def __post_init__(self) -> None:
        """Check every field that needs no data."""
        cli.check_choices(self)
        check_ranges(
            self,
            side_by_side=(0, math.inf),
            workers=(1, math.inf),
            score_examples=(0, math.inf),
            score_draws=(2, math.inf),
        )
        if self.executor == "ray":
            cluster.check_installed()

    @property
    def scoring(self) -> Scoring:
        """How points are scored."""
        return Scoring(self.score_split, self.score_examples, self.score_draws)


def checked_sweep(
    options: Options, values: flags.FlagValues
) -> tuple[data.Store, list[Axis], list[Point]]:
    """Check the axes, the points and the data before anything is written.

    Raises:
      InputError: an axis or a point is wrong, or the data does not fit.
    """
    axes = parse_axes(options.grid)
    store, base = train.checked_inputs(options.data_dir, values)
    split = options.score_split
    if split not in data.SPLITS or not len(store.splits[split]):
        raise InputError(f"score_split: {store.path} has no rows of {split!r}")
    points = make_points(base, axes)
    used = dict.fromkeys(point.config.model.architecture for point in points)
    train.check_used(values, base.task, list(used))
    for point in points:
        data.check_enough_rows(len(store.splits["train"]), point.config.train.batch_size)
    return store, axes, points


def spread_over_cores(num_points: int) -> None:
    """Let JAX treat each core of a CPU as a device, so that points are trained in parallel.

    Must be called before JAX is used; has no effect on accelerators.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = len(os.sched_getaffinity(0))
        jax.config.update("jax_num_cpu_devices", min(cores, num_points))


def show_cost(points: Sequence[Point], store: data.Store) -> None:
    """Print the points by group, with the cost of each on one device of this machine."""
    groups = groups_of(PointRun(point, pathlib.Path()) for point in points)
    total = 0.0
    for number, group in enumerate(groups, start=1):
        config = group[0].config
        cost = runs.measured_cost(config, store)
        seconds = cost.seconds_per_step * config.run.train_steps
        total += seconds * len(group)
        print(
            f"group {number}: {len(group)} points in one program; each {cost.parameters:,} "
            f"parameters, {cost.memory_bytes / 2**20:,.0f} MiB, {config.run.train_steps:,} steps "
            f"of {cost.seconds_per_step:.3f} s = {duration(seconds)}"
        )
        for task in group:
            print(f"  {task.point.name}")
    print(
        f"{len(points)} points, {duration(total)} in all, one after the other; nothing was trained"
    )


def main(argv: Sequence[str]) -> None:
    """Check, train, score and compare."""
    del argv
    compile_cache.switch_on()
    options = cli.options_from_flags(Options)
    store, axes, points = checked_sweep(options, flags.FLAGS)
    if options.dry_run:
        show_cost(points, store)
        return
    if options.executor in ("auto", "vmap"):
        spread_over_cores(len(points))
    folder = pathlib.Path(options.run_dir).resolve()
    tasks = open_folders(folder, points, store)
    for task in tasks:
        if ended(task) is None:
            run_record.write_start(task.folder, store)
    command = shell_line("experiments.grid_search", sys.argv[1:])
    with StopSignal() as signal:

        def should_stop() -> bool:
            return signal.received is not None

        executors.train(tasks, store, options, should_stop, _say)
        if should_stop():
            _say(f"stopped; the same command resumes:\n  {command}")
            sys.exit(signal.exit_code)
    compare(options, store, axes, tasks, command)


def compare(
    options: Options,
    store: data.Store,
    axes: Sequence[Axis],
    tasks: Sequence[PointRun],
    command: str,
) -> None:
    """Score the trained points, write the results and print their table.

    Raises:
      SystemExit: no point is left to compare, each was ended as its steps changed no parameter.
    """
    rows = report.results(tasks, score(tasks, store, options.scoring, _say))
    about = {
        "command": command,
        "data": options.data_dir,
        "fingerprint": store.fingerprint,
        "axes": {axis.name: [shown(value) for value in axis.values] for axis in axes},
    } | options.scoring._asdict()
    page = report.report(rows, axes, tasks, about)
    report.write(pathlib.Path(options.run_dir), rows, about, page)
    _say(report.table(rows, options.scoring, measures_of(tasks[0].config)))
    _say(f"written: results.csv, results.json and report.html in {options.run_dir}")
    if all(row["end"] == STOOD_STILL for row in rows):
        text = "error: every point was ended because its steps changed no parameter"
        print(f"{text}; report.html has the causes", file=sys.stderr)
        sys.exit(train.STOOD_STILL)


def _say(message: str) -> None:
    """Print a line at once."""
    print(message, flush=True)


if __name__ == "__main__":
    cli.define_flags(Options)
    config_flags.define()
    cli.run(main)

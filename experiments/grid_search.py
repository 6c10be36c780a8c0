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

import os
import pathlib
import sys
from collections.abc import Sequence

import jax
from absl import flags

from data_pipeline import cli
from data_pipeline.command_line import shell_line
from data_pipeline.conversion import cluster
from experiments import train
from experiments.cli import compile_cache, run_record
from experiments.cli.progress import duration
from experiments.cli.signals import StopSignal
from experiments.sweep import executors, report
from experiments.sweep.axes import Axis, Point, make_points, parse_axes, shown
from experiments.sweep.points import PointRun, Scoring, ended, groups_of, open_folders, score
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.sweep import runs


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define this entry point's flags."""
    train.define_flags(values)
    # They are this command's, too: --help lists them.
    flags.adopt_module_key_flags(train, values)
    text = "An axis, NAME=v1,v2; once per axis."
    flags.DEFINE_multi_string("grid", [], text, flag_values=values)
    text = (
        "How points are trained: vmap (one program, stacked states), local (a process each), ray "
        "(a cluster, extra `cluster`), auto (one program; times points in parallel and in turn, "
        "and takes the faster)."
    )
    flags.DEFINE_string("executor", "auto", text, flag_values=values)
    text = (
        "For vmap: points trained in parallel on a device. 0: on an accelerator as many as fit its "
        "memory, on a CPU one."
    )
    flags.DEFINE_integer("side_by_side", 0, text, flag_values=values)
    text = "Processes of --executor=local or of a Ray cluster started here. Default: the cores."
    flags.DEFINE_integer("workers", len(os.sched_getaffinity(0)), text, flag_values=values)
    text = "Ray cluster to use, host:port or auto. Default: one is started here."
    flags.DEFINE_string("ray_address", None, text, flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Print the points and their cost, then exit.", values)
    flags.DEFINE_string("score_split", "validation", "Split that points are scored on.", values)
    text = "Rows to score, evenly spaced in the split; 0: all."
    flags.DEFINE_integer("score_examples", 1024, text, flag_values=values)
    flags.DEFINE_integer("score_draws", 3, "Samples per row.", flag_values=values)


def checked_sweep(
    values: flags.FlagValues,
) -> tuple[data.Store, list[Axis], list[Point], executors.Options, Scoring]:
    """Check all that is given before anything is written.

    Raises:
      InputError: a flag, an axis or a point is wrong, or the data does not fit.
    """
    axes = parse_axes(values.grid)
    if values.executor not in executors.EXECUTORS:
        choices = ", ".join(executors.EXECUTORS)
        raise InputError(f"executor: {values.executor!r} is not one of {choices}")
    for name, low in (("side_by_side", 0), ("workers", 1), ("score_examples", 0)):
        given = getattr(values, name)
        if given < low:
            raise InputError(f"{name}: {given} is out of range, it must be {low} or more")
    if values.executor == "ray":
        cluster.check_installed()
    scoring = Scoring(values.score_split, values.score_examples, values.score_draws)
    store, base = train.checked_inputs(values)
    if scoring.split not in data.SPLITS or not len(store.splits[scoring.split]):
        raise InputError(f"score_split: {store.path} has no rows of {scoring.split!r}")
    if scoring.draws < 2:
        raise InputError(f"score_draws: {scoring.draws} is out of range, it must be 2 or more")
    points = make_points(base, axes)
    for point in points:
        data.check_enough_rows(len(store.splits["train"]), point.config.train.batch_size)
    options = executors.Options(
        values.executor, values.side_by_side, values.workers, values.ray_address
    )
    return store, axes, points, options, scoring


def spread_over_cores(num_points: int) -> None:
    """Let JAX treat each core as a device, so that points are trained side by side on a CPU.

    Has no effect where there is an accelerator; must be called before JAX is used.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = len(os.sched_getaffinity(0))
        jax.config.update("jax_num_cpu_devices", min(cores, num_points))


def show_cost(points: Sequence[Point], store: data.Store) -> None:
    """Print the points by group, and what each would cost on one device of this machine."""
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
    print(f"{len(points)} points, {duration(total)} in all, one after the other; nothing was done")


def main(argv: Sequence[str]) -> None:
    """Check, train, score and compare."""
    del argv
    values = flags.FLAGS
    compile_cache.switch_on()
    store, axes, points, options, scoring = checked_sweep(values)
    if options.executor in ("auto", "vmap") and not values.dry_run:
        spread_over_cores(len(points))
    if values.dry_run:
        show_cost(points, store)
        return
    folder = pathlib.Path(values.run_dir).resolve()
    tasks = open_folders(folder, points, store)
    for task in tasks:
        if ended(task) is None:
            run_record.write_start(task.folder, store)
    ours = shell_line("experiments.grid_search", sys.argv[1:])
    with StopSignal() as signal:

        def should_stop() -> bool:
            return signal.received is not None

        executors.train(tasks, store, options, should_stop, _say)
        if should_stop():
            print(f"stopped; the same command resumes:\n  {ours}", flush=True)
            sys.exit(signal.exit_code)
    scores = score(tasks, store, scoring, _say)
    rows = report.results(tasks, scores)
    about = {
        "command": ours,
        "data": values.data_dir,
        "fingerprint": store.fingerprint,
        "axes": {axis.name: [shown(value) for value in axis.values] for axis in axes},
    } | scoring._asdict()
    page = report.report(rows, axes, tasks, about)
    report.write(folder, rows, about, page)
    print(report.table(rows, scoring))
    print(f"written: results.csv, results.json and report.html in {values.run_dir}", flush=True)


def _say(message: str) -> None:
    """Print a line at once."""
    print(message, flush=True)


if __name__ == "__main__":
    define_flags()
    cli.run(main)

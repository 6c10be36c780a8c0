"""Executors that train the points of a sweep: one program, processes, or a cluster."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import jax

from data_pipeline.cli import option
from data_pipeline.conversion import cluster
from experiments.cli.progress import duration
from experiments.sweep.points import (
    LOG,
    GroupProgress,
    PointRecorder,
    PointRun,
    ended,
    groups_of,
    write_end,
)
from experiments.sweep.worker import train_folder
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.sweep import runs

EXECUTORS = ("auto", "vmap", "local", "ray")
_POLL_SECONDS = 0.2
# Slot -> the point that it trains, and its process.
_Running = dict[int, tuple[PointRun, subprocess.Popen[bytes]]]


@dataclasses.dataclass(frozen=True)
class Options:
    """How to train the points."""

    executor: str = option(
        "auto",
        choices=EXECUTORS,
        help="How points are trained: vmap (one program, stacked states), local (a process each), "
        "ray (a cluster, extra `cluster`), auto (one program; in a sweep that is long compared "
        "with compiling, times points in parallel, too, and chooses the faster).",
    )
    side_by_side: int = option(
        0,
        help="For vmap: points trained in parallel on a device. 0: on an accelerator as many as "
        "fit its memory, on a CPU one.",
    )
    num_workers: int | None = option(
        None,
        flag="workers",
        help="Processes of --executor=local or of a Ray cluster started here. Default: the number "
        "of cores.",
    )
    ray_address: str | None = option(
        None, help="Ray cluster to use, host:port or auto. Default: one is started here."
    )

    @property
    def workers(self) -> int:
        """Number of processes."""
        if self.num_workers is None:
            return len(os.sched_getaffinity(0))
        return self.num_workers


def train(
    tasks: Sequence[PointRun],
    store: data.Store,
    options: Options,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Train all points to their ends, or until it is asked to stop, saving what is done.

    Raises:
      InputError: the executor cannot run, or the data does not fit.
    """
    left = [task for task in tasks if ended(task) is None]
    if len(left) < len(tasks):
        say(f"{len(tasks) - len(left)} of {len(tasks)} points are finished and skipped")
    if not left:
        return
    if options.executor == "local":
        _train_in_processes(left, options.workers, should_stop, say)
    elif options.executor == "ray":
        _train_on_cluster(left, options, should_stop, say)
    else:
        for group in groups_of(left):
            if not should_stop():
                _train_in_one_program(group, store, options, should_stop, say)


def _train_in_one_program(
    group: Sequence[PointRun],
    store: data.Store,
    options: Options,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Train the points of a group with their states stacked."""
    progress = GroupProgress(group[0].config.run.train_steps, say)
    recorders = [PointRecorder(task, progress) for task in group]
    points = [
        runs.Point(task.config, str(task.folder), recorder)
        for task, recorder in zip(group, recorders, strict=True)
    ]

    def timed(timing: runs.Timing) -> None:
        shown = ", ".join(f"{n} at once {s:.3f} s" for n, s in timing.seconds.items())
        say(f"compiled in {duration(timing.compile_seconds)}")
        say(f"time of a step of all points, by points per device: {shown}")
        say(_described(timing.chosen))
        say(f"estimate: {duration(timing.seconds_left)} for {timing.steps:,} steps")

    side_by_side = _side_by_side(options)
    devices = min(len(jax.devices()), len(group))
    where = f"{devices} device{'s' if devices > 1 else ''}"
    say(f"{len(group)} points in one program on {where}; compiling")
    if side_by_side is not None:
        say(_described(side_by_side))
    try:
        outcomes = runs.fit_points(
            points, store, side_by_side=side_by_side, should_stop=should_stop, timed=timed
        )
    finally:
        for recorder in recorders:
            recorder.close()
    for task, outcome in zip(group, outcomes, strict=True):
        write_end(task.folder, task.config, outcome)
        if outcome.cause:
            say(f"{task.point.name} was ended after step {outcome.step:,}: {outcome.cause}")


def _side_by_side(options: Options) -> int | None:
    """Return the argument of `runs.fit_points`."""
    if options.executor == "auto":
        return None
    if options.side_by_side or jax.default_backend() != "cpu":
        return options.side_by_side
    return 1


def _described(side_by_side: int) -> str:
    """Describe how a device computes its points."""
    if side_by_side == 1:
        return "each device computes its points one after the other (jax.lax.map)"
    many = f"{side_by_side} points" if side_by_side else "as many points as its memory holds"
    return f"each device computes {many} at once (jax.vmap)"


def _train_in_processes(
    tasks: Sequence[PointRun],
    workers: int,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Train each point in a process, `workers` at a time, each on a core of its own."""
    waiting, done = list(tasks), 0
    running: _Running = {}
    cores = sorted(os.sched_getaffinity(0))
    asked = False
    try:
        while running or (waiting and not asked):
            if should_stop() and not asked:
                asked = True
                _terminate(running)
            for slot in range(workers):
                if slot not in running and waiting and not asked:
                    core = cores[slot] if workers <= len(cores) else -1
                    running[slot] = waiting[0], _start(waiting.pop(0), core)
            time.sleep(_POLL_SECONDS)
            for slot, (task, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[slot]
                if ended(task) is not None:
                    done += 1
                    say(f"{task.point.name} ended, {done} of {len(tasks)}")
                elif not asked:
                    _failed(task, f"exit code {process.returncode}, see {task.folder / LOG}")
    finally:
        # After a failure the other points stop too; each saves what it has done.
        if not asked:
            _terminate(running)
        for _, process in running.values():
            process.wait()


def _terminate(running: _Running) -> None:
    """Ask the processes to save and stop."""
    for _, process in running.values():
        process.terminate()


def _start(task: PointRun, core: int) -> subprocess.Popen[bytes]:
    """Start the process of a point; its output goes to the point's log."""
    command = [sys.executable, "-m", "experiments.sweep.worker", f"--run_dir={task.folder}"]
    if core >= 0:
        command.append(f"--core={core}")
    # Processes share an accelerator, so none may reserve all of its memory at the start.
    env = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with (task.folder / LOG).open("ab") as log:
        # In a process group of its own, because this process passes Ctrl-C on, once.
        return subprocess.Popen(
            command, stdout=log, stderr=log, env=env, stdin=subprocess.DEVNULL, process_group=0
        )


def _train_on_cluster(
    tasks: Sequence[PointRun],
    options: Options,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Train each point on a processor of a Ray cluster."""
    arguments = [(str(task.folder),) for task in tasks]
    calls = cluster.call_on_cluster(
        train_folder, arguments, options.ray_address, options.workers, should_stop
    )
    for done, (number, result) in enumerate(calls, start=1):
        if isinstance(result, Exception):
            _failed(tasks[number], str(result).strip().splitlines()[-1])
        say(f"{tasks[number].point.name} ended, {done} of {len(tasks)}")


def _failed(task: PointRun, reason: str) -> None:
    raise InputError(f"point {task.point.name} failed: {reason}")

"""Time training steps of the models of bars and of sound at the sizes of their sources.

Example:
  python -m experiments.benchmarks.stacked --data_dir=data/rolls --batch_size=64,256

A step is one of the program of `train`, on real rows: gather, forward, backward, clip, Adam. Stores
of piano rolls and of sound are trained as their tasks say, stores of tokens by `stacked_vae` with
the same layers as piano rolls. Each line is measured in a process of its own. Rates are medians
over calls of `--steps` steps, by wall time and by the processor time of the process divided by the
cores: the second is what the step costs if nothing else runs and its threads never wait. `GFLOP`
are the operations of a row, forward and backward, with dense products, and `left` those without the
first layer, which adds rows of its kernel on a CPU. `memory` is the peak of the process.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import pathlib
import statistics
import time
from multiprocessing.connection import Connection

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.memory import resident_bytes
from experiments.benchmarks.support import machine
from experiments.benchmarks.support.options import FormatOptions
from experiments.cli import operation_counts
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices import sharding
from musicvae_jax.models.dense import stacked_vae
from musicvae_jax.models.registry import build_model
from musicvae_jax.tasks import get_task
from musicvae_jax.training.program import Dispatch
from musicvae_jax.training.state import init_state

HEADER = (
    f"{'task':18}{'dtype':>9}{'batch':>6}{'params/M':>9}{'GFLOP':>7}{'left':>6}{'step':>8}"
    f"{'step cpu':>9}{'rows/s':>8}{'rows/s cpu':>11}{'memory':>8}\n"
    f"{'':18}{'':>9}{'':>6}{'':>9}{'a row':>7}{'':>6}{'s':>8}"
    f"{'s':>9}{'wall':>8}{'processor':>11}{'GB':>8}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
      operations: of a row, forward and backward, with dense products.
      operations_left: those without the first layer where it adds rows of its kernel.
      seconds: wall time of a step, one number per call.
      processor_seconds: user and system time of a step, one number per call.
      gigabytes: peak resident memory of the process.
    """

    task: str
    dtype: str
    batch_size: int
    parameters: int
    operations: int
    operations_left: int
    seconds: list[float]
    processor_seconds: list[float]
    gigabytes: float


def config_of(data_dir: str, batch_size: int, dtype: str) -> Config:
    """Return the configuration that the rows of a store are trained with.

    Raises:
      InputError: the store has fewer training rows than a batch.
    """
    store = data.open_store(data_dir)
    task = store.task
    rolls = get_task("pianoroll_16bar").config
    own = task.config
    if task.content == "tokens":
        own = dataclasses.replace(rolls, task=task.name)
    config = own.replace(batch_size=batch_size or own.train.batch_size, dtype=dtype)
    data.check_enough_rows(len(store.splits["train"]), config.train.batch_size)
    return config


def first_layer(config: Config) -> int:
    """Count the operations of a row, forward and backward, that added kernel rows replace."""
    task = get_task(config.task)
    if task.content == "sound" or any(track.encoder_roll for track in task.tracks):
        return 0
    cells = stacked_vae.cells_of(config).inputs
    return 3 * 2 * task.num_bars * cells * config.model.bar_sizes[0]


def measure_here(data_dir: str, config: Config, steps: int, calls: int) -> Row:
    """Compile and time the steps of a configuration, in a process that does nothing else."""
    config = config.replace(steps_per_dispatch=steps)
    rows = np.asarray(data.open_store(data_dir).splits["train"])
    model = build_model(config)
    state = init_state(model, config)
    run = Dispatch(model, config, rows, sharding.make_mesh(), state)
    wall: list[float] = []
    processor: list[float] = []
    for call in range(calls + 1):
        if call == 1:  # forget the compilation's memory
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        start, used = time.perf_counter(), time.process_time()
        state, measured = run(state, call * steps, steps)
        jax.block_until_ready((state, measured))
        wall.append((time.perf_counter() - start) / steps)
        processor.append((time.process_time() - used) / steps)
    counted = operation_counts.count(config)
    return Row(
        task=config.task,
        dtype=config.train.dtype,
        batch_size=config.train.batch_size,
        parameters=counted.parameters,
        operations=counted.operations,
        operations_left=counted.operations - first_layer(config),
        seconds=wall[1:],
        processor_seconds=processor[1:],
        gigabytes=resident_bytes("VmHWM") / 1e9,
    )


def _report(data_dir: str, config: Config, steps: int, calls: int, connection: Connection) -> None:
    """Measure and send the row."""
    connection.send(measure_here(data_dir, config, steps, calls))


def measure(data_dir: str, config: Config, steps: int, calls: int) -> Row:
    """Measure in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_report, args=(data_dir, config, steps, calls, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise InputError(f"{config.task}: the process that measured it ended early") from None
    finally:
        process.join()


def line(row: Row, cores: int) -> str:
    """Return a row as text."""
    wall, used = statistics.median(row.seconds), statistics.median(row.processor_seconds)
    return (
        f"{row.task:18}{row.dtype:>9}{row.batch_size:6}{row.parameters / 1e6:9.1f}"
        f"{row.operations / 1e9:7.2f}{row.operations_left / 1e9:6.2f}{wall:8.2f}{used:9.2f}"
        f"{row.batch_size / wall:8.1f}{row.batch_size * cores / used:11.1f}{row.gigabytes:8.2f}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(FormatOptions):
    """What to measure: every combination of store, batch size and type."""

    data_dir: tuple[str, ...] = option(help="Store of rows; may be repeated.")
    batch_size: tuple[int, ...] = option((0,), comma=True, help="Rows a step; 0: the task's.")
    dtype: tuple[str, ...] = option(("float32",), comma=True, help="Types of the products.")
    steps: int = option(2, low=1, help="Steps of a call.")
    calls: int = option(3, low=1, help="Timed calls.")


def main(options: Options) -> None:
    """Measure every combination and print the table."""
    cores = len(os.sched_getaffinity(0))
    chosen = [
        (folder, config_of(folder, size, dtype))
        for folder in options.data_dir
        for size in options.batch_size
        for dtype in options.dtype
    ]
    if not options.json:
        print(machine.describe("jaxlib", "flax"))
        print(f"{options.calls} calls of {options.steps} steps")
        print(HEADER, flush=True)
    for folder, config in chosen:
        row = measure(folder, config, options.steps, options.calls)
        print(json.dumps(dataclasses.asdict(row)) if options.json else line(row, cores), flush=True)


if __name__ == "__main__":
    cli.run(main, Options)

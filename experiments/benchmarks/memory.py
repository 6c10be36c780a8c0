"""Memory of a training step: the estimate printed before the first step, and the measured peak.

Example:
  python -m experiments.benchmarks.memory

The estimate is what the compiled program reports: arguments, results and temporaries. The first
table compares it, for the configurations that fit this machine, with the peak of a process that
makes two steps, minus what the process held once the program was compiled (on a GPU: the
allocator's own peak). The second compiles every published configuration at its batch size without
running it, with and without --remat. Compiled on a CPU, this is only a rough estimate for a GPU,
whose compiler lays out temporaries differently. `limit` refers to an 80 GB device.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import machine
from experiments.benchmarks.support.options import FormatOptions, check_names
from experiments.benchmarks.train_step import all_configs, random_batch
from experiments.cli import operation_counts
from musicvae_jax.config import Config
from musicvae_jax.models.registry import build_model
from musicvae_jax.tasks import get_task
from musicvae_jax.training import program
from musicvae_jax.training.state import TrainState, init_state
from musicvae_jax.training.step import Batch, make_train_step

MEASURED = ("drums_2bar_256", "mel_16bar_256")
LIMIT_GIGABYTES = 80.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the tables, in gigabytes; `measured` is None where nothing was run."""

    name: str
    batch_size: int
    remat: bool
    estimate: float
    measured: float | None


def compiled_step(config: Config) -> Any:
    """Compile a training step from shapes alone."""
    model, task = build_model(config), get_task(config.task)
    B = config.train.batch_size

    def start() -> tuple[TrainState, Batch]:
        tokens, eps = (
            jnp.zeros((B, *task.row_shape), jnp.int32),
            jnp.zeros((B, config.model.z_size)),
        )
        return init_state(model, config), Batch(tokens, eps)

    state, batch = jax.eval_shape(start)
    step = jax.jit(make_train_step(model, config), donate_argnums=0)
    return step.lower(state, batch).compile()


def resident_bytes(name: str) -> int:
    """Return the resident memory of this process (VmRSS) or its peak (VmHWM)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def measure_here(config: Config) -> Row:
    """Compile a step and make two, in a process that does nothing else."""
    step = compiled_step(config)
    estimate = program.memory_bytes(step)
    device = jax.devices()[0]
    before = resident_bytes("VmRSS")
    # Forget the peak of compilation.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    state, batch = init_state(build_model(config), config), random_batch(config)
    for _ in range(2):
        state, measured = step(state, batch)
        jax.block_until_ready(measured)
    stats = device.memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", resident_bytes("VmHWM") - before)
    return Row(
        name="",
        batch_size=config.train.batch_size,
        remat=config.run.remat,
        estimate=estimate / 1e9,
        measured=peak / 1e9,
    )


def measure(name: str, config: Config) -> Row:
    """Measure in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return dataclasses.replace(process.submit(measure_here, config).result(), name=name)


def line(row: Row) -> str:
    """Return a row as text."""
    start = f"{row.name:22}{row.batch_size:6}{'yes' if row.remat else 'no':>7}{row.estimate:10.2f}"
    if row.measured is None:
        return start + f"{'fits' if row.estimate < LIMIT_GIGABYTES else 'does not fit':>14}"
    return start + f"{row.measured:10.2f}{row.estimate / row.measured:8.2f}"


def show(rows: Sequence[Row], head: str, as_json: bool) -> None:
    """Print rows, as JSON if asked."""
    if not as_json:
        print(f"{'configuration':22}{'batch':>6}{'remat':>7}{'estimate':>10}{head}", flush=True)
    for row in rows:
        print(json.dumps(dataclasses.asdict(row)) if as_json else line(row), flush=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(FormatOptions):
    """What to measure."""

    only: tuple[str, ...] = option((), comma=True, help="Configurations, by name.")
    dtype: str = option("bfloat16", help="Type of the products in the second table.")


def main(options: Options) -> None:
    """Print both tables."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    configs, only = all_configs(), options.only
    check_names(only, configs)
    if not options.json:
        print(machine.describe("jaxlib", "flax"))
        print("gigabytes; estimate beside the peak of two steps, float32")
    both = (False, True)
    measured = (
        measure(name, configs[name].replace(dtype="float32", remat=remat))
        for name in only or MEASURED
        for remat in both
        if name in MEASURED or only
    )
    show(list(measured), f"{'peak':>10}{'ratio':>8}", options.json)
    if only:
        return
    if not options.json:
        print(f"published configurations, compiled only, {options.dtype}")
    estimates = []
    for name in operation_counts.published():
        for remat in both:
            config = configs[name].replace(dtype=options.dtype, remat=remat)
            estimate = program.memory_bytes(compiled_step(config)) / 1e9
            size = config.train.batch_size
            row = Row(name=name, batch_size=size, remat=remat, estimate=estimate, measured=None)
            estimates.append(row)
    show(estimates, f"{'80 GB device':>14}", options.json)


if __name__ == "__main__":
    cli.run(main, Options)

"""How training speed scales with the batch size, the length of a row and the number of devices.

Example:
  python -m experiments.benchmarks.scaling --tables=batch,length,devices

  batch    2-bar drums (encoder 256, decoder 2 x 256), 64 to 4,096 rows per step
  length   flat melodies of 2 to 64 bars (32 to 1,024 steps; encoder 256, decoder 256), 32 rows
  devices  2-bar drums, 512 rows shared by 1 to 8 devices. On a CPU these are virtual devices that
           share the same cores, so the efficiency shows only what sharding costs, and is at most 1.

`floor` is the time of the counted operations at the measured rate of a large product; `share` is
the floor divided by the time of a step. Medians over the rounds.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import statistics
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

import jax
from absl import flags

from data_pipeline import cli
from experiments.benchmarks.support import counts, machine
from experiments.benchmarks.train_step import all_configs, random_batch
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices import mesh as sharding
from musicvae_jax.models.registry import build_model
from musicvae_jax.tasks import TASKS
from musicvae_jax.training import step as training

TABLES = ("batch", "length", "devices")
BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)
BARS = (2, 4, 8, 16, 32, 64)
DEVICES = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement: what was varied, seconds per step, and the floor."""

    table: str
    value: int
    batch_size: int
    seconds: float
    floor_seconds: float


def step_seconds(config: Config, rounds: int) -> float:
    """Return the median seconds of a training step, its batch cut over all devices."""
    mesh, model = sharding.make_mesh(), build_model(config)
    whole, cut = sharding.replicated(mesh), sharding.along_data(mesh)
    state = jax.device_put(training.init_state(model, config), whole)
    batch = jax.device_put(random_batch(config), cut)
    step = jax.jit(
        training.make_train_step(model, config),
        in_shardings=(whole, cut),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )
    carried = [state]

    def once() -> None:
        carried[0], measured = step(carried[0], batch)
        jax.block_until_ready(measured)

    once()
    return statistics.median(machine.seconds(once) for _ in range(rounds))


def with_bars(bars: int) -> Config:
    """Return a flat melody model over rows of `bars` bars, after registering its task."""
    name = f"mel_{bars}bar_scaling"
    task = TASKS["mel_2bar"]
    config = task.config.replace(
        task=name, encoder_sizes=(256,), decoder_sizes=(256,), batch_size=32, dtype="float32"
    )
    config = config.replace(sampling_schedule="constant", sampling_rate=0.0, transpose=0)
    TASKS[name] = dataclasses.replace(task, name=name, num_bars=bars, config=config)
    return config


def _report(config: Config, rounds: int, connection: Connection) -> None:
    """Time in this process and send the seconds."""
    connection.send(step_seconds(config, rounds))


def on_forced_devices(config: Config, count: int, rounds: int) -> float:
    """Time in a new process whose CPU shows itself as `count` devices."""
    before = os.environ.get("XLA_FLAGS")
    forced = f"--xla_force_host_platform_device_count={count}"
    os.environ["XLA_FLAGS"] = f"{before or ''} {forced}".strip()
    try:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_report, args=(config, rounds, theirs))
        process.start()
        seconds = ours.recv()
        process.join()
    finally:
        if before is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = before
    return float(seconds)


def measure(table: str, rounds: int, rate: float) -> Iterator[Row]:
    """Measure the rows of one table; `rate` in TFLOP/s."""
    drums = all_configs()["drums_2bar_256"].replace(dtype="float32")
    if table == "batch":
        chosen = [(size, drums.replace(batch_size=size)) for size in BATCHES]
    elif table == "length":
        chosen = [(bars * 16, with_bars(bars)) for bars in BARS]
    else:
        chosen = [(count, drums) for count in DEVICES]
    for value, config in chosen:
        forced = table == "devices" and jax.default_backend() == "cpu"
        seconds = (
            on_forced_devices(config, value, rounds) if forced else step_seconds(config, rounds)
        )
        floor = config.train.batch_size * counts.count(config).operations / (rate * 1e12)
        size = config.train.batch_size
        yield Row(table=table, value=value, batch_size=size, seconds=seconds, floor_seconds=floor)


def show(rows: Iterator[Row], as_json: bool) -> None:
    """Print rows as they come."""
    first: Row | None = None
    for row in rows:
        first = first or row
        if as_json:
            print(json.dumps(dataclasses.asdict(row)), flush=True)
            continue
        rate, share = row.batch_size / row.seconds, row.floor_seconds / row.seconds
        against = first.seconds / row.seconds if row.table == "devices" else share
        print(
            f"{row.value:8}{row.batch_size:8}{row.seconds * 1e3:11.1f}{rate:11.1f}"
            f"{row.floor_seconds * 1e3:11.1f}{against:12.2f}",
            flush=True,
        )


def define_flags() -> None:
    """Define this benchmark's flags."""
    flags.DEFINE_list("tables", list(TABLES), "Tables to print.")
    flags.DEFINE_integer("rounds", 5, "Steps that are timed.", 1)
    flags.DEFINE_boolean("json", False, "Print one JSON line per measurement instead.")


def main(argv: Sequence[str]) -> None:
    """Print the chosen tables."""
    del argv
    values = flags.FLAGS
    for table in values.tables:
        if table not in TABLES:
            raise InputError(f"--tables: {table!r} is not one of {', '.join(TABLES)}")
    rate = machine.matrix_rate("float32")
    if not values.json:
        print(machine.describe("jaxlib", "flax"))
        print(f"float32 products; a large one runs at {rate:.3f} TFLOP/s; {values.rounds} rounds")
    for table in values.tables:
        if not values.json:
            last = "efficiency" if table == "devices" else "share"
            print(f"{table:>8}{'rows':>8}{'step/ms':>11}{'rows/s':>11}{'floor/ms':>11}{last:>12}")
        show(measure(table, values.rounds, rate), values.json)


if __name__ == "__main__":
    define_flags()
    cli.run(main)

"""Cost of feeding the trainer, compared with the steps it feeds.

Example:
  python -m experiments.benchmarks.data.input_cost --rows=1000000

For both places where training rows can be kept: the time the host takes to choose a step's rows,
to gather them (host placement: from a memory-mapped file) and to hand them to the device, and the
time the device takes to gather them (device placement), divided by the time of a step of the demo
model. The trainer prepares the next batches while the device works, so the host's part is an
upper bound.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from data_pipeline import cli
from experiments.benchmarks.support import counts, machine
from musicvae_jax.config import Config
from musicvae_jax.devices import mesh as sharding
from musicvae_jax.models.registry import build_model
from musicvae_jax.tasks import get_task
from musicvae_jax.training import step as training
from musicvae_jax.training.program import Dispatch

REPEATS = 9


def memory_mapped_rows(config: Config, num_rows: int, folder: pathlib.Path) -> np.ndarray:
    """Write random rows to a file, a part at a time, and map it."""
    task, rng = get_task(config.task), np.random.default_rng(0)
    path, shape = folder / "train.npy", (num_rows, *task.row_shape)
    rows = np.lib.format.open_memmap(path, "w+", task.token_dtype, shape)
    for start in range(0, num_rows, 100_000):
        part = rows[start : start + 100_000]
        part[:] = rng.integers(0, task.tracks[0].num_classes, part.shape)
    rows.flush()
    return np.load(path, mmap_mode="r")


def measure(config: Config, rows: np.ndarray, placement: str) -> tuple[float, float, float]:
    """Return seconds per step: on the host, in the device's gather, and in all."""
    config = config.replace(data_placement=placement)
    model, mesh = build_model(config), sharding.make_mesh()
    state = training.init_state(model, config)
    dispatch = Dispatch(model, config, rows, mesh, state)
    size, steps = dispatch.size, iter(range(0, 10**9, dispatch.size))
    host = machine.median_seconds(
        lambda: jax.block_until_ready(dispatch.chunk(next(steps), size)), REPEATS
    )
    gather = 0.0
    if dispatch.on_device:
        on_device, chunk = jnp.asarray(rows), dispatch.chunk(0, size)
        take = jax.jit(lambda rows, chunk: jax.lax.map(lambda numbers: rows[numbers], chunk))
        gather = machine.median_seconds(
            lambda: jax.block_until_ready(take(on_device, chunk)), REPEATS
        )
    carried = [state]

    def whole() -> None:
        carried[0], record = dispatch(carried[0], next(steps), size)
        jax.block_until_ready(record)

    return host / size, gather / size, machine.median_seconds(whole, REPEATS) / size


def define_flags() -> None:
    """Define this benchmark's flags."""
    flags.DEFINE_integer("rows", 1_000_000, "Training rows.", 1000)


def main(argv: Sequence[str]) -> None:
    """Measure both placements and print the table."""
    del argv
    config = counts.published()["demo"]
    print(machine.describe("jaxlib", "flax"))
    print(f"demo model, batch {config.train.batch_size}, {flags.FLAGS.rows:,} rows of 32 steps")
    print(f"{'rows on':10}{'host/ms':>10}{'gather/ms':>11}{'step/ms':>10}{'share':>9}")
    with tempfile.TemporaryDirectory() as folder:
        rows = memory_mapped_rows(config, flags.FLAGS.rows, pathlib.Path(folder))
        for placement in ("device", "host"):
            host, gather, step = measure(config, rows, placement)
            figures = f"{host * 1e3:10.3f}{gather * 1e3:11.3f}{step * 1e3:10.1f}"
            print(f"{placement:10}{figures}{(host + gather) / step:9.2%}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)

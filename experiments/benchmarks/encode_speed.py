"""Encode a corpus in bulk, compared with the encoder's forward pass alone.

Example:
  python -m experiments.benchmarks.encode_speed --rows=100000

The forward pass alone: rows already on the device, one compiled batch after the other, results
left there. The corpus: `experiments.encode` from a memory-mapped token store to shards on disk,
including reading, transfers and writing. Both take turns on the same random rows with the same
random parameters; ratios are taken within a round.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from data_pipeline import cli
from experiments import encode
from experiments.benchmarks.data import input_cost
from experiments.benchmarks.support import counts, machine
from experiments.cli.signals import StopSignal
from experiments.encoding.inputs import open_corpus
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import Params, build_model
from musicvae_jax.tasks import get_task

SHARD_ROWS = 16_384


class Result(NamedTuple):
    """One configuration's figures.

    Attributes:
      name: of its flagfile.
      rows: encoded in each round.
      batch_size: rows encoded at once.
      forward: examples/s of the forward pass alone, median of the rounds.
      corpus: examples/s from store to shards, median of the rounds.
      ratio: corpus over forward, median of the rounds' ratios.
    """

    name: str
    rows: int
    batch_size: int
    forward: float
    corpus: float
    ratio: float


def write_store(config: Config, num_rows: int, folder: pathlib.Path) -> np.ndarray:
    """Write a store of random training rows; return them, memory-mapped."""
    rows = input_cost.memory_mapped_rows(config, num_rows, folder)
    for split in data.SPLITS[1:]:
        np.save(folder / f"{split}.npy", rows[:0])
    meta = {
        "format": data.STORE_FORMAT,
        "task": config.task,
        "counts": {"train": num_rows, "validation": 0, "test": 0},
        "sha256": {},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return rows


def forward_alone(
    config: Config, params: Params, rows: np.ndarray, batch_size: int
) -> Callable[[], object]:
    """Return a call that encodes all rows and leaves the results on the device."""
    run = jax.jit(build_model(config).encode)
    whole = len(rows) // batch_size * batch_size
    batches = [jnp.asarray(rows[n : n + batch_size]) for n in range(0, whole, batch_size)]
    return lambda: jax.block_until_ready([run(params, batch) for batch in batches])


def whole_corpus(
    config: Config, params: Params, store: pathlib.Path, batch_size: int
) -> Callable[[], object]:
    """Return a call that encodes a store into a new folder, which it removes."""
    run = encode.make_encode(config, params, batch_size)
    folder = store / "latents"

    def call() -> None:
        corpus = open_corpus((str(store),), None, "4/4", get_task(config.task))
        folder.mkdir()
        with StopSignal() as stop:
            encode.encode_corpus(corpus, run, folder, SHARD_ROWS, stop)
        shutil.rmtree(folder)

    return call


def measure(name: str, num_rows: int, batch_size: int, rounds: int) -> Result:
    """Time both in turns."""
    config = counts.published()[name]
    params = build_model(config).init(jax.random.key(0))
    num_rows = num_rows // batch_size * batch_size
    with tempfile.TemporaryDirectory() as temporary:
        store = pathlib.Path(temporary)
        rows = write_store(config, num_rows, store)
        calls = {
            "forward": forward_alone(config, params, rows, batch_size),
            "corpus": whole_corpus(config, params, store, batch_size),
        }
        for call in calls.values():
            call()
        times = machine.in_turns(calls, rounds)
    ratio = machine.median_ratio(times["forward"], times["corpus"])
    rates = {key: num_rows / statistics.median(seconds) for key, seconds in times.items()}
    return Result(name, num_rows, batch_size, rates["forward"], rates["corpus"], ratio)


def define_flags() -> None:
    """Define this benchmark's flags."""
    flags.DEFINE_list("only", ["demo"], "Configurations to time, by name.")
    flags.DEFINE_integer("rows", 100_000, "Rows to encode, a multiple of the batch.", 1)
    flags.DEFINE_integer("batch_size", 512, "Rows encoded at once.", 1)
    flags.DEFINE_integer("rounds", 3, "How often each side encodes in turn.", 1)
    flags.DEFINE_boolean("json", False, "Print one JSON line per configuration instead.")


def main(argv: Sequence[str]) -> None:
    """Time the chosen configurations and print the table."""
    del argv
    values, known = flags.FLAGS, counts.published()
    for name in values.only:
        if name not in known:
            raise InputError(f"only: {name!r} is not one of {', '.join(known)}")
    if values.rows < values.batch_size:
        raise InputError(f"rows: {values.rows} are fewer than one batch of {values.batch_size}")
    if not values.json:
        print(machine.describe("jaxlib", "flax"))
        print(
            f"{'configuration':22}{'rows':>9}{'batch':>7}{'forward':>10}{'corpus':>10}{'ratio':>7}"
        )
        print(f"{'':22}{'':>9}{'':>7}{'ex/s':>10}{'ex/s':>10}", flush=True)
    for name in values.only:
        found = measure(name, values.rows, values.batch_size, values.rounds)
        text = (
            f"{found.name:22}{found.rows:9,}{found.batch_size:7}{found.forward:10,.0f}"
            f"{found.corpus:10,.0f}{found.ratio:7.2f}"
        )
        print(json.dumps(found._asdict()) if values.json else text, flush=True)


if __name__ == "__main__":
    define_flags()
    cli.run(main)

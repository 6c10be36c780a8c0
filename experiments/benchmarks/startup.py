"""Time from a command to its first training step and to its first sample, in new processes.

Example:
  python -m experiments.benchmarks.startup

Each line is a whole command as a user types it, first with an empty compilation cache, then with
the cache that the line before it filled. `train` makes one step of a hierarchical 16-bar melody
model (`first`: when it reports the step; `whole` includes validation and the checkpoint);
`generate` writes one sample of it. The targets on two cores are 20 s to the first step with a
cold cache and 6 s to the first sample with a warm one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from data_pipeline import cli
from data_pipeline.selection import store
from data_pipeline.selection.splits import SPLITS
from experiments.benchmarks.support import machine
from experiments.benchmarks.support.options import FormatOptions
from experiments.benchmarks.train_step import random_batch, small_configs
from experiments.cli import config_flags
from musicvae_jax.config import Config
from musicvae_jax.tasks import get_task

NAME = "mel_16bar_256"
ASKED = {("train", "cold"): 20.0, ("generate", "warm"): 6.0}  # seconds until the first one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """One command.

    Attributes:
      name: "train" or "generate".
      cache: "cold" or "warm".
      first_seconds: until its first step, or its first sample.
      whole_seconds: until the process has ended.
    """

    name: str
    cache: str
    first_seconds: float
    whole_seconds: float


def write_store(config: Config, folder: pathlib.Path) -> None:
    """Write a token store of random rows, one batch in each split."""
    folder.mkdir()
    task, rows = get_task(config.task), np.asarray(random_batch(config).tokens)
    written = {
        split: store.write_rows(folder / f"{split}.npy", rows, np.arange(len(rows)), task)
        for split in SPLITS
    }
    store.write_json(folder / store.META, store.meta(task, written, [], {}))


def time_command(name: str, cache: str, arguments: list[str], sign: str, folder: str) -> Start:
    """Run a command until it ends; the first line that begins with `sign` is its first result.

    Without a sign, the end is the first result. `folder` has the compilation cache.

    Raises:
      RuntimeError: the command fails, or the line does not come.
    """
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": folder}
    start, first = time.perf_counter(), 0.0
    command_line = [sys.executable, "-m", f"experiments.{name}", *arguments]
    with subprocess.Popen(
        command_line, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for printed in process.stdout:
            if sign and printed.startswith(sign) and not first:
                first = time.perf_counter() - start
    whole = time.perf_counter() - start
    if process.returncode or (sign and not first):
        raise RuntimeError(f"{command_line} ended with {process.returncode} and no {sign!r}")
    return Start(name=name, cache=cache, first_seconds=first or whole, whole_seconds=whole)


def measure(folder: pathlib.Path) -> list[Start]:
    """Time both commands, each with a cold and a warm cache."""
    config = small_configs()[NAME].replace(dtype="float32")
    write_store(config, folder / "data")
    starts = []
    for cache in ("cold", "warm"):
        arguments = [f"--data_dir={folder / 'data'}", f"--run_dir={folder / cache}"]
        arguments += [*config_flags.as_flags(config), "--train_steps=1", "--log_every=1"]
        sign = "step       1/1 "
        starts.append(time_command("train", cache, arguments, sign, str(folder / "compiled")))
    for cache in ("cold", "warm"):
        arguments = [f"--run_dir={folder / 'cold'}", f"--output={folder / 'music' / cache}"]
        arguments += ["--mode=sample", "--num=1"]
        starts.append(time_command("generate", cache, arguments, "", str(folder / "compiled")))
    return starts


def main(options: FormatOptions) -> None:
    """Time the commands and print the table."""
    if not options.json:
        print(machine.describe("jaxlib", "flax"))
        print(f"{NAME}; seconds from the command to its first step or sample, and to its end")
        print(f"{'command':12}{'cache':>8}{'first':>8}{'whole':>8}{'asked':>8}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for start in measure(pathlib.Path(folder)):
            asked = ASKED.get((start.name, start.cache))
            if options.json:
                print(json.dumps(dataclasses.asdict(start)), flush=True)
                continue
            limit = "" if asked is None else f"{asked:.0f}"
            figures = f"{start.first_seconds:8.1f}{start.whole_seconds:8.1f}{limit:>8}"
            print(f"{start.name:12}{start.cache:>8}{figures}", flush=True)


if __name__ == "__main__":
    cli.run(main, FormatOptions)

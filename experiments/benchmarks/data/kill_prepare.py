"""Kill `prepare` at random moments until it is done; compare with an uninterrupted run.

Example:
  python -m experiments.benchmarks.data.kill_prepare --input=folder.tar.gz --kills=20

Each run is the same command, ended after a random time by SIGKILL, SIGTERM or Ctrl-C in turn. The
two stores must be identical to the byte, except for run.json.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from data_pipeline import cli
from data_pipeline.selection.store import RUN
from musicvae_jax.config import InputError

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL)


class Trial(NamedTuple):
    """Result of a trial.

    Attributes:
      moments: seconds after which each run was ended.
      went_on: runs that found work of an earlier one.
      num_stores: stores that came about among the kills.
      differing: names of files in which one of them differs from an undisturbed run's.
      num_files: files of a store that were compared.
    """

    moments: tuple[float, ...]
    went_on: int
    num_stores: int
    differing: tuple[str, ...]
    num_files: int


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Return the bytes of all files of a store that must not depend on how it was made."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != RUN]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def kill_often(arguments: Sequence[str], folder: pathlib.Path, num_kills: int, seed: int) -> Trial:
    """Make one store uninterrupted, and others with `num_kills` kills between them; compare.

    Args:
      arguments: of prepare, without --output.
      folder: an empty folder to work in.
      num_kills: how often to end a run.
      seed: of the moments.

    Raises:
      InputError: prepare fails by itself.
    """
    start = time.monotonic()
    _run([*arguments, "--workers=2", f"--output={folder / 'whole'}"], None)
    seconds = time.monotonic() - start
    whole, killed = contents(folder / "whole"), folder / "killed"
    rng = random.Random(seed)
    moments: list[float] = []
    differing: set[str] = set()
    went_on = num_stores = 0
    finished = False
    while len(moments) < num_kills or not finished:
        moment = rng.uniform(0.1 * seconds, 0.9 * seconds)
        number = _SIGNALS[len(moments) % len(_SIGNALS)]
        workers = f"--workers={1 + len(moments) % 3}"
        end = (moment, number) if len(moments) < num_kills else None
        finished, errors = _run([*arguments, workers, f"--output={killed}"], end)
        went_on += "going on:" in errors
        if finished:
            found = contents(killed)
            names = whole.keys() | found.keys()
            differing |= {name for name in names if whole.get(name) != found.get(name)}
            num_stores += 1
            shutil.rmtree(killed)
        else:
            moments.append(moment)
    differing |= {path.name for path in folder.iterdir()} - {"whole"}
    return Trial(tuple(moments), went_on, num_stores, tuple(sorted(differing)), len(whole))


def _run(arguments: Sequence[str], end: tuple[float, int] | None) -> tuple[bool, str]:
    """Run prepare to its end, or until a signal after some seconds.

    Returns:
      Whether it ended by itself, and what it said on standard error.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "data_pipeline.prepare", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=None if end is None else end[0])
        except subprocess.TimeoutExpired:
            number = signal.SIGKILL if end is None else end[1]
            if number == signal.SIGKILL:
                process.kill()
            else:  # as a terminal does, to the whole group
                os.killpg(process.pid, number)
            _, errors = process.communicate()
            return False, errors
    if process.returncode:
        last = (errors.splitlines() or [f"exit code {process.returncode}"])[-1]
        raise InputError(f"input: prepare failed: {last}")
    return True, errors


def define_flags() -> None:
    """Define this entry point's flags."""
    flags.DEFINE_string("input", None, "What to prepare.", required=True)
    flags.DEFINE_string("task", "all", "For which tasks.")
    flags.DEFINE_integer("kills", 20, "How often to kill.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the moments.")


def main(argv: Sequence[str]) -> None:
    """Kill, compare and print the result."""
    del argv
    values = flags.FLAGS
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        given = [f"--input={values.input}", f"--task={values.task}"]
        trial = kill_often(given, folder, values.kills, values.seed)
    finally:
        shutil.rmtree(folder)
    print("killed after", ", ".join(f"{moment:.2f}" for moment in trial.moments), "s")
    print(f"{trial.went_on} runs went on from an earlier one; {trial.num_stores} stores came about")
    if trial.differing:
        raise InputError(f"input: differ after kills: {', '.join(trial.differing)}")
    print(f"all {trial.num_files} files of each are equal to those of an undisturbed run")


if __name__ == "__main__":
    define_flags()
    cli.run(main)

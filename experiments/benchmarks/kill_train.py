"""Kill a training run again and again, resume it each time, and compare with an uninterrupted run.

Example:
  python -m experiments.benchmarks.kill_train --kills=20

Every run is the same command, `experiments.train` with a tiny model on synthetic rows, ended by
SIGKILL: before its first checkpoint, while one is being written, and at random moments. The final
parameters, optimiser state and records must be equal to the bit.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.selection import store
from experiments.benchmarks.support import machine
from musicvae_jax.config import InputError
from musicvae_jax.models.registry import architectures_with, build_model
from musicvae_jax.storage import checkpoints
from musicvae_jax.storage.checksums import CHECKSUMS
from musicvae_jax.tasks import get_task
from musicvae_jax.training.state import state_shapes

SAVE_EVERY = 6
# Most steps of a process that is going to be killed.
_STEPS = 2 * SAVE_EVERY
MODEL = (
    "--encoder_sizes=8",
    "--decoder_sizes=8",
    "--z_size=4",
    "--batch_size=16",
    "--accumulation=2",
    "--dtype=float32",
    "--learning_rate_schedule=plateau",
    "--stop_patience=1000",
    "--log_every=1",
    "--eval_every=9",
    f"--save_every={SAVE_EVERY}",
    "--steps_per_dispatch=1",
)
KINDS = ("before the first save", "during a save", "between saves")


class Kill(NamedTuple):
    """One process and its end.

    Attributes:
      kind: one of KINDS, or "" for the last process, which ended by itself.
      first_step: step it resumed from.
      last_step: last step it said it had made.
    """

    kind: str
    first_step: int
    last_step: int


class Trial(NamedTuple):
    """Result of a trial: its processes (the last one is not killed) and what differs in the end."""

    processes: tuple[Kill, ...]
    differing: tuple[str, ...]


def kill_often(
    data_dir: pathlib.Path,
    folder: pathlib.Path,
    kinds: Sequence[str],
    seed: int,
    model: Sequence[str] = MODEL,
) -> Trial:
    """Train once uninterrupted and once with a kill of each kind, in this order; compare.

    Args:
      data_dir: a token store.
      folder: an empty folder to work in.
      kinds: some of KINDS, those before the first save first.
      seed: random seed of the moments.
      model: flags of the model to train.

    Raises:
      InputError: training fails by itself.
    """
    common = [*model, f"--data_dir={data_dir}", f"--train_steps={_STEPS * len(kinds) + 3}"]
    whole, killed = folder / "whole", folder / "killed"
    rng = random.Random(seed)
    _Process([*common, f"--run_dir={whole}"], whole).finish()
    found: list[Kill] = []
    for kind in kinds:
        # A kill that comes too late is of another kind: it is kept as that, and tried again.
        while True:
            process = _Process([*common, f"--run_dir={killed}"], killed)
            found.append(process.kill(kind, rng))
            if found[-1].kind == kind:
                break
    last = _Process([*common, f"--run_dir={killed}"], killed)
    found.append(last.finish())
    return Trial(tuple(found), tuple(differences(whole, killed)))


class _Process:
    """A training process whose lines are read as they come."""

    def __init__(self, arguments: Sequence[str], run_dir: pathlib.Path) -> None:
        self._folder = run_dir / checkpoints.FOLDER
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.train", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._first_step = self._last_step = 0

    def _read_until_step(self, count: int) -> None:
        """Read lines until this process has made `count` steps, or ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.match(r"resuming after step ([\d,]+)", line):
                self._first_step = int(found[1].replace(",", ""))
            if found := re.match(r"step +([\d,]+)/", line):
                self._last_step = int(found[1].replace(",", ""))
                if self._last_step - self._first_step == count:
                    return

    def kill(self, kind: str, rng: random.Random) -> Kill:
        """Wait for a moment of this kind and kill."""
        self._read_until_step(rng.randint(1, SAVE_EVERY - 1))
        if kind == "during a save":
            deadline = time.monotonic() + 60
            while not self._is_saving() and time.monotonic() < deadline:
                time.sleep(0.0002)
            time.sleep(rng.uniform(0, 0.02))
        elif kind == "between saves":
            self._read_until_step(rng.randint(SAVE_EVERY, _STEPS - 1))
            time.sleep(rng.uniform(0, 0.01))
        self._process.kill()
        self._read_until_step(-1)
        _, errors = self._process.communicate()
        if self._process.returncode != -9:
            raise InputError(f"kill_train: training ended by itself: {errors.strip()}")
        saved = any(path.name.isdecimal() for path in self._folder.glob("*"))
        found = KINDS[1] if self._is_saving() else KINDS[2] if saved else KINDS[0]
        return Kill(found, self._first_step, self._last_step)

    def _is_saving(self) -> bool:
        """Return whether there is an incomplete checkpoint."""
        return any(
            not path.name.isdecimal() or not (path / CHECKSUMS).exists()
            for path in self._folder.glob("*")
        )

    def finish(self) -> Kill:
        """Wait for the end."""
        self._read_until_step(-1)
        _, errors = self._process.communicate()
        if self._process.returncode:
            raise InputError(f"kill_train: training failed: {errors.strip()}")
        return Kill("", self._first_step, self._last_step)


def differences(left: pathlib.Path, right: pathlib.Path) -> list[str]:
    """Name what differs in the last checkpoints and the records of two runs."""
    a, b = _final_state(left), _final_state(right)
    paths = jax.tree_util.tree_flatten_with_path(a)[0]
    names = [
        jax.tree_util.keystr(path)
        for (path, x), y in zip(paths, jax.tree.leaves(b), strict=True)
        if not np.array_equal(x, y)
    ]
    return names + (["metrics.jsonl"] if _records(left) != _records(right) else [])


def _final_state(run_dir: pathlib.Path) -> Any:
    """Read all of the last checkpoint."""
    with checkpoints.Checkpoints(run_dir) as saved:
        step = saved.find("latest")
        config, _ = saved.restore_params(step)
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            state_shapes(build_model(config), config),
        )
        state = {name: value for name, value in vars(shapes).items() if name != "params"}
        return step, saved.restore(step, shapes.params, state)


def _records(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """Read the records, without their speeds."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in one.items() if k != "examples_per_second"} for one in records]


def write_rows(folder: pathlib.Path) -> None:
    """Write a small token store of made-up melodies."""
    folder.mkdir()
    rng, task = np.random.default_rng(0), get_task("mel_2bar")
    written = {}
    for split, count in {"train": 70, "validation": 8, "test": 0}.items():
        rows = np.zeros((count, *task.row_shape), task.token_dtype)
        rows[:, ::4] = rng.choice([1, 30, 34, 37], (count, 8))
        written[split] = store.write_rows(folder / f"{split}.npy", rows, np.arange(count), task)
    store.write_json(folder / store.META, store.meta(task, written, [], {}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to train, and how often to kill."""

    kills: int = option(20, low=3, help="How often to kill.")
    seed: int = option(0, help="Random seed of the moments.")
    architecture: str = option("flat", help="What to train.")


def main(options: Options) -> None:
    """Kill, compare, and print the table."""
    early = max(options.kills // 5, 1)
    kinds = [KINDS[0]] * early + [KINDS[1 + n % 2] for n in range(options.kills - early)]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_rows(folder / "rows")
        model = [*MODEL, f"--architecture={options.architecture}"]
        if options.architecture in architectures_with("bar_sizes"):
            model.append("--bar_sizes=8")
        trial = kill_often(folder / "rows", folder, kinds, options.seed, model)
    print(machine.describe("orbax-checkpoint"))
    print(f"{'killed':24}{'resumed from':>14}{'steps made':>12}{'rows of its epoch seen':>25}")
    for one in trial.processes:
        made, seen = one.last_step - one.first_step, one.last_step * 16 % 70
        print(f"{one.kind or 'not':24}{one.first_step:14}{made:12}{seen:>18} of 70")
    for kind in KINDS:
        print(f"{kind}: {sum(one.kind == kind for one in trial.processes)}")
    if trial.differing:
        raise InputError(f"kill_train: differ after kills: {', '.join(trial.differing)}")
    print("parameters, optimiser, schedules' state and records: equal to the bit")


if __name__ == "__main__":
    cli.run(main, Options)

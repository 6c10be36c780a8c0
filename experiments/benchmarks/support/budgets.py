"""Train one run to two budgets, equal examples and equal minutes, and score it at each.

Both budgets are points of the same training: it stops at the one that comes first, is scored,
continues to the other, and is scored again. The folder of a training has the run (`run`), what was
used at each point (`points.json`) and its scores (`minutes.json`, `examples.json`). The same call
continues a training that was ended at any time.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.cli.json_files import write_json
from experiments.cli.progress import Recorder
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.storage import run_folder
from musicvae_jax.training import callbacks, loop

BUDGETS = MINUTES, EXAMPLES = "minutes", "examples"
# More than any budget of minutes reaches.
_FOREVER = 10_000_000

Scores = dict[str, Any]


class Budgets(NamedTuple):
    """How long to train: minutes of the whole machine, and examples."""

    minutes: float
    examples: int


class Clock(Recorder):
    """Observer that counts the minutes of a training, over several processes.

    A minute is a minute of processor time on each core, so that other programs on the machine do
    not count. It begins after the first steps have been compiled; validation counts.

    Args:
      run_dir: the run folder.
      train_steps: steps of this part of the training.
      path: file that keeps the seconds of the last checkpoint.
      limit: seconds after which the training is over.
    """

    def __init__(
        self, run_dir: pathlib.Path, train_steps: int, path: pathlib.Path, limit: float
    ) -> None:
        super().__init__(run_dir, train_steps, _say)
        self._path, self._limit = path, limit
        self._before = float(json.loads(path.read_text())["seconds"]) if path.is_file() else 0.0
        self._start: float | None = None
        self._calls = 0

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._before + (0.0 if self._start is None else _machine_seconds() - self._start)

    def trained(self, progress: callbacks.Progress) -> None:
        """Print progress, with the time left until the first of the two budgets is used up."""
        left = max(0.0, min(progress.seconds_left, self._limit - self.seconds))
        super().trained(progress._replace(seconds_left=left))

    def saved(self, step: int) -> None:
        """Keep the time that belongs to the checkpoint."""
        write_json(self._path, {"seconds": self.seconds, "step": step})

    def is_over(self) -> bool:
        """Tell whether the time is used up; the training loop asks before each dispatch."""
        self._calls += 1
        if self._calls == 2:  # the first dispatch has been compiled
            self._start = _machine_seconds()
        return self.seconds >= self._limit


def train_and_score(
    config: Config,
    store: data.Store,
    folder: pathlib.Path,
    budgets: Budgets,
    score: Callable[[pathlib.Path], Scores],
) -> dict[str, Scores]:
    """Train until both budgets are used up, and score the model when each is.

    Args:
      config: configuration; its `train_steps` is not used.
      store: training and validation rows.
      folder: folder of this training.
      budgets: when to score.
      score: scores the latest checkpoint of a run folder.

    Returns:
      for each budget the scores, with the `step`, `examples` and `seconds` of the point.

    Raises:
      InputError: the folder holds another training, or the parameters no longer change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batch_size = config.train.batch_size
    path = folder / "points.json"
    points: dict[str, Scores] = json.loads(path.read_text()) if path.is_file() else {}
    while True:
        for budget, point in points.items():
            if not (folder / f"{budget}.json").is_file():
                write_json(folder / f"{budget}.json", score(folder / "run") | point)
        if len(points) == 2:
            break
        steps = _FOREVER if EXAMPLES in points else -(-budgets.examples // batch_size)
        limit = float("inf") if MINUTES in points else 60 * budgets.minutes
        outcome, seconds = _train(config.replace(train_steps=steps), store, folder, limit)
        if outcome.cause:
            raise InputError(f"{folder}: {outcome.cause}")
        point = {
            "step": outcome.step,
            "examples": outcome.step * batch_size,
            "seconds": seconds,
        }
        if seconds >= limit:
            points[MINUTES] = point
        if outcome.step == steps:
            points[EXAMPLES] = point
        write_json(path, points)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in BUDGETS}


def is_done(folder: pathlib.Path) -> bool:
    """Tell whether a training has all its scores."""
    return all((folder / f"{name}.json").is_file() for name in BUDGETS)


def _train(
    config: Config, store: data.Store, folder: pathlib.Path, limit: float
) -> tuple[loop.Outcome, float]:
    """Train up to a number of steps or seconds; return the outcome and the seconds in all."""
    run_dir = run_folder.open_run_folder(folder / "run", config, store)
    clock = Clock(run_dir, config.run.train_steps, folder / "clock.json", limit)
    try:
        outcome = loop.fit(config, store, str(run_dir), clock, should_stop=clock.is_over)
        return outcome, clock.seconds
    finally:
        clock.close()


def _machine_seconds() -> float:
    """Return the processor time of this process, divided by the number of cores."""
    return time.process_time() / len(os.sched_getaffinity(0))


def _say(line: str) -> None:
    """Print progress to standard error."""
    print(f"  {line}", file=sys.stderr, flush=True)

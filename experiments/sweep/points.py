"""The points of a sweep on disk: run folder, outcome and scores of each."""

from __future__ import annotations

import json
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from experiments.cli.json_files import write_json
from experiments.cli.progress import Recorder, duration
from experiments.sweep.axes import GridPoint
from musicvae_jax import data, evaluation
from musicvae_jax.config import Config
from musicvae_jax.storage import checkpoints, run_folder
from musicvae_jax.sweep.program import program_key
from musicvae_jax.training import callbacks, loop

POINTS, END, SCORES, LOG = "points", "end.json", "scores.json", "log.txt"
# Seconds between two lines about a group.
_LINE_SECONDS = 5.0


class Task(NamedTuple):
    """A point and its run folder."""

    point: GridPoint
    folder: pathlib.Path

    @property
    def config(self) -> Config:
        """Return the point's configuration."""
        return self.point.config


def open_folders(
    grid_dir: pathlib.Path, points: Sequence[GridPoint], store: data.Store
) -> list[Task]:
    """Make the points' run folders, or check that they are those of these points.

    Raises:
      InputError: a folder is of another configuration or of other data.
    """
    return [
        Task(point, run_folder.open_run_folder(grid_dir / POINTS / point.name, point.config, store))
        for point in points
    ]


def write_end(folder: pathlib.Path, config: Config, outcome: loop.Outcome) -> None:
    """Write down how a point ended, unless more of its steps are left."""
    if outcome.stopped and not outcome.diverged:
        return
    end = "finished"
    if outcome.exhausted:
        end = "stopped early"
    if outcome.diverged:
        end = "diverged"
    about = {"end": end, "step": outcome.step} | _limits(config)
    write_json(folder / END, about)


def _limits(config: Config) -> dict[str, Any]:
    """Return what decides how far a run goes."""
    run = config.run
    names = ("train_steps", "stop_patience", "stop_metric", "stop_min_delta")
    return {name: getattr(run, name) for name in names}


def ended(task: Task) -> dict[str, Any] | None:
    """Return how a point ended, None if it has to be trained (further)."""
    path = task.folder / END
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    limits = _limits(task.config)
    return found if limits == {name: found.get(name) for name in limits} else None


def groups_of(tasks: Iterable[Task]) -> list[list[Task]]:
    """Put together the points that one program can train: those that differ in numbers."""
    found: dict[Any, list[Task]] = {}
    for task in tasks:
        found.setdefault(program_key(task.config), []).append(task)
    return list(found.values())


class Board:
    """What is said about the points of a group that train side by side: one line for all."""

    def __init__(self, points: int, total: int, say: Callable[[str], None]) -> None:
        self._points, self._total, self._say = points, total, say
        self._losses: dict[str, float] = {}
        self._printed = -math.inf

    def heard(self, name: str, progress: callbacks.Progress) -> None:
        """Print a line when the first of the points tells, not too often."""
        first = next(iter(self._losses), name)
        now = time.monotonic()
        due = now - self._printed >= _LINE_SECONDS or progress.step == self._total
        if name == first and due and self._losses:
            self._printed = now
            finite = {k: v for k, v in self._losses.items() if math.isfinite(v)}
            best = min(finite, key=lambda k: finite[k]) if finite else "none"
            self._say(
                f"step {progress.step:>7,}/{self._total:,}  {self._points} points  "
                f"lowest loss {finite.get(best, math.nan):.3f} ({best})  "
                f"{progress.examples_per_second:,.0f} examples/s each  "
                f"left {duration(progress.seconds_left)}"
            )
        self._losses[name] = progress.figures["loss"]


class PointRecorder(Recorder):
    """Keeps what a single run keeps; what a single run prints goes to the folder's log."""

    def __init__(self, task: Task, board: Board | None) -> None:
        self._log = (task.folder / LOG).open("a", buffering=1)
        super().__init__(task.folder, task.config.run.train_steps, self._write)
        self._name, self._board = task.point.name, board

    def _write(self, message: str) -> None:
        self._log.write(message + "\n")

    def close(self) -> None:
        """Finish the files."""
        super().close()
        self._log.close()

    def started(self, summary: callbacks.Summary) -> None:
        """Open the files; again, where points that were behind have caught up."""
        super().close()
        super().started(summary)

    def trained(self, progress: callbacks.Progress) -> None:
        """Keep it, and tell the board."""
        super().trained(progress)
        if self._board:
            self._board.heard(self._name, progress)


class Scoring(NamedTuple):
    """How points are scored.

    Attributes:
      split: whose rows.
      examples: at most so many rows, spread over the split; 0 for all.
      draws: how often each row is sampled.
    """

    split: str
    examples: int
    draws: int


def score(
    tasks: Sequence[Task], store: data.Store, scoring: Scoring, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Score the best checkpoint of each point that ended well; what is scored already is kept.

    Returns:
      the scores by the point's name; none for a point that diverged.
    """
    rows = store.splits[scoring.split]
    rows = rows[data.spread_rows(len(rows), scoring.examples)]
    found: dict[str, dict[str, Any]] = {}
    for group in groups_of(tasks):
        evaluator: evaluation.Evaluator | None = None
        for task in group:
            end = ended(task)
            if end is None or end["end"] == "diverged":
                continue
            about = scoring._asdict() | {"data": store.fingerprint, "last_step": end["step"]}
            scores = _kept(task.folder / SCORES, about)
            if scores is None:
                config, params, step = checkpoints.restore_params(task.folder, "best")
                if evaluator is None:
                    evaluator = evaluation.Evaluator(config, rows, draws=scoring.draws)
                scores = about | {"step": step} | _figures(evaluator(params))
                write_json(task.folder / SCORES, scores)
                say(f"scored {task.point.name}")
            found[task.point.name] = scores
    return found


def _kept(path: pathlib.Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Read scores that were made in the same way, if there are any."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found if about.items() <= found.items() else None


def _figures(found: evaluation.Evaluation) -> dict[str, Any]:
    """Return the figures that a grid compares, over all tracks."""
    return {
        "rows": found.examples,
        "sampled_accuracy": found.sampled["accuracy"]["overall"],
        "sampled_error": found.sampled_error["accuracy"]["overall"],
        "teacher_forced_accuracy": found.teacher_forced["accuracy"]["overall"],
        "greedy_accuracy": found.greedy["accuracy"]["overall"],
        "kl_bits": found.kl_bits,
        "elbo_nats": found.elbo_nats,
        "distortion_nats": -found.elbo_nats - found.kl_bits * math.log(2.0),
        "active_units": found.active_units,
        "z_size": found.z_size,
    }

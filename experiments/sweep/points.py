"""The points of a sweep on disk: run folder, outcome and scores of each point."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from experiments.cli.json_files import write_json
from experiments.cli.progress import Recorder, duration
from experiments.sweep.axes import Point
from experiments.sweep.measures import Scoring, measures_of
from musicvae_jax import data
from musicvae_jax.config import Config
from musicvae_jax.storage import checkpoints, run_folder
from musicvae_jax.sweep.program import program_key
from musicvae_jax.training import callbacks, loop

POINTS, END, SCORES, LOG = "points", "end.json", "scores.json", "log.txt"
# How a point ended whose steps changed no parameter.
STOOD_STILL = "stood still"


class PointRun(NamedTuple):
    """A point and its run folder."""

    point: Point
    folder: pathlib.Path

    @property
    def config(self) -> Config:
        """The point's configuration."""
        return self.point.config


def open_folders(
    folder: pathlib.Path, points: Sequence[Point], store: data.Store
) -> list[PointRun]:
    """Create the points' run folders, or check that existing ones belong to these points.

    Raises:
      InputError: a folder belongs to another configuration or other data.
    """
    return [
        PointRun(
            point, run_folder.open_run_folder(folder / POINTS / point.name, point.config, store)
        )
        for point in points
    ]


def write_end(folder: pathlib.Path, config: Config, outcome: loop.Outcome) -> None:
    """Record how a point ended, unless steps are left."""
    if outcome.stopped and not outcome.cause:
        return
    end = "finished"
    if outcome.exhausted:
        end = "stopped early"
    if outcome.cause:
        end = STOOD_STILL
    about = {"end": end, "step": outcome.step, "cause": outcome.cause} | _limits(config)
    write_json(folder / END, about)


def _limits(config: Config) -> dict[str, Any]:
    """Return the settings that decide when a run ends."""
    run = config.run
    names = ("train_steps", "stop_patience", "stop_metric", "stop_min_delta")
    return {name: getattr(run, name) for name in names}


def ended(task: PointRun) -> dict[str, Any] | None:
    """Return how a point ended, None if steps are left."""
    path = task.folder / END
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    if found["end"] == "diverged":  # the name that earlier versions wrote
        found["end"] = STOOD_STILL
    limits = _limits(task.config)
    return found if limits == {name: found.get(name) for name in limits} else None


def groups_of(tasks: Iterable[PointRun]) -> list[list[PointRun]]:
    """Group the points that one program can train: those that differ only in numbers."""
    found: dict[Any, list[PointRun]] = {}
    for task in tasks:
        found.setdefault(program_key(task.config), []).append(task)
    return list(found.values())


class GroupProgress:
    """Progress of the points that train together: one line per record, for all of them."""

    def __init__(self, train_steps: int, say: Callable[[str], None]) -> None:
        self._train_steps, self._say = train_steps, say
        self._active: set[str] = set()
        self._reports: dict[str, callbacks.Progress] = {}
        self._training = False

    def started(self, name: str) -> None:
        """Count a point among those that report."""
        if self._training:  # another round begins, perhaps with other points
            self.flush()
            self._active, self._training = set(), False
        self._active.add(name)

    def trained(self, name: str, progress: callbacks.Progress) -> None:
        """Print a line once every active point has reported a step."""
        self._training = True
        if any(report.step != progress.step for report in self._reports.values()):
            # Points that did not report have ended.
            self._active = set(self._reports)
            self.flush()
        self._reports[name] = progress
        if not progress.is_record or self._active <= self._reports.keys():
            self.flush()

    def flush(self) -> None:
        """Print what has been reported and not been printed yet."""
        if not self._reports:
            return
        losses = {name: report.figures["loss"] for name, report in self._reports.items()}
        finite = {name: loss for name, loss in losses.items() if math.isfinite(loss)}
        best = min(finite, key=lambda name: finite[name]) if finite else "none"
        last = next(iter(self._reports.values()))
        self._say(
            f"step {last.step:>7,}/{self._train_steps:,}  {len(self._active)} points  "
            f"lowest loss {finite.get(best, math.nan):.3f} ({best})  "
            f"{last.examples_per_second:,.0f} examples/s each  left {duration(last.seconds_left)}"
        )
        self._reports = {}


class PointRecorder(Recorder):
    """Recorder of a point: its lines go to the log in the point's folder."""

    def __init__(self, task: PointRun, group: GroupProgress | None) -> None:
        self._log = (task.folder / LOG).open("a", buffering=1)
        super().__init__(task.folder, task.config.run.train_steps, self._write)
        self._name, self._group = task.point.name, group

    def _write(self, message: str) -> None:
        self._log.write(message + "\n")

    def close(self) -> None:
        """Close the files."""
        super().close()
        self._log.close()
        if self._group:
            self._group.flush()

    def started(self, summary: callbacks.Summary) -> None:
        """Open the files; called again when points that were behind have caught up."""
        super().close()
        super().started(summary)
        if self._group:
            self._group.started(self._name)

    def trained(self, progress: callbacks.Progress) -> None:
        """Write the progress and pass it on."""
        super().trained(progress)
        if self._group:
            self._group.trained(self._name, progress)


def score(
    tasks: Sequence[PointRun], store: data.Store, scoring: Scoring, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Score the best checkpoint of each point that has ended; earlier scores are reused.

    Returns:
      Scores by point name, without points that stood still.
    """
    rows = store.splits[scoring.split]
    rows = rows[data.spread_rows(len(rows), scoring.examples)]
    found: dict[str, dict[str, Any]] = {}
    for group in groups_of(tasks):
        evaluator: Callable[[Any], dict[str, Any]] | None = None
        for task in group:
            end = ended(task)
            if end is None or end["end"] == STOOD_STILL:
                continue
            about = scoring._asdict() | {"data": store.fingerprint, "last_step": end["step"]}
            scores = _kept(task.folder / SCORES, about)
            if scores is None:
                config, params, step = checkpoints.restore_params(task.folder, "best")
                if evaluator is None:
                    evaluator = measures_of(config).evaluator(config, rows, scoring)
                scores = about | {"step": step} | evaluator(params)
                write_json(task.folder / SCORES, scores)
                say(f"scored {task.point.name}")
            found[task.point.name] = scores
    return found


def _kept(path: pathlib.Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Read earlier scores; None if they were computed in another way."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found if about.items() <= found.items() else None

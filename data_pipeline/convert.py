"""One unit of music to rows for several tasks: the work of a child process."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipeline import extract, notes
from data_pipeline.notes import ReadError


@dataclasses.dataclass(frozen=True)
class Job:
    """A file, or one tune of a tunebook, and what is wanted of it.

    Attributes:
      name: its name; the ending decides the reader where the content does not.
      data: its bytes.
      tasks: keys of `TASKS`.
      meter: "4/4" or "any".
    """

    name: str
    data: bytes
    tasks: tuple[str, ...]
    meter: str


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a job gave.

    Attributes:
      rows: for each task [N, *row_shape]; empty when the file could not be read.
      why_empty: for each task without rows, the reason.
      pieces_dropped: for each task, parts of the unit without rows, by reason.
      reason: why the file could not be read, else None.
      detail: what exactly was wrong.
    """

    rows: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    why_empty: dict[str, str] = dataclasses.field(default_factory=dict)
    pieces_dropped: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    reason: str | None = None
    detail: str = ""


def convert(job: Job) -> Converted:
    """Read a unit once and extract the rows of all its tasks."""
    try:
        units = notes.read_pieces(job.name, job.data)
        sequences = [unit.sequence for unit in units if unit.sequence is not None]
        if not sequences:
            raise next(unit.error for unit in units if unit.error is not None)
    except ReadError as error:
        return Converted(reason=error.reason, detail=error.detail)
    parts = [extract.extract_tasks(s, job.tasks, meter=job.meter) for s in sequences]
    rows = {task: np.concatenate([part[task].rows for part in parts]) for task in job.tasks}
    why_empty = {task: str(parts[0][task].why_empty) for task in job.tasks if not len(rows[task])}
    dropped: dict[str, dict[str, int]] = {task: {} for task in job.tasks}
    for part in parts:
        for task, counts in dropped.items():
            for reason, count in part[task].reasons.items():
                counts[reason] = counts.get(reason, 0) + count
    return Converted(rows, why_empty, {task: c for task, c in dropped.items() if c})

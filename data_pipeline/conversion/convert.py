"""One unit of music to rows for several tasks: the work of a child process."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipeline.conversion.manifest import Facts
from data_pipeline.extraction import engines
from data_pipeline.reading.notes import ReadError
from data_pipeline.selection.songs import song_hashes
from musicvae_jax.tasks import TASKS, all_and

SONGS = "songs"  # beside tasks as a kind of row


@dataclasses.dataclass(frozen=True)
class Job:
    """A file, or one tune of a tunebook, and the tasks to extract rows for.

    Attributes:
      name: its name; the ending decides the reader where the content does not.
      data: its bytes.
      tasks: keys of `TASKS`.
      meter: "4/4" or "any".
      engine: "fast" or "note_seq".
      programs: General MIDI programs of melodies, as 0-31,40 or "any"; None for each task's own.
    """

    name: str
    data: bytes
    tasks: tuple[str, ...]
    meter: str
    engine: str = engines.FAST
    programs: str | None = None


@dataclasses.dataclass(kw_only=True)
class Converted(Facts):
    """The result of a job.

    Attributes:
      rows: for each task [N, *row_shape], and under `SONGS` the hashes that tell songs apart,
        whatever the tasks; empty when the file could not be read.
    """

    rows: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def convert(job: Job) -> Converted:
    """Read a unit once and extract the rows of all its tasks."""
    names = all_and(job.tasks)
    try:
        # Also tasks that are not wanted: together they decide which files are one song.
        found = engines.extract_file(
            job.name,
            job.data,
            names,
            meter=job.meter,
            engine=job.engine,
            programs=job.programs,
        )
    except ReadError as error:
        refusal = getattr(error, "fast_refusal", None)
        engine = engines.NOTE_SEQ
        return Converted(
            reason=error.reason, detail=error.detail, engine=engine, fast_refusal=refusal
        )
    parts = found.parts
    rows = {task: np.concatenate([part[task].rows for part in parts]) for task in names}
    why_empty = {task: str(parts[0][task].why_empty) for task in job.tasks if not len(rows[task])}
    dropped: dict[str, dict[str, int]] = {task: {} for task in job.tasks}
    for part in parts:
        for task, counts in dropped.items():
            for reason, count in part[task].reasons.items():
                counts[reason] = counts.get(reason, 0) + count
    return Converted(
        rows={task: rows[task] for task in job.tasks} | {SONGS: song_hashes(rows)},
        tasks_with_rows=[task for task in names if len(rows[task])],
        why_empty=why_empty,
        pieces_dropped={task: counts for task, counts in dropped.items() if counts},
        engine=found.engine,
        fast_refusal=found.fast_refusal,
    )


def warm_up() -> None:
    """Compile what a job may run, or load it: no job's time."""
    # Loaded here: it takes a second.
    from data_pipeline.fast import rows as fast_rows

    fast_rows.warm_up()
    song_hashes({name: np.ones((1, *t.row_shape), t.token_dtype) for name, t in TASKS.items()})

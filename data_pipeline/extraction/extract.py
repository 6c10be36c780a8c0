"""From one unit of music to rows of tokens, and why anything was dropped.

Readers meet here: `tasks_from_notes` takes plain arrays and is pure; the functions above a
NoteSequence or a file only bring theirs into that form.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.codecs import drums, melody, trio
from data_pipeline.reading import notes
from data_pipeline.reading.segments import NoteArrays, Segment, split_segments
from musicvae_jax.tasks import Task, get_task

if TYPE_CHECKING:
    from note_seq import NoteSequence

NO_NOTES = "no notes"
TOO_SHORT = "too short"


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What one unit of music gave for one task.

    Attributes:
      rows: [N, *task.row_shape] of the task's token dtype, in order of time.
      reasons: pieces that gave no row, counted by reason.
      why_empty: the reason of the piece with the most notes if N is 0, else None.
      rows_before_dedupe: N before duplicates within a piece were removed.
    """

    rows: np.ndarray
    reasons: dict[str, int]
    why_empty: str | None
    rows_before_dedupe: int


def tasks_from_notes(
    unit: NoteArrays, task_names: Iterable[str], *, meter: str = "4/4", dedupe: bool = True
) -> dict[str, Extraction]:
    """Extract the rows of several tasks; the unit is split and quantised once.

    Args:
      unit: notes in seconds, tempo and meter changes, from any reader.
      task_names: keys of `TASKS`.
      meter: "4/4" as the reference; "any" ignores time signatures.
      dedupe: remove duplicates within a piece, as the reference does (never for trios).

    Raises:
      InputError: unknown task or meter.
    """
    segments = split_segments(unit, meter)
    return {name: _extract(segments, get_task(name), dedupe) for name in task_names}


def rows_from_notes(
    unit: NoteArrays, task_name: str, *, meter: str = "4/4", dedupe: bool = True
) -> Extraction:
    """Extract the rows of one task; see `tasks_from_notes`."""
    return tasks_from_notes(unit, [task_name], meter=meter, dedupe=dedupe)[task_name]


def extract_tasks(
    sequence: NoteSequence, task_names: Iterable[str], *, meter: str = "4/4", dedupe: bool = True
) -> dict[str, Extraction]:
    """Extract the rows of several tasks from a NoteSequence; see `tasks_from_notes`."""
    unit = notes.notes_from_sequence(sequence)
    return tasks_from_notes(unit, task_names, meter=meter, dedupe=dedupe)


def extract_sequence(
    sequence: NoteSequence, task_name: str, *, meter: str = "4/4", dedupe: bool = True
) -> Extraction:
    """Extract the rows of one task from a NoteSequence; see `tasks_from_notes`."""
    return extract_tasks(sequence, [task_name], meter=meter, dedupe=dedupe)[task_name]


def extract_rows(
    path_or_bytes: str | os.PathLike[str] | bytes,
    task: str,
    *,
    meter: str = "4/4",
    engine: str = "fast",
) -> np.ndarray:
    """Extract the rows of one file, every tune of a tunebook, as the reference would.

    Args:
      path_or_bytes: a file's path or its content: MIDI, KAR, MusicXML, MXL or ABC.
      task: key of `TASKS`.
      meter: "4/4" as the reference; "any" ignores time signatures.
      engine: "fast", or "note_seq" for the reference's path; both give the same rows.

    Returns:
      Tokens [N, T] or [N, T, 3] of the task's token dtype. All windows, no limit per file;
      duplicates are removed within a piece only.

    Raises:
      InputError: unknown task, meter or engine; ReadError (an InputError): the file, or
        every tune of it, cannot be read.
    """
    from data_pipeline.extraction import engines  # the engines build on this module

    if isinstance(path_or_bytes, bytes):
        name, data = "input", path_or_bytes
    else:
        name, data = os.fspath(path_or_bytes), pathlib.Path(path_or_bytes).read_bytes()
    made = engines.extract_file(name, data, [task], meter=meter, engine=engine)
    return np.concatenate([_no_rows(get_task(task)), *(part[task].rows for part in made.parts)])


def _extract(segments: list[Segment], task: Task, dedupe: bool) -> Extraction:
    """Encode all pieces of a unit and count the reasons of those without rows."""
    kept, reasons = [_no_rows(task)], collections.Counter[str]()
    why_empty, most_notes, found = NO_NOTES, 0, 0
    for segment in segments:
        rows = _encode(segment, task)
        if isinstance(rows, str):
            reasons[rows] += 1
            if len(segment.notes) > most_notes:
                why_empty, most_notes = rows, len(segment.notes)
            continue
        found += len(rows)
        kept.append(_unique(rows) if dedupe and len(task.tracks) == 1 else rows)
    if not segments:
        reasons[NO_NOTES] += 1
    rows = np.concatenate(kept)
    return Extraction(rows, dict(reasons), None if len(rows) else why_empty, found)


def _encode(segment: Segment, task: Task) -> np.ndarray | str:
    """Encode one piece, or say why it gives no row."""
    if segment.reason is not None:
        return segment.reason
    if not len(segment.notes):
        return NO_NOTES
    first = task.tracks[0]
    if len(task.tracks) == 3:
        rows = trio.encode(segment, task.num_steps, first.programs, task.tracks[1].programs)
    elif first.kind == "drums":
        rows = drums.encode(segment, task.num_steps)
    else:
        rows = melody.encode(segment, task.num_steps, first.programs)
    if not isinstance(rows, str) and not len(rows):
        return TOO_SHORT
    return rows


def _no_rows(task: Task) -> np.ndarray:
    """Return zero rows of a task's shape and type."""
    return np.zeros((0, *task.row_shape), task.token_dtype)


def _unique(rows: np.ndarray) -> np.ndarray:
    """Keep the first of equal rows, in order, [N, T]."""
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    _, first = np.unique(keys[:, 0], return_index=True)
    return rows[np.sort(first)]

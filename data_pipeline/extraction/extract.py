"""One unit of music, read by note-seq, to rows of tokens, and why anything was dropped.

`tasks_from_notes` takes plain arrays from any reader; the functions of a NoteSequence only convert
it to that form.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.codecs.codec import cutter_of
from data_pipeline.codecs.pieces import Piece, piece_of
from data_pipeline.reading import notes
from data_pipeline.reading.extraction import NO_NOTES, Extraction
from data_pipeline.reading.programs import tasks_with
from data_pipeline.reading.segments import NoteArrays
from musicvae_jax.tasks import Task

if TYPE_CHECKING:
    from note_seq import NoteSequence


def tasks_from_notes(
    unit: NoteArrays,
    task_names: Iterable[str],
    *,
    meter: str = "4/4",
    dedupe: bool = True,
    programs: str | None = None,
) -> dict[str, Extraction]:
    """Extract the rows of several tasks; the unit is split and quantised once.

    Args:
      unit: notes in seconds, tempo and meter changes, from any reader.
      task_names: keys of `TASKS`.
      meter: "4/4" as the reference; "any" ignores time signatures. Piano rolls follow them.
      dedupe: remove duplicates within a segment, as the reference does (never for trios).
      programs: General MIDI programs of melodies, as 0-31,40 or "any"; None for each task's own.

    Raises:
      InputError: unknown task, meter or programs.
    """
    piece = piece_of(unit, meter)
    return {task.name: _extract(piece, task, dedupe) for task in tasks_with(task_names, programs)}


def rows_from_notes(
    unit: NoteArrays, task_name: str, *, meter: str = "4/4", dedupe: bool = True
) -> Extraction:
    """Extract the rows of one task; see `tasks_from_notes`."""
    return tasks_from_notes(unit, [task_name], meter=meter, dedupe=dedupe)[task_name]


def extract_tasks(
    sequence: NoteSequence,
    task_names: Iterable[str],
    *,
    meter: str = "4/4",
    dedupe: bool = True,
    programs: str | None = None,
) -> dict[str, Extraction]:
    """Extract the rows of several tasks from a NoteSequence; see `tasks_from_notes`."""
    unit = notes.notes_from_sequence(sequence)
    return tasks_from_notes(unit, task_names, meter=meter, dedupe=dedupe, programs=programs)


def _extract(piece: Piece, task: Task, dedupe: bool) -> Extraction:
    """Cut a unit into rows, and count the reasons of what gives none."""
    kept, bars = [no_rows(task)], [np.zeros(0, np.int64)]
    reasons = collections.Counter[str]()
    why_empty, most_notes, num_found = NO_NOTES, 0, 0
    parts = cutter_of(task).parts(piece, task)
    for part in parts:
        reasons.update(part.left_out)
        if part.found is None:
            if part.num_notes > most_notes:
                why_empty = max(part.left_out, key=lambda reason: part.left_out[reason])
                most_notes = part.num_notes
            continue
        rows = part.found.rows
        num_found += len(rows)
        index = _unique(rows) if dedupe and len(task.tracks) == 1 else np.arange(len(rows))
        kept.append(rows[index])
        bars.append(part.found.bars[index])
    if not parts:
        reasons[NO_NOTES] += 1
    rows = np.concatenate(kept)
    why = None if len(rows) else why_empty
    return Extraction(rows, np.concatenate(bars), dict(reasons), why, num_found)


def no_rows(task: Task) -> np.ndarray:
    """Return zero rows of a task's shape and type."""
    return np.zeros((0, *task.row_shape), task.token_dtype)


def _unique(rows: np.ndarray) -> np.ndarray:
    """Return the indices of the first of equal rows [N, T], in order."""
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    _, first = np.unique(keys[:, 0], return_index=True)
    return np.sort(first)

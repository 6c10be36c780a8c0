"""One unit of music, read by note-seq, to rows of tokens, and why anything was dropped.

`tasks_from_notes` takes plain arrays from any reader; the functions of a NoteSequence only convert
it to that form.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.codecs import piano_roll
from data_pipeline.codecs.codec import encode
from data_pipeline.codecs.windows import Encoded
from data_pipeline.reading import notes
from data_pipeline.reading.extraction import NO_NOTES, TOO_SHORT, Extraction
from data_pipeline.reading.programs import tasks_with
from data_pipeline.reading.segments import NoteArrays, Segment, split_segments
from musicvae_jax.tasks import RollTask, Task

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
    segments = split_segments(unit, meter)
    return {
        task.name: _extract_roll(unit, task, dedupe)
        if isinstance(task, RollTask)
        else _extract(segments, task, dedupe)
        for task in tasks_with(task_names, programs)
    }


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


def _extract(segments: list[Segment], task: Task, dedupe: bool) -> Extraction:
    """Encode the segments of a unit and count the reasons of those without rows."""
    kept, bars = [no_rows(task)], [np.zeros(0, np.int64)]
    reasons = collections.Counter[str]()
    why_empty, most_notes, found = NO_NOTES, 0, 0
    for segment in segments:
        encoded = _encode(segment, task)
        if isinstance(encoded, str):
            reasons[encoded] += 1
            if len(segment.notes) > most_notes:
                why_empty, most_notes = encoded, len(segment.notes)
            continue
        rows = encoded.rows
        found += len(rows)
        index = _unique(rows) if dedupe and len(task.tracks) == 1 else np.arange(len(rows))
        kept.append(rows[index])
        bars.append(encoded.bars[index])
    if not segments:
        reasons[NO_NOTES] += 1
    rows = np.concatenate(kept)
    why = None if len(rows) else why_empty
    return Extraction(rows, np.concatenate(bars), dict(reasons), why, found)


def _extract_roll(unit: NoteArrays, task: RollTask, dedupe: bool) -> Extraction:
    """Cut a unit as a whole into piano rolls, and count the windows left out."""
    found = piano_roll.windows_of(unit, task) if len(unit.notes) else NO_NOTES
    if isinstance(found, str):
        return Extraction(no_rows(task), np.zeros(0, np.int64), {found: 1}, found, 0)
    index = _unique(found.rows) if dedupe else np.arange(len(found.rows))
    why = None
    reasons = found.reasons
    if not len(index):
        why = max(reasons, key=lambda reason: reasons[reason]) if reasons else TOO_SHORT
        reasons = reasons or {TOO_SHORT: 1}
    return Extraction(found.rows[index], found.bars[index], reasons, why, len(found.rows))


def _encode(segment: Segment, task: Task) -> Encoded | str:
    """Return the rows of one segment, or the reason why it has none."""
    if segment.reason is not None:
        return segment.reason
    if not len(segment.notes):
        return NO_NOTES
    found = encode(segment, task)
    if isinstance(found, str):
        return found
    return found if len(found.rows) else TOO_SHORT


def no_rows(task: Task) -> np.ndarray:
    """Return zero rows of a task's shape and type."""
    return np.zeros((0, *task.row_shape), task.token_dtype)


def _unique(rows: np.ndarray) -> np.ndarray:
    """Return the indices of the first of equal rows [N, T], in order."""
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    _, first = np.unique(keys[:, 0], return_index=True)
    return np.sort(first)

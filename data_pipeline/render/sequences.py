"""Rows of tokens to notes in steps, and to NoteSequences.

Reference: magenta/models/music_vae/data.py (from_tensors): velocity 80, 120 quarters per
minute, melody on program 0, bass on program 33, drums one step long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from data_pipeline.codecs.codec import decode, has_lengths
from data_pipeline.reading.notes import import_note_seq
from data_pipeline.reading.segments import DEFAULT_QPM, STEP_DTYPE
from musicvae_jax.config import InputError
from musicvae_jax.tasks import get_task
from musicvae_jax.tokens import check_row

if TYPE_CHECKING:
    from note_seq import NoteSequence

Rows = np.ndarray | Sequence[np.ndarray]  # one row, or several, whose lengths may differ

VELOCITY = 80
TICKS_PER_QUARTER = 220


class Playback(TypedDict, total=False):
    """Keywords of `concatenate` that functions pass on to it."""

    qpm: float
    program: int | None
    rest_bars: int


class Layout(NamedTuple):
    """Notes of rows in sequence.

    Attributes:
      notes: of all rows, of STEP_DTYPE, in steps from the start.
      num_steps: whole bars, up to the end of the last row.
      origins: first step of each row.
      steps_per_quarter: of a bar of 4/4.
    """

    notes: np.ndarray
    num_steps: int
    origins: tuple[int, ...]
    steps_per_quarter: int


def row_to_sequence(
    row: np.ndarray, task_name: str, *, qpm: float = DEFAULT_QPM, program: int | None = None
) -> NoteSequence:
    """Turn one row, tokens [T] or [T, K], into a NoteSequence; errors as in `concatenate`."""
    return concatenate([row], task_name, qpm=qpm, program=program)


def concatenate(
    rows: Rows,
    task_name: str,
    *,
    rest_bars: int = 1,
    qpm: float = DEFAULT_QPM,
    program: int | None = None,
    held: bool = True,
) -> NoteSequence:
    """Turn one row, or several with bars of rest between them, into a NoteSequence.

    Args:
      rows: see `lay_out_rows`.
      task_name: key of `TASKS`.
      rest_bars: bars of silence between two rows.
      qpm: quarters per minute.
      program: General MIDI program of the melody; None takes 0.
      held: see `lay_out_rows`.

    Raises:
      InputError: a row does not fit the task, or `qpm` or `program` is out of range.
    """
    check_sound(qpm, program)
    layout = lay_out_rows(rows, task_name, rest_bars=rest_bars, program=program, held=held)
    sequence = import_note_seq().NoteSequence(ticks_per_quarter=TICKS_PER_QUARTER)
    sequence.tempos.add(qpm=qpm)
    _add_notes(sequence, layout.notes, 60.0 / qpm / layout.steps_per_quarter)
    return sequence


def lay_out_rows(
    rows: Rows,
    task_name: str,
    *,
    rest_bars: int = 1,
    program: int | None = None,
    held: bool = True,
) -> Layout:
    """Read the notes of rows in sequence, with bars of rest between them.

    Args:
      rows: one row, or a list or array of rows; lengths may differ.
      task_name: key of `TASKS`.
      rest_bars: bars of silence between two rows.
      program: General MIDI program of the melody; None takes 0.
      held: notes of piano rolls, which have no length, last to the next start; otherwise a tick.

    Raises:
      InputError: a row does not fit the task.
    """
    task = get_task(task_name)
    size = task.steps_per_bar
    if isinstance(rows, np.ndarray) and rows.ndim == len(task.row_shape):
        rows = rows[None]
    parts = [np.zeros(0, STEP_DTYPE)]
    origins: list[int] = []
    end = 0
    for row in rows:
        origins.append(end + rest_bars * size if origins else 0)
        notes = decode(check_row(row, task), task, program=program or 0)
        if not (held or has_lengths(task)):
            notes["end_step"] = notes["start_step"] + 1
        notes["start_step"] += origins[-1]
        notes["end_step"] += origins[-1]
        parts.append(notes)
        end = origins[-1] + -(-task.length(len(row)) // size) * size
    return Layout(np.concatenate(parts), end, tuple(origins), size // 4)


def check_sound(qpm: float, program: int | None) -> None:
    """Check that a MIDI file can hold this tempo and program.

    Raises:
      InputError: `qpm` (quarters per minute) or `program` (General MIDI) is out of range.
    """
    if not 1.0 <= qpm <= 1000.0:
        raise InputError(f"qpm: {qpm!r} is out of range, it must be from 1 to 1000")
    if program is not None and not 0 <= program <= 127:
        raise InputError(f"program: {program!r} is out of range, it must be from 0 to 127")


def _add_notes(sequence: NoteSequence, notes: np.ndarray, seconds_per_step: float) -> None:
    """Append notes in steps to a NoteSequence."""
    for note in notes:
        sequence.notes.add(
            start_time=int(note["start_step"]) * seconds_per_step,
            end_time=int(note["end_step"]) * seconds_per_step,
            pitch=int(note["pitch"]),
            velocity=VELOCITY,
            program=int(note["program"]),
            instrument=int(note["instrument"]),
            is_drum=bool(note["is_drum"]),
        )
        sequence.total_time = max(sequence.total_time, sequence.notes[-1].end_time)

"""What happens in the steps of a row: onsets, hits, notes, and notes relative to each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from musicvae_jax.tasks import (
    DRUM_CLASSES,
    FIRST_NOTE_ON,
    MAX_PITCH,
    MIN_PITCH,
    NO_EVENT,
    NUM_DRUM_CLASSES,
    Task,
    Track,
)

# Relative events of melodies: 0 no event, 1 note off, 2 a row's first note, and from there on
# the interval from the note before, lowest first.
FIRST_NOTE = 2
INTERVAL_ZERO = FIRST_NOTE + 1 + MAX_PITCH - MIN_PITCH


class Notes(NamedTuple):
    """All notes of N melodies, row by row.

    Attributes:
      row: int64 [M], which row.
      start: int64 [M], step.
      length: int64 [M], steps to the next note, the next note off or the row's end.
      pitch: int64 [M], MIDI pitch.
    """

    row: np.ndarray
    start: np.ndarray
    length: np.ndarray
    pitch: np.ndarray


def columns_of(tokens: np.ndarray, task: Task) -> list[np.ndarray]:
    """Split rows [N, T] or [N, T, K] into their K tracks, int64 [N, T] each."""
    columns = np.asarray(tokens, np.int64).reshape(len(tokens), -1, len(task.tracks))
    return list(np.moveaxis(columns, -1, 0))


def onsets(column: np.ndarray, track: Track) -> np.ndarray:
    """Tell where a note or at least one hit starts, bool [N, T]."""
    return column > NO_EVENT if track.kind == "drums" else column >= FIRST_NOTE_ON


def hits(column: np.ndarray) -> np.ndarray:
    """Tell which drum class is hit where, bool [N, T, 9]."""
    return (column[:, :, None] >> np.arange(NUM_DRUM_CLASSES)[None, None, :] & 1).astype(bool)


def melody_notes(column: np.ndarray) -> Notes:
    """Read the notes of melodies [N, T]."""
    rows, steps = np.nonzero(column != NO_EVENT)
    last = np.append(rows[1:] != rows[:-1], True)[: len(rows)]
    ends = np.where(last, column.shape[1], np.append(steps[1:], 0)[: len(rows)])
    values = column[rows, steps]
    on = values >= FIRST_NOTE_ON
    pitch = values[on] - FIRST_NOTE_ON + MIN_PITCH
    return Notes(rows[on], steps[on], (ends - steps)[on], pitch)


def intervals(notes: Notes) -> tuple[np.ndarray, np.ndarray]:
    """Return the semitones from each note to the next of its row, and their rows: int64 [P]."""
    same = notes.row[1:] == notes.row[:-1]
    return np.diff(notes.pitch)[same], notes.row[1:][same]


def relative_events(tokens: np.ndarray, task: Task) -> np.ndarray:
    """Write rows so that transposed ones are equal: each note as its interval from the last.

    Args:
      tokens: [N, T] or [N, T, K] integer.
      task: names the tracks; each melody track is taken by itself, drums stay as they are.

    Returns:
      uint8 (with drums uint16) [N, T * K]; two rows are equal exactly if every melody track of
      one is that of the other transposed, and their drums are equal.
    """
    parts = [
        column if track.kind == "drums" else _relative(column)
        for column, track in zip(columns_of(tokens, task), task.tracks, strict=True)
    ]
    has_drums = any(track.num_classes == DRUM_CLASSES for track in task.tracks)
    return np.concatenate(parts, axis=1).astype(np.uint16 if has_drums else np.uint8)


def _relative(column: np.ndarray) -> np.ndarray:
    """Write melodies [N, T] relative to their last note."""
    is_note = column >= FIRST_NOTE_ON
    steps = np.arange(column.shape[1])[None, :]
    # The last note at or before each step, then the one before each step; -1 where there is none.
    last = np.maximum.accumulate(np.where(is_note, steps, -1), axis=1)
    before = np.concatenate([np.full((len(column), 1), -1), last[:, :-1]], axis=1)
    previous = np.take_along_axis(column, np.maximum(before, 0), axis=1)
    moved = np.where(before < 0, FIRST_NOTE, column - previous + INTERVAL_ZERO)
    return np.where(is_note, moved, column)

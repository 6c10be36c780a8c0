"""Notes relative to each other: intervals, and rows written without their key."""

from __future__ import annotations

import numpy as np

from musicvae_jax.tasks import FIRST_NOTE_ON, MAX_PITCH, MIN_PITCH, Task
from musicvae_jax.tokens import Notes, columns_of, previous_onset

# Relative events of melodies: 0 no event, 1 note off, 2 a row's first note, and from there on
# the interval from the note before, lowest first.
FIRST_NOTE = 2
INTERVAL_ZERO = FIRST_NOTE + 1 + MAX_PITCH - MIN_PITCH


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
        _relative(column) if track.is_pitched else column
        for column, track in zip(columns_of(tokens, task), task.tracks, strict=True)
    ]
    all_pitched = all(track.is_pitched for track in task.tracks)
    return np.concatenate(parts, axis=1).astype(np.uint8 if all_pitched else np.uint16)


def _relative(column: np.ndarray) -> np.ndarray:
    """Write melodies [N, T] relative to their last note."""
    is_note = column >= FIRST_NOTE_ON
    before = previous_onset(is_note)
    previous = np.take_along_axis(column, np.maximum(before, 0), axis=1)
    moved = np.where(before < 0, FIRST_NOTE, column - previous + INTERVAL_ZERO)
    return np.where(is_note, moved, column)

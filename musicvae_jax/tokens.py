"""What the tokens of a row mean: onsets, notes, drum hits. Pure NumPy.

A melody token is 0 (no event), 1 (note off) or 2 + (pitch - 21) (note on); a note lasts to the
next note, the next note off or the end of its row. A drum token is the sum of 2**class over the
classes hit in that step. An entry of a piano roll is the distance from the note start before it
(`tasks.RollTask`).

N counts rows, T steps, K tracks, M notes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from musicvae_jax.config import InputError
from musicvae_jax.tasks import (
    FIRST_NOTE_ON,
    MIN_PITCH,
    NO_EVENT,
    NUM_DRUM_CLASSES,
    ROLL_PITCHES,
    ROLL_SKIP,
    RollTask,
    Task,
    Track,
)


class Notes(NamedTuple):
    """All notes of N melodies, row by row in order of time.

    Attributes:
      row: int64 [M], index of the row.
      start: int64 [M], step.
      length: int64 [M], steps.
      pitch: int64 [M], MIDI pitch.
    """

    row: np.ndarray
    start: np.ndarray
    length: np.ndarray
    pitch: np.ndarray


def columns_of(tokens: np.ndarray, task: Task) -> list[np.ndarray]:
    """Split rows [N, T] or [N, T, K] into K tracks, int64 [N, T] each."""
    columns = np.asarray(tokens, np.int64)
    return list(np.moveaxis(columns.reshape(*columns.shape[:2], len(task.tracks)), -1, 0))


def check_row(row: np.ndarray, task: Task) -> np.ndarray:
    """Return one row as an array; its length is free.

    Raises:
      InputError: the shape or a token does not fit the task.
    """
    row = np.asarray(row)
    if row.ndim != len(task.row_shape) or row.shape[1:] != task.row_shape[1:] or not len(row):
        expected = ", ".join(["T", *map(str, task.row_shape[1:])])
        raise InputError(f"row: its shape is {row.shape}, {task.name} has rows of [{expected}]")
    if not np.issubdtype(row.dtype, np.integer):
        raise InputError(f"row: its type is {row.dtype}, tokens must be integers")
    if task.is_sound:
        return row  # any sample is allowed
    for track, column in zip(task.tracks, row.reshape(len(row), -1).T, strict=True):
        if column.min() < 0 or column.max() >= track.num_classes:
            raise InputError(
                f"row: {track.name} tokens of {task.name} go from 0 to {track.num_classes - 1}, "
                f"this row has {column.min()}..{column.max()}"
            )
    if isinstance(task, RollTask):
        end = int(_advance(row).sum())
        if end > task.num_cells:
            raise InputError(
                f"row: it ends at cell {end} of {task.num_cells}, {task.name} has none"
            )
    return row


def _advance(entries: np.ndarray) -> np.ndarray:
    """Return the cells by which each entry of piano rolls advances, int64."""
    return np.minimum(entries.astype(np.int64), ROLL_SKIP - 1)


def roll_starts(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read the note starts of piano rolls [N, T]: row and cell of each, int64 [M], in order."""
    cells = np.cumsum(_advance(rows), axis=1) - 1
    index, place = np.nonzero((rows > 0) & (rows < ROLL_SKIP))
    return index, cells[index, place]


def roll_row(cells: np.ndarray, task: RollTask) -> np.ndarray:
    """Write note starts as a row, uint16 [T]; the inverse of `roll_starts`.

    Args:
      cells: int [M], any order; equal ones are one note start.
      task: their task.

    Raises:
      InputError: there are more than a row can hold.
    """
    gaps = np.diff(np.unique(cells), prepend=-1)
    skips = (gaps - 1) // (ROLL_SKIP - 1)
    places = np.arange(len(gaps)) + np.cumsum(skips)
    length = len(gaps) + int(skips.sum())
    if length > task.num_entries:
        raise InputError(f"row: {len(gaps)} note starts, {task.name} holds {task.most_starts}")
    row = np.zeros(task.num_entries, np.uint16)
    row[:length] = ROLL_SKIP
    row[places] = gaps - skips * (ROLL_SKIP - 1)
    return row


def roll_bits(rows: np.ndarray, task: RollTask) -> np.ndarray:
    """Write piano rolls [N, T] as bits: uint64 [N, ticks, 2], the pitches of each tick."""
    index, cells = roll_starts(rows)
    ticks, pitches = np.divmod(cells, ROLL_PITCHES)
    bits = np.zeros((len(rows), task.num_ticks, 2), np.uint64)
    word, bit = np.divmod(pitches, 64)
    np.bitwise_or.at(bits, (index, ticks, word), np.uint64(1) << bit.astype(np.uint64))
    return bits


def events_of(rows: np.ndarray, task: Task) -> list[np.ndarray]:
    """Write rows step by step, as what happens in each step of each track.

    Args:
      rows: [N, T] or [N, T, K].
      task: what they mean.

    Returns:
      K arrays [N, S, W], S the steps of a row: a token, uint16 (W = 1); of piano rolls the pitches
      of notes that start, a bit each, uint64 (W = 2).
    """
    if isinstance(task, RollTask):
        return [roll_bits(rows, task)]
    return [column.astype(np.uint16)[..., None] for column in columns_of(rows, task)]


def pitches(tokens: np.ndarray) -> np.ndarray:
    """Return the MIDI pitch of note-on tokens; other tokens give meaningless numbers."""
    return tokens - FIRST_NOTE_ON + MIN_PITCH


def note_ons(pitches: np.ndarray) -> np.ndarray:
    """Return the note-on tokens of MIDI pitches, int64."""
    return np.asarray(pitches, np.int64) - MIN_PITCH + FIRST_NOTE_ON


def onsets(tokens: np.ndarray, track: Track) -> np.ndarray:
    """Tell where a note or at least one drum hit starts, bool shaped like `tokens`."""
    return tokens >= track.first_onset


def hits(tokens: np.ndarray) -> np.ndarray:
    """Tell which drum class is hit where: [...] -> bool [..., 9]."""
    return (tokens[..., None] >> np.arange(NUM_DRUM_CLASSES) & 1) > 0


def num_notes(tokens: np.ndarray, track: Track) -> np.ndarray:
    """Count the notes that start in each token; a drum token holds up to nine."""
    return onsets(tokens, track).astype(np.int64) if track.is_pitched else np.bitwise_count(tokens)


def melody_notes(tokens: np.ndarray) -> Notes:
    """Read the notes of melodies [N, T]."""
    rows, steps = np.nonzero(tokens != NO_EVENT)
    is_last = np.append(rows[1:] != rows[:-1], True)[: len(rows)]
    ends = np.where(is_last, tokens.shape[1], np.append(steps[1:], 0)[: len(rows)])
    values = tokens[rows, steps].astype(np.int64)
    on = values >= FIRST_NOTE_ON
    return Notes(rows[on], steps[on], (ends - steps)[on], pitches(values[on]))


def previous_onset(starts: np.ndarray) -> np.ndarray:
    """Return the step of the last onset strictly before each step: bool [N, T] -> int64 [N, T].

    Where there is none, -1.
    """
    steps = np.where(starts, np.arange(starts.shape[1])[None, :], -1)
    latest = np.maximum.accumulate(steps, axis=1)
    return np.concatenate([np.full((len(starts), 1), -1), latest[:, :-1]], axis=1)

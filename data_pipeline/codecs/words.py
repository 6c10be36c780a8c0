"""Rows of tokens as text."""

from __future__ import annotations

import numpy as np

from musicvae_jax.tasks import (
    NO_EVENT,
    NOTE_OFF,
    STEPS_PER_BAR,
    Track,
    get_task,
)
from musicvae_jax.tokens import check_row, pitches

_PITCH_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_DRUM_LETTERS = "KSHOLMTCR"  # one per class, in the order of DRUM_CLASS_NAMES


def row_to_text(row: np.ndarray, task_name: str) -> str:
    """Show a row as text: a word per step, bars between "|", a line per track.

    "." is no event and "^" a note off; drums are one letter per class (K kick, S snare,
    H closed hat, O open hat, L low, M mid, T high tom, C crash, R ride).

    Raises:
      InputError: the row does not fit the task.
    """
    task = get_task(task_name)
    columns = check_row(row, task).reshape(len(row), -1).T
    lines = [_track_text(column, track) for column, track in zip(columns, task.tracks, strict=True)]
    if len(lines) == 1:
        return lines[0]
    return "\n".join(f"{t.name:>6}: {line}" for t, line in zip(task.tracks, lines, strict=True))


def _track_text(column: np.ndarray, track: Track) -> str:
    """Show one track, [T]."""
    name = _drum_name if track.kind == "drums" else _event_name
    words = [name(int(token)) for token in column]
    bars = [words[i : i + STEPS_PER_BAR] for i in range(0, len(words), STEPS_PER_BAR)]
    return " | ".join(" ".join(bar) for bar in bars)


def _event_name(token: int) -> str:
    if token in (NO_EVENT, NOTE_OFF):
        return "^" if token == NOTE_OFF else "."
    return pitch_name(int(pitches(np.asarray(token))))


def _drum_name(token: int) -> str:
    return "".join(c for bit, c in enumerate(_DRUM_LETTERS) if token >> bit & 1) or "."


def pitch_name(pitch: int) -> str:
    """Name a MIDI pitch; 60 is C4."""
    return f"{_PITCH_NAMES[pitch % 12]}{pitch // 12 - 1}"

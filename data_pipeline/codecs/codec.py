"""The codec of each kind of track, and rows of whole tasks.

To add a kind of track: its properties in `KINDS` of `musicvae_jax/tasks.py`, a module with the
functions of `Codec`, and a line in `CODECS`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from data_pipeline.codecs import drums, melody, piano_roll, trio
from data_pipeline.codecs.figures import TrackFigures
from data_pipeline.codecs.pieces import Cutter
from musicvae_jax.config import InputError
from musicvae_jax.tasks import STEPS_PER_BAR, Task, Track, get_task
from musicvae_jax.tokens import check_row


class Codec(Protocol):
    """What a kind of track is: a module with these functions. Tokens of one track are [T]."""

    PANEL_SHARE: int  # height in pictures, relative to other kinds
    HAS_LENGTHS: bool  # rows say how long notes are
    CUTTER: Cutter  # how rows of one track are cut from a piece

    def decode(self, row: np.ndarray, *, program: int = 0) -> np.ndarray:
        """Read the notes of a row, of STEP_DTYPE."""

    def vocabulary(self, track: Track) -> dict[str, str]:
        """Say what the tokens mean: {token or range of tokens: meaning}."""

    def words(self, row: np.ndarray) -> list[str]:
        """Write each step as a word."""

    def read_words(self, words: Sequence[str]) -> np.ndarray:
        """Read steps written as words, uint16 [T]; raise InputError for a word that is none."""

    def figures(self, rows: np.ndarray, track: Track) -> TrackFigures:
        """Count the notes of rows [N, T] for a report."""

    def drawn_notes(self, row: np.ndarray) -> np.ndarray:
        """Return start step, length in steps and line (pitch, drum class) of notes, [N, 3]."""

    def drawn_lines(self, used: np.ndarray) -> tuple[int, int]:
        """Return the lowest and highest line to show, for the lines [N] of the notes."""

    def line_names(self, low: int, high: int) -> dict[int, str]:
        """Return the names of the lines to label from low to high."""


CODECS: dict[str, Codec] = {"melody": melody, "drums": drums, "piano roll": piano_roll}


def cutter_of(task: Task) -> Cutter:
    """Return what cuts the rows of a task from a piece of music."""
    return CODECS[task.tracks[0].kind].CUTTER if len(task.tracks) == 1 else trio.CUTTER


def has_lengths(task: Task) -> bool:
    """Tell whether the rows of a task say how long notes are."""
    return all(CODECS[track.kind].HAS_LENGTHS for track in task.tracks)


def decode(row: np.ndarray, task: Task, *, program: int = 0) -> np.ndarray:
    """Read the notes of one row.

    Args:
      row: tokens [T] or [T, K].
      task: what they mean.
      program: General MIDI program of the melody.

    Returns:
      Notes of STEP_DTYPE, track by track.
    """
    if len(task.tracks) == 1:
        return CODECS[task.tracks[0].kind].decode(row, program=program)
    return trio.decode(row, program=program)


def row_to_text(row: np.ndarray, task_name: str) -> str:
    """Show a row as text: a word per step, bars between "|", a line per track.

    "." is no event and "^" a note off; drums are one letter per class (K kick, S snare,
    H closed hat, O open hat, L low, M mid, T high tom, C crash, R ride).

    Raises:
      InputError: the row does not fit the task.
    """
    task = get_task(task_name)
    columns = check_row(row, task).reshape(len(row), -1).T
    lines = []
    for track, column in zip(task.tracks, columns, strict=True):
        words = CODECS[track.kind].words(column)
        bars = [words[i : i + STEPS_PER_BAR] for i in range(0, len(words), STEPS_PER_BAR)]
        line = " | ".join(" ".join(bar) for bar in bars)
        lines.append(line if len(task.tracks) == 1 else f"{track.name:>6}: {line}")
    return "\n".join(lines)


def text_to_row(text: str, task_name: str) -> np.ndarray:
    """Read a row of any length from text, the inverse of `row_to_text`.

    Words are separated by spaces; "|" between bars may be left out. A melody also takes MIDI
    numbers, "_" for no event (hold) and "r" for a rest. Several tracks are lines, or parts between
    ";", of equal length, each with its name before ":".

    Returns:
      Tokens [S] or [S, K] of the task's token type.

    Raises:
      InputError: a track is missing or has another length, or a word means nothing.
    """
    task = get_task(task_name)
    texts = [("", text)]
    if len(task.tracks) > 1:
        parts = [part for part in re.split(r"[;\n]", text) if part.strip()]
        pairs = [part.partition(":") for part in parts]
        texts = [(name.strip(), rest) for name, _, rest in pairs]
        names = [track.name for track in task.tracks]
        if [name for name, _ in texts] != names:
            wanted = "; ".join(f"{name}: ..." for name in names)
            raise InputError(f"a seed of {task_name} needs {len(names)} parts: {wanted!r}")
    columns = []
    for track, (name, part) in zip(task.tracks, texts, strict=True):
        try:
            columns.append(CODECS[track.kind].read_words(part.replace("|", " ").split()))
        except InputError as error:
            raise InputError(f"{name}: {error}" if name else str(error)) from error
    if not len(columns[0]) or len({len(column) for column in columns}) > 1:
        raise InputError(f"lengths: {[len(c) for c in columns]}, must be equal and above 0")
    row = np.stack(columns, axis=-1).astype(task.token_dtype)
    return row[:, 0] if len(task.tracks) == 1 else row

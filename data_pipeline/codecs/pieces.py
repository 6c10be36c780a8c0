"""From a piece of music to the rows of a task, and where in the piece each row comes from.

Codecs of steps cut the segments of a piece, between changes of tempo and meter (`BySegment`); a
codec may also cut the piece as a whole (`piano_roll`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from data_pipeline.codecs.windows import Encoded
from data_pipeline.reading.extraction import NO_NOTES, TOO_SHORT
from data_pipeline.reading.segments import DEFAULT_QPM, NoteArrays, Segment, split_segments
from musicvae_jax.tasks import NO_EVENT, NOTE_OFF, STEPS_PER_BAR, Task
from musicvae_jax.tokens import num_notes


class Piece(NamedTuple):
    """One unit of music.

    Attributes:
      unit: its notes in seconds.
      segments: the same notes between changes of tempo and meter, in steps.
    """

    unit: NoteArrays
    segments: list[Segment]


def piece_of(unit: NoteArrays, meter: str = "4/4") -> Piece:
    """Split a unit into segments; see `split_segments`."""
    return Piece(unit, split_segments(unit, meter))


class Part(NamedTuple):
    """The rows of a part of a piece.

    Attributes:
      found: its rows; None if there are none.
      left_out: what gave no row, counted by reason: the part itself, or windows of it.
      num_notes: notes of the part.
    """

    found: Encoded | None
    left_out: dict[str, int]
    num_notes: int


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """One row of a file and its origin.

    Attributes:
      name: the file's name, with "#" and a number for a tune of a tunebook.
      row: tokens [T] or [T, 3].
      start_bar: first bar, counted from 1 at `start_seconds`.
      start_seconds: start of the segment of one tempo and meter in which bars are counted.
      instruments: numbers of the tracks x channels x programs that were used, in the order
        of the task's tracks; empty for drums, which are taken together.
      num_notes: notes of these instruments that begin in these bars.
      num_kept: how many of them the row contains.
      silence: bars of silence added before and after what the file has.
      qpm: tempo of the file there, quarter notes per minute.
    """

    name: str
    row: np.ndarray
    start_bar: int
    start_seconds: float
    instruments: tuple[int, ...]
    num_notes: int
    num_kept: int
    silence: tuple[int, int] = (0, 0)
    qpm: float = DEFAULT_QPM

    def describe(self) -> str:
        """Describe in one line the bars and tracks used, and the silence added."""
        last = self.start_bar + len(self.row) // STEPS_PER_BAR - sum(self.silence) - 1
        numbers = ", ".join(map(str, self.instruments))
        used = f"tracks {numbers}" if len(self.instruments) > 1 else f"track {numbers}"
        since = f" of the part from {self.start_seconds:.1f} s" if self.start_seconds else ""
        kept = f"{self.num_kept} of {self.num_notes} notes kept"
        used = used if self.instruments else "drums"
        added = "".join(
            f", shorter than the window: {num} bar{'s' * (num > 1)} of silence added {where} it"
            for num, where in zip(self.silence, ("before", "after"), strict=True)
            if num
        )
        return f"{self.name}: bars {self.start_bar}-{last}{since}, {used}, {kept}{added}"


class Cutter(Protocol):
    """How the rows of a task are cut from a piece."""

    @property
    def in_fast_engine(self) -> bool:
        """Whether `data_pipeline.fast` cuts the same rows from the bytes of a MIDI file."""

    def parts(self, piece: Piece, task: Task) -> list[Part]:
        """Return the rows of a piece, part by part in order of time."""

    def excerpts(
        self, piece: Piece, task: Task, *, pad: bool = False, at_end: bool = False
    ) -> list[Excerpt]:
        """List the same rows with their origin, of each track in order of time.

        Duplicates stay in; `name` is empty. With `pad`, a piece that is shorter than a row gives
        one, filled up with silence: after it, or before it with `at_end`.
        """


@dataclasses.dataclass(frozen=True)
class BySegment:
    """Cuts rows from one segment at a time.

    Attributes:
      encode: returns the rows of a segment, or the reason why it has none.
    """

    encode: Callable[[Segment, Task], Encoded | str]
    in_fast_engine = True

    def parts(self, piece: Piece, task: Task) -> list[Part]:
        """See `Cutter`."""
        return [self._part(segment, task) for segment in piece.segments]

    def excerpts(
        self, piece: Piece, task: Task, *, pad: bool = False, at_end: bool = False
    ) -> list[Excerpt]:
        """See `Cutter`."""
        for num_bars in range(task.num_bars, 0, -1) if pad else (task.num_bars,):
            window = dataclasses.replace(task, num_bars=num_bars)
            found = [p for segment in piece.segments for p in self._excerpts(segment, window)]
            if found and num_bars < task.num_bars:
                return [_filled(excerpt, task, at_end) for excerpt in found]
            if found:
                return found
        return []

    def _part(self, segment: Segment, task: Task) -> Part:
        """Return the rows of a segment."""
        found: Encoded | str = segment.reason or NO_NOTES
        if segment.reason is None and len(segment.notes):
            found = self.encode(segment, task)
        if not isinstance(found, str) and not len(found.rows):
            found = TOO_SHORT
        if isinstance(found, str):
            return Part(None, {found: 1}, len(segment.notes))
        return Part(found, {}, len(segment.notes))

    def _excerpts(self, segment: Segment, task: Task) -> list[Excerpt]:
        """List the rows of a segment."""
        found = self._part(segment, task).found
        if found is None:
            return []
        origins = zip(found.rows, found.bars.tolist(), found.instruments.tolist(), strict=True)
        return [_excerpt(row, bar, segment, tuple(used), task) for row, bar, used in origins]


def _excerpt(
    row: np.ndarray, bar: int, segment: Segment, instruments: tuple[int, ...], task: Task
) -> Excerpt:
    """Count the notes that start in the row's bars, and those that the row holds."""
    notes, first = segment.notes, bar * STEPS_PER_BAR
    own = np.isin(notes["instrument"], instruments) if instruments else notes["is_drum"]
    starts = (notes["start_step"] >= first) & (notes["start_step"] < first + task.num_steps)
    columns = row.reshape(len(row), -1).T
    kept = sum(
        int(num_notes(column, track).sum())
        for track, column in zip(task.tracks, columns, strict=True)
    )
    origin = (bar + 1, segment.start_seconds, instruments)
    return Excerpt("", row, *origin, int((own & starts).sum()), kept, qpm=segment.qpm)


def _filled(excerpt: Excerpt, task: Task, before: bool) -> Excerpt:
    """Add bars of silence to an excerpt; notes still sounding at its end stop there."""
    num_bars = task.num_bars - len(excerpt.row) // STEPS_PER_BAR
    silence = np.zeros((num_bars * STEPS_PER_BAR, *task.row_shape[1:]), excerpt.row.dtype)
    if before:
        row = np.concatenate([silence, excerpt.row])
        return dataclasses.replace(excerpt, row=row, silence=(num_bars, 0))
    row = np.concatenate([excerpt.row, silence])
    columns = row.reshape(len(row), -1)
    for track, column in zip(task.tracks, columns.T, strict=True):
        own = column[: len(excerpt.row)]
        events = own[own != NO_EVENT]
        if track.is_pitched and len(events) and events[-1] >= track.first_onset:
            column[len(excerpt.row)] = NOTE_OFF
    return dataclasses.replace(excerpt, row=row, silence=(0, num_bars))

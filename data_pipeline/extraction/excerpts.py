"""Rows of one file with their origin: tracks, bars, number of notes.

`extract` returns rows for training without their origin; commands that read a user's file report
which bars of it were used.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib

import numpy as np

from data_pipeline.codecs import piano_roll
from data_pipeline.codecs.codec import encode
from data_pipeline.codecs.melody import WRONG_PROGRAMS
from data_pipeline.extraction import extract
from data_pipeline.reading import notes
from data_pipeline.reading.extraction import NO_NOTES
from data_pipeline.reading.programs import describe, has_choice, tasks_with
from data_pipeline.reading.segments import (
    DEFAULT_QPM,
    NOT_4_4,
    NoteArrays,
    Segment,
    split_segments,
)
from musicvae_jax.config import InputError
from musicvae_jax.tasks import NO_EVENT, NOTE_OFF, STEPS_PER_BAR, RollTask, Task, get_task
from musicvae_jax.tokens import num_notes, roll_starts


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


@dataclasses.dataclass(frozen=True)
class RollExcerpt(Excerpt):
    """A piano roll of a file; bars follow its time signatures, from its beginning.

    Attributes:
      num_bars: bars of the row.
    """

    num_bars: int = 16

    def describe(self) -> str:
        """Describe in one line the bars used, and the silence added."""
        end = self.start_bar + self.num_bars - 1
        silent = f", {self.silence[1]} of them silence after its end" if self.silence[1] else ""
        used = f"{self.num_kept} note starts of all tracks but the drums"
        return f"{self.name}: bars {self.start_bar}-{end}{silent}, {used}"


def read_excerpt(
    path: str | os.PathLike[str],
    task_name: str,
    *,
    start_bar: int | None = None,
    meter: str = "4/4",
    at_end: bool = False,
    pad: bool = False,
    track: int | None = None,
) -> Excerpt:
    """Take one row from a file, from the track with the most notes.

    From a tunebook, the first tune with rows is used.

    Args:
      path: MIDI, MusicXML or ABC file.
      task_name: key of `TASKS`.
      start_bar: first bar, from 1; None takes the first at which the track has a row.
      meter: "4/4" leaves parts in other meters out; "any" ignores time signatures.
      at_end: take the last row of the track instead of the first if `start_bar` is None.
      pad: pad music shorter than a row with silence: after it, or before it with `at_end`.
      track: number of the track to take a melody from, of any program; None takes any track with
        the programs of the task.

    Raises:
      InputError: the file cannot be read, holds no row of the task, or none from that bar on, or
        the task is no melody but a track is chosen.
    """
    path = pathlib.Path(path)
    task = get_task(task_name)
    if track is not None:
        if not has_choice(task):
            raise InputError("track: only for tasks of one melody, mel_2bar or mel_16bar")
        (task,) = tasks_with([task_name], "any")
    found = _first_with_rows(path, task, meter, pad, at_end, track)
    fitting = [p for p in found if start_bar in (None, p.start_bar)]
    if not fitting:
        bars = describe(sorted({p.start_bar for p in found}), "-")
        raise InputError(
            f"start_bar: no row of {path} begins at bar {start_bar}; those that do: {bars}"
        )
    kept: collections.Counter[tuple[float, tuple[int, ...]]] = collections.Counter()
    for excerpt in fitting:
        kept[excerpt.start_seconds, excerpt.instruments] += excerpt.num_kept
    most, _ = kept.most_common(1)[0]
    of_track = [p for p in fitting if (p.start_seconds, p.instruments) == most]
    return of_track[-1 if at_end else 0]


def _first_with_rows(
    path: pathlib.Path, task: Task, meter: str, pad: bool, at_end: bool, track: int | None
) -> list[Excerpt]:
    """List the excerpts of the file's first unit that has any."""
    try:
        units = notes.read_units(path.name, path.read_bytes())
    except OSError as error:
        raise InputError(f"input: {path} cannot be read: {error.strerror}") from error
    except notes.ReadError as error:
        raise InputError(f"input: {path} cannot be read: {error}") from error
    reasons = []
    for unit in units:
        if unit.sequence is None:
            reasons.append(str(unit.error))
            continue
        arrays = notes.notes_from_sequence(unit.sequence)
        if track is not None:
            arrays = _one_track(unit.name, arrays, track)
        if isinstance(task, RollTask):
            found = roll_excerpts(arrays, task, pad=pad)
        else:
            segments = split_segments(arrays, meter)
            found = [p for segment in segments for p in excerpts(segment, task)]
            if not found and pad:
                found = shorter_excerpts(segments, task, at_end=at_end)
        if found:
            return [dataclasses.replace(excerpt, name=unit.name) for excerpt in found]
        why_empty = extract.rows_from_notes(arrays, task.name, meter=meter).why_empty or ""
        if why_empty.startswith(WRONG_PROGRAMS):
            why_empty += f" (choose one of its tracks with --track: {_tracks(arrays)})"
        reasons.append(why_empty)
    why = ", ".join(sorted(set(reasons)))
    if NOT_4_4 in reasons:
        why += " (--meter=any ignores time signatures)"
    raise InputError(f"input: {path} has no row of {task.name}: {why}")


def _one_track(name: str, arrays: NoteArrays, track: int) -> NoteArrays:
    """Keep the notes of one track.

    Raises:
      InputError: it has no pitched notes.
    """
    own = arrays.notes[(arrays.notes["instrument"] == track) & ~arrays.notes["is_drum"]]
    if not len(own):
        there = _tracks(arrays) or "none"
        raise InputError(f"track: {name} has no notes in track {track}; tracks with notes: {there}")
    return dataclasses.replace(arrays, notes=own)


def _tracks(arrays: NoteArrays) -> str:
    """List the numbers of the tracks with pitched notes, each with its program."""
    pitched = arrays.notes[~arrays.notes["is_drum"]]
    found = dict(zip(pitched["instrument"].tolist(), pitched["program"].tolist(), strict=True))
    return ", ".join(f"{track} (program {found[track]})" for track in sorted(found))


def file_excerpts(
    name: str, data: bytes, task: Task, *, meter: str = "4/4"
) -> tuple[list[Excerpt], list[tuple[str, str]]]:
    """List all excerpts of a file, of every tune of a tunebook in order.

    Args:
      name: the file's name.
      data: its bytes.
      task: whose rows to take.
      meter: "4/4" leaves parts in other meters out; "any" ignores time signatures.

    Returns:
      The excerpts, and (name, reason) of the file or each tune that has none.
    """
    try:
        units = notes.read_units(name, data)
    except notes.ReadError as error:
        return [], [(name, error.reason)]
    found: list[Excerpt] = []
    empty = []
    for unit in units:
        if unit.sequence is None:
            reason = unit.error.reason if unit.error else NO_NOTES
            empty.append((unit.name, reason))
            continue
        arrays = notes.notes_from_sequence(unit.sequence)
        if isinstance(task, RollTask):
            own = roll_excerpts(arrays, task)
        else:
            own = [p for part in split_segments(arrays, meter) for p in excerpts(part, task)]
        found += [dataclasses.replace(excerpt, name=unit.name) for excerpt in own]
        if not own:
            why = extract.rows_from_notes(arrays, task.name, meter=meter).why_empty
            empty.append((unit.name, why or NO_NOTES))
    return found, empty


def roll_excerpts(arrays: NoteArrays, task: RollTask, *, pad: bool = False) -> list[Excerpt]:
    """List the piano rolls of a unit in order of time; duplicates stay in, `name` is empty.

    Args:
      arrays: the unit.
      task: the task.
      pad: music shorter than a row gives one, with silence after it.
    """
    found = piano_roll.windows_of(arrays, task, pad=pad)
    if isinstance(found, str):
        return []
    silence = (0, max(task.num_bars - found.num_bars, 0))
    qpm = arrays.tempos[0][1] if arrays.tempos else DEFAULT_QPM
    starts = [len(roll_starts(row[None])[1]) for row in found.rows]
    return [
        RollExcerpt("", row, bar + 1, 0.0, (), num, num, silence, qpm, task.num_bars)
        for row, bar, num in zip(found.rows, found.bars.tolist(), starts, strict=True)
    ]


def shorter_excerpts(segments: list[Segment], task: Task, *, at_end: bool) -> list[Excerpt]:
    """List the longest excerpts shorter than a row, padded with silence."""
    for num_bars in range(task.num_bars - 1, 0, -1):
        shorter = dataclasses.replace(task, num_bars=num_bars)
        found = [p for segment in segments for p in excerpts(segment, shorter)]
        if found:
            return [_filled(excerpt, task, at_end) for excerpt in found]
    return []


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


def excerpts(segment: Segment, task: Task) -> list[Excerpt]:
    """List the rows of a segment, of each track in order of time; duplicates stay in.

    Returns:
      The same rows as `extract` gives; `name` is empty.
    """
    if segment.reason is not None or not len(segment.notes):
        return []
    found = encode(segment, task)
    if isinstance(found, str):
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

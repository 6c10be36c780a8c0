"""Rows of one file with their origin: tracks, bars, number of notes.

`extract` returns rows for training without their origin; commands that read a user's file report
which bars of it were used.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib

from data_pipeline.codecs.codec import cutter_of
from data_pipeline.codecs.melody import WRONG_PROGRAMS
from data_pipeline.codecs.pieces import Excerpt, piece_of
from data_pipeline.extraction import extract
from data_pipeline.reading import notes
from data_pipeline.reading.extraction import NO_NOTES
from data_pipeline.reading.programs import describe, has_choice, tasks_with
from data_pipeline.reading.segments import NOT_4_4, NoteArrays
from musicvae_jax.config import InputError
from musicvae_jax.tasks import Task, get_task


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
        piece = piece_of(arrays, meter)
        found = cutter_of(task).excerpts(piece, task, pad=pad, at_end=at_end)
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
        own = cutter_of(task).excerpts(piece_of(arrays, meter), task)
        found += [dataclasses.replace(excerpt, name=unit.name) for excerpt in own]
        if not own:
            why = extract.rows_from_notes(arrays, task.name, meter=meter).why_empty
            empty.append((unit.name, why or NO_NOTES))
    return found, empty

"""The fast engine: a MIDI file, parsed once, to rows of tokens for several tasks.

Its results equal those of `extract.tasks_from_notes` on the same file read by note-seq: the same
rows in the same order, and the same reasons for segments without rows.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from data_pipeline.codecs import drums, melody, trio
from data_pipeline.fast import cut
from data_pipeline.fast import trio as fast_trio
from data_pipeline.fast.midi import FastReadError, MidiTable, read_table
from data_pipeline.fast.tempo import QPM, SECONDS, to_seconds
from data_pipeline.reading.extraction import NO_NOTES, TOO_SHORT, Extraction
from data_pipeline.reading.programs import tasks_with
from data_pipeline.reading.segments import METERS, refuse_meter, split_points
from musicvae_jax.config import InputError
from musicvae_jax.tasks import (
    MAX_PITCH,
    MIN_PITCH,
    NOTE_OFF,
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    TASKS,
    Task,
)

# Bits of what a segment holds: kinds of notes, and kinds of notes that have a token.
_PITCHED, _CHOSEN, _DRUM = 1, 2, 4
_PITCH, _CHOSEN_PITCH, _CLASS = (bit << cut.TOKEN_SHIFT for bit in (1, 2, 4))
_TRIO = 16  # the first of three bits: a trio's melody, bass and drums

_MAX_STEP = float(2**53)  # as in `reading.segments`
_MELODY_PROGRAMS, _BASS_PROGRAMS = (track.programs for track in TASKS["trio_16bar"].tracks[:2])


def _has_program(programs: np.ndarray, allowed: Collection[int] | None) -> np.ndarray:
    """Tell which instruments have one of the programs (None: any), bool [I]."""
    if allowed is None:
        return np.ones(len(programs), np.bool_)
    return np.isin(programs, list(allowed))


# Tables by whether an instrument is drums (0 or 1) and by program or pitch.
_VALUES = np.arange(128)
_CLASS_BITS = drums.class_bits()
_HAS_TOKEN = np.stack([(_VALUES >= MIN_PITCH) & (_VALUES <= MAX_PITCH), _CLASS_BITS > 0])
_IS_MELODY, _IS_BASS = (_has_program(_VALUES, p) for p in (_MELODY_PROGRAMS, _BASS_PROGRAMS))
_KINDS = np.stack(
    [
        np.select([_IS_MELODY, _IS_BASS], [fast_trio.MELODY, fast_trio.BASS], fast_trio.OTHER),
        0 * _VALUES + fast_trio.DRUMS,
    ]
)


@dataclasses.dataclass(frozen=True)
class _Grid:
    """A file's notes on the step grid; the tables are those of `fast.cut`.

    Attributes:
      notes: table of notes by time.
      counts: notes of each segment, list of P.
      refused: why a segment has no rows of any task, or None, list of P.
      holds: bits that say what each segment contains, list of P.
      num_bars: bars of each segment that trios are cut from, list of P.
      programs, is_drum: int64 [I].
      kinds: part of each instrument in a trio, int64 [I].
    """

    notes: np.ndarray
    counts: list[int]
    refused: list[str | None]
    holds: list[int]
    num_bars: list[int]
    programs: np.ndarray
    is_drum: np.ndarray
    kinds: np.ndarray


class _Found(NamedTuple):
    """Rows [N, T(, K)], the first bar of each [N], and windows of each segment, list of P."""

    rows: np.ndarray
    bars: np.ndarray
    counts: list[int]


def extract_fast(
    data: bytes,
    task_names: Iterable[str],
    *,
    meter: str = "4/4",
    dedupe: bool = True,
    programs: str | None = None,
) -> dict[str, Extraction]:
    """Extract the rows of several tasks from a MIDI file.

    Args:
      data: the file's bytes.
      task_names: keys of `TASKS`.
      meter: "4/4" as the reference; "any" ignores time signatures.
      dedupe: remove duplicates within a segment, as the reference does (never for trios).
      programs: General MIDI programs of melodies, as 0-31,40 or "any"; None for each task's own.

    Raises:
      FastReadError: the compiled reader refuses the file; note-seq may read it.
      InputError: unknown task, meter or programs.
    """
    if meter not in METERS:
        raise InputError(f"meter: {meter!r} is not one of {', '.join(METERS)}")
    tasks = tasks_with(task_names, programs)
    found: dict[str, _Found] = {}
    single = [task for task in tasks if len(task.tracks) == 1]
    pitched = [task for task in single if task.tracks[0].is_pitched]
    drummed = [task for task in single if not task.tracks[0].is_pitched]
    bands = [task for task in tasks if len(task.tracks) == 3]
    grid = _grid(read_table(data), meter, _chosen_programs(pitched))
    if pitched or bands:
        by_instrument = cut.by_instrument(grid.notes, len(grid.programs))
        tokens = cut.melody_tokens(by_instrument, grid.is_drum)
        found |= _windows(grid, tokens, pitched, NOTE_OFF, dedupe) if pitched else {}
        found |= {task.name: _trio_rows(grid, by_instrument, tokens, task) for task in bands}
    if drummed:
        tokens = cut.drum_tokens(grid.notes, grid.is_drum, _CLASS_BITS)
        found |= _windows(grid, tokens, drummed, 0, dedupe)
    return {task.name: _extraction(grid, task, found[task.name]) for task in tasks}


def warm_up() -> None:
    """Compile what this module runs, or load it from the cache.

    Call it once before starting worker processes, so that only one process compiles.
    """
    events = bytes.fromhex(
        "00 C1 20"  # a bass on channel 2
        "00 90 3C 40  00 91 24 40  00 99 24 40"  # melody, bass and drums start
        "40 80 3C 40  00 81 24 40  00 89 24 40"  # and end 16 bars later
    )
    header = struct.pack(">4sLhhh", b"MThd", 6, 0, 1, 1)
    extract_fast(header + struct.pack(">4sL", b"MTrk", len(events)) + events, TASKS)


def _chosen_programs(pitched: list[Task]) -> Collection[int] | None:
    """Return the programs that melody tasks choose: one choice, beside tasks that take any.

    Raises:
      ValueError: tasks choose different programs, which `_Grid.holds` has no bits for.
    """
    chosen = {tuple(p) for task in pitched if (p := task.tracks[0].programs) is not None}
    if len(chosen) > 1:
        raise ValueError("tasks that choose different programs cannot be extracted together")
    return chosen.pop() if chosen else None


def _grid(table: MidiTable, meter: str, chosen: Collection[int] | None) -> _Grid:
    """Split at time changes and quantise, as `reading.segments.split_segments`."""
    seconds = to_seconds(table.notes, 2, table.tempos)
    total = float(seconds[:, 1].max(initial=0.0))
    meters = table.meters if meter == "4/4" else table.meters[:0]
    times = to_seconds(meters, 1, table.tempos)[:, 0].tolist()
    starts, states = split_points(
        tuple((row[SECONDS], row[QPM]) for row in table.tempos.tolist()),
        tuple((time, *row[1:]) for time, row in zip(times, meters.tolist(), strict=True)),
        total,
    )
    if total == 0.0:
        starts, states = [], []
    refused = [refuse_meter(*fraction) for fraction, _ in states]
    rates = [STEPS_PER_QUARTER * qpm / 60.0 for _, qpm in states]
    if total * max(rates, default=0.0) >= _MAX_STEP:
        raise FastReadError("more steps than a float64 can count")
    rates = [0.0 if why else rate for why, rate in zip(refused, rates, strict=True)]
    notes, counts = cut.to_grid(
        seconds,
        np.argsort(seconds[:, 0], kind="stable"),
        table.notes,
        np.array([*starts, total]),
        np.array(rates),
    )
    programs, is_drum = table.instruments.T.copy()
    kinds = _KINDS[is_drum, programs]
    kinds[trio.MAX_INSTRUMENT + 1 :] = fast_trio.OTHER
    pitched = np.where(_has_program(programs, chosen), _PITCHED | _CHOSEN, _PITCHED)
    flags = np.where(is_drum, _DRUM, pitched)
    holds, last_steps = cut.segment_flags(
        notes, flags | 1 << _TRIO + kinds, is_drum, _HAS_TOKEN, len(starts)
    )
    num_bars = np.minimum(-(-last_steps // STEPS_PER_BAR), trio.MAX_BARS)
    refused = [
        why or (None if count else NO_NOTES) for why, count in zip(refused, counts, strict=True)
    ]
    return _Grid(
        notes, counts.tolist(), refused, holds.tolist(), num_bars.tolist(), programs, is_drum, kinds
    )


def _windows(
    grid: _Grid, tokens: np.ndarray, tasks: list[Task], note_off: int, dedupe: bool
) -> dict[str, _Found]:
    """Cut the rows of tasks that differ in programs and length."""
    tracks = cut.lay_out(tokens, len(grid.counts))
    num_bars = int(tracks[:, cut.NUM_BARS].sum())
    flat = np.zeros((num_bars, STEPS_PER_BAR), tasks[0].token_dtype)
    cut.write_tracks(tokens, tracks, note_off, flat.reshape(-1))
    bars = flat.view(np.int64)
    found = {}
    for task in tasks:
        allowed = _has_program(grid.programs, task.tracks[0].programs)
        total = cut.count_windows(tracks, allowed, task.num_bars)
        rows = np.empty((total + 1, task.num_bars, bars.shape[1]), np.int64)
        first_bars = np.empty(total + 1, np.int64)
        counts = np.zeros(len(grid.counts), np.int64)
        kept = cut.cut_windows(
            bars, tracks, allowed, note_off > 0, dedupe, rows, first_bars, counts
        )
        shaped = rows[:kept].view(task.token_dtype).reshape(kept, task.num_steps)
        found[task.name] = _Found(shaped, first_bars[:kept], counts.tolist())
    return found


def _trio_rows(grid: _Grid, notes: np.ndarray, tokens: np.ndarray, task: Task) -> _Found:
    """Cut the rows of a trio task."""
    kept, counts = [np.zeros((0, *task.row_shape), task.token_dtype)], [0] * len(grid.counts)
    bars = [np.zeros(0, np.int64)]
    for segment, (holds, num_bars) in enumerate(zip(grid.holds, grid.num_bars, strict=True)):
        if holds >> _TRIO & 7 != 7 or num_bars < task.num_bars:
            continue
        flat, has_token, covered = fast_trio.columns(
            notes, tokens, grid.kinds, _CLASS_BITS, segment, num_bars
        )
        groups = fast_trio.groups(grid.kinds, has_token)
        rows, own_bars = fast_trio.cut_groups(flat, covered, groups, task.num_bars, trio.MAX_ROWS)
        kept.append(rows)
        bars.append(own_bars)
        counts[segment] = len(rows)
    all_rows = kept[1] if len(kept) == 2 else np.concatenate(kept)
    return _Found(all_rows, np.concatenate(bars), counts)


def _extraction(grid: _Grid, task: Task, found: _Found) -> Extraction:
    """Count the reasons of segments without rows."""
    reasons: dict[str, int] = {}
    why_empty, most_notes = NO_NOTES, 0
    segments = zip(found.counts, grid.refused, grid.holds, grid.num_bars, grid.counts, strict=True)
    for count, refused, holds, num_bars, num_notes in segments:
        if count:
            continue
        reason = refused or _reason(task, holds, num_bars)
        reasons[reason] = reasons.get(reason, 0) + 1
        if num_notes > most_notes:
            why_empty, most_notes = reason, num_notes
    if not found.counts:
        reasons[NO_NOTES] = 1
    why = None if len(found.rows) else why_empty
    return Extraction(found.rows, found.bars, reasons, why, sum(found.counts))


def _reason(task: Task, holds: int, num_bars: int) -> str:
    """Return why a segment with notes has no rows."""
    programs = task.tracks[0].programs
    if len(task.tracks) == 3:
        if missing := [
            name for i, name in enumerate(trio.TYPE_NAMES) if not holds >> _TRIO + i & 1
        ]:
            return "no band: no " + ", no ".join(missing)
        return TOO_SHORT if num_bars < task.num_bars else trio.NOT_TOGETHER
    if not task.tracks[0].is_pitched:
        if not holds & _DRUM:
            return drums.NO_DRUMS
        return TOO_SHORT if holds & _CLASS else drums.NO_CLASSES
    if not holds & _PITCHED:
        return melody.NO_MELODY
    if programs is not None and not holds & _CHOSEN:
        return melody.wrong_programs(programs)
    in_range = holds & (_PITCH if programs is None else _CHOSEN_PITCH)
    return TOO_SHORT if in_range else melody.NO_PITCHES

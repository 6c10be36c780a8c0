"""The fast engine: bytes of a MIDI file to rows of tokens for several tasks, one parse.

What it gives equals `extract.tasks_from_notes` over note-seq's reading of the same bytes:
the same rows in the same order, and the same reasons for what gave none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from data_pipeline import drums, fast_cut, fast_trio, melody, trio
from data_pipeline.extract import NO_NOTES, TOO_SHORT, Extraction
from data_pipeline.fast_midi import FastReadError, MidiColumns, read_columns, ticks_to_seconds
from data_pipeline.pieces import METERS, refuse_meter, split_points
from musicvae_jax.config import InputError
from musicvae_jax.tasks import (
    MAX_PITCH,
    MIN_PITCH,
    NOTE_OFF,
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    TASKS,
    Task,
    get_task,
)

_BASS_PROGRAMS = TASKS["trio_16bar"].tracks[1].programs
_MELODY_PROGRAMS = TASKS["trio_16bar"].tracks[0].programs

# Bits of what a piece holds.
_PITCHED, _LOW_PROGRAM, _DRUM, _PITCH, _LOW_PITCH, _CLASS = (1 << i for i in range(6))
_TRIO = 6  # the first of the three bits that say a trio's instruments are there

_MAX_STEP = float(2**53)  # as in `pieces`
_CLASS_BITS = drums.class_bits()
_IN_RANGE = (np.arange(128) >= MIN_PITCH) & (np.arange(128) <= MAX_PITCH)


@dataclasses.dataclass(frozen=True)
class _Grid:
    """A file's notes on the step grid; the tables are those of `fast_cut`.

    Attributes:
      notes: table of notes by time.
      counts: notes of each piece, list of P.
      refused: why a piece is not used at all, or None, list of P.
      holds: bits of what each piece holds, list of P.
      last_steps: int64 [P].
      programs, is_drum: int64 [I].
    """

    notes: np.ndarray
    counts: list[int]
    refused: list[str | None]
    holds: list[int]
    last_steps: np.ndarray
    programs: np.ndarray
    is_drum: np.ndarray


def extract_fast(
    data: bytes, task_names: Iterable[str], *, meter: str = "4/4", dedupe: bool = True
) -> dict[str, Extraction]:
    """Extract the rows of several tasks from a MIDI file.

    Args:
      data: the file's bytes.
      task_names: keys of `TASKS`.
      meter: "4/4" as the reference; "any" ignores time signatures.
      dedupe: remove duplicates within a piece, as the reference does (never for trios).

    Raises:
      FastReadError: the file is not read here; note-seq may know more.
      InputError: unknown task or meter.
    """
    if meter not in METERS:
        raise InputError(f"meter: {meter!r} is not one of {', '.join(METERS)}")
    tasks = [get_task(name) for name in task_names]
    grid = _grid(read_columns(data), meter)
    found: dict[str, tuple[np.ndarray, list[int]]] = {}
    pitched = [task for task in tasks if len(task.tracks) == 1 and task.tracks[0].kind == "melody"]
    drummed = [task for task in tasks if len(task.tracks) == 1 and task.tracks[0].kind == "drums"]
    bands = [task for task in tasks if len(task.tracks) == 3]
    if pitched or bands:
        by_instrument = fast_cut.by_instrument(grid.notes, len(grid.programs))
        tokens = fast_cut.melody_tokens(by_instrument, grid.is_drum)
        found |= _windows(grid, tokens, pitched, NOTE_OFF, dedupe) if pitched else {}
        found |= {task.name: _trio_rows(grid, by_instrument, tokens, task) for task in bands}
    if drummed:
        tokens = fast_cut.drum_tokens(grid.notes, grid.is_drum, _CLASS_BITS)
        found |= _windows(grid, tokens, drummed, 0, dedupe)
    return {task.name: _extraction(grid, task, *found[task.name]) for task in tasks}


def _grid(columns: MidiColumns, meter: str) -> _Grid:
    """Split at time changes and quantise, as `pieces.split_pieces`."""
    seconds = ticks_to_seconds(columns.notes[:, :2], columns.scales)
    total = float(seconds[:, 1].max(initial=0.0))
    meters = columns.meters if meter == "4/4" else columns.meters[:0]
    times = ticks_to_seconds(meters[:, 0], columns.scales).tolist()
    starts, states = split_points(
        tuple(columns.scales[:, (1, 3)].tolist()),
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
    notes, counts = fast_cut.to_grid(
        seconds,
        np.argsort(seconds[:, 0], kind="stable"),
        columns.notes,
        np.array([*starts, total]),
        np.array(rates),
    )
    programs, is_drum = columns.instruments.T.copy()
    holds, last_steps = fast_cut.piece_flags(
        notes, *_instrument_flags(programs, is_drum), len(starts)
    )
    return _Grid(notes, counts.tolist(), refused, holds.tolist(), last_steps, programs, is_drum)


def _instrument_flags(programs: np.ndarray, is_drum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits that a note of each instrument sets, int64 [I], and more by pitch [I, 128]."""
    drum = is_drum.astype(np.bool_)
    low = ~drum & _has_program(programs, _MELODY_PROGRAMS)
    flags = np.where(drum, _DRUM, _PITCHED) | np.where(low, _LOW_PROGRAM, 0)
    kinds = _kinds(programs, drum)
    flags |= np.where(kinds < fast_trio.OTHER, 1 << (_TRIO + kinds), 0)
    by_pitch = np.where(
        drum[:, None],
        np.where(_CLASS_BITS > 0, _CLASS, 0)[None, :],
        np.where(_IN_RANGE, _PITCH, 0)[None, :],
    )
    by_pitch |= np.where(low[:, None] & _IN_RANGE[None, :], _LOW_PITCH, 0)
    return flags, by_pitch


def _kinds(programs: np.ndarray, is_drum: np.ndarray) -> np.ndarray:
    """Tell each instrument's part in a trio, int64 [I]."""
    kinds = np.full(len(programs), fast_trio.OTHER)
    kinds[_has_program(programs, _MELODY_PROGRAMS)] = fast_trio.MELODY
    kinds[_has_program(programs, _BASS_PROGRAMS)] = fast_trio.BASS
    kinds[is_drum != 0] = fast_trio.DRUMS
    kinds[trio.MAX_INSTRUMENT + 1 :] = fast_trio.OTHER
    return kinds


def _has_program(programs: np.ndarray, allowed: range | None) -> np.ndarray:
    """Tell which instruments have one of the programs (None: any), bool [I]."""
    if allowed is None:
        return np.ones(len(programs), np.bool_)
    return (programs >= allowed.start) & (programs < allowed.stop)


def _windows(
    grid: _Grid, tokens: np.ndarray, tasks: list[Task], note_off: int, dedupe: bool
) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Rows, and windows of each piece, of tasks that differ in programs and length."""
    tracks = fast_cut.lay_out(tokens, len(grid.counts))
    num_bars = int(tracks[:, fast_cut.NUM_BARS].sum())
    flat = np.zeros((num_bars, STEPS_PER_BAR), tasks[0].token_dtype)
    fast_cut.write_tracks(tokens, tracks, note_off, flat.reshape(-1))
    bars = flat.view(np.int64)
    found = {}
    for task in tasks:
        allowed = _has_program(grid.programs, task.tracks[0].programs)
        total = fast_cut.count_windows(tracks, allowed, task.num_bars)
        rows = np.empty((total + 1, task.num_bars, bars.shape[1]), np.int64)
        counts = np.zeros(len(grid.counts), np.int64)
        kept = fast_cut.cut_windows(bars, tracks, allowed, note_off > 0, dedupe, rows, counts)
        shaped = rows[:kept].view(task.token_dtype).reshape(kept, task.num_steps)
        found[task.name] = shaped, counts.tolist()
    return found


def _trio_rows(
    grid: _Grid, notes: np.ndarray, tokens: np.ndarray, task: Task
) -> tuple[np.ndarray, list[int]]:
    """Rows of a trio task, and how many each piece gave."""
    kept, counts = [np.zeros((0, *task.row_shape), task.token_dtype)], [0] * len(grid.counts)
    kinds = _kinds(grid.programs, grid.is_drum)
    for piece, (holds, num_bars) in enumerate(zip(grid.holds, _num_bars(grid), strict=True)):
        if holds >> _TRIO != 7 or num_bars < task.num_bars:
            continue
        flat, has_token, covered = fast_trio.columns(
            notes, tokens, kinds, _CLASS_BITS, piece, num_bars
        )
        groups = fast_trio.groups(kinds, has_token)
        rows = fast_trio.cut_groups(flat, covered, groups, task.num_bars, trio.MAX_ROWS)
        kept.append(rows)
        counts[piece] = len(rows)
    return kept[1] if len(kept) == 2 else np.concatenate(kept), counts


def _num_bars(grid: _Grid) -> list[int]:
    """Length of each piece in bars, as far as a trio looks."""
    return np.minimum(-(-grid.last_steps // STEPS_PER_BAR), trio.MAX_BARS).tolist()


def _extraction(grid: _Grid, task: Task, rows: np.ndarray, counts: list[int]) -> Extraction:
    """Count the reasons of the pieces without rows."""
    reasons: dict[str, int] = {}
    why_empty, most_notes = NO_NOTES, 0
    num_bars = _num_bars(grid)
    for piece, count in enumerate(counts):
        if count:
            continue
        reason = grid.refused[piece]
        if reason is None and not grid.counts[piece]:
            reason = NO_NOTES
        if reason is None:
            reason = _reason(task, grid.holds[piece], num_bars[piece])
        reasons[reason] = reasons.get(reason, 0) + 1
        if grid.counts[piece] > most_notes:
            why_empty, most_notes = reason, grid.counts[piece]
    if not counts:
        reasons[NO_NOTES] = 1
    return Extraction(rows, reasons, None if len(rows) else why_empty, sum(counts))


def _reason(task: Task, holds: int, num_bars: int) -> str:
    """Why a piece that holds notes gave no row."""
    programs = task.tracks[0].programs
    if len(task.tracks) == 3:
        if missing := [
            name for i, name in enumerate(trio.TYPE_NAMES) if not holds >> _TRIO + i & 1
        ]:
            return "no band: no " + ", no ".join(missing)
        return TOO_SHORT if num_bars < task.num_bars else trio.NOT_TOGETHER
    if task.tracks[0].kind == "drums":
        if not holds & _DRUM:
            return drums.NO_DRUMS
        return TOO_SHORT if holds & _CLASS else drums.NO_CLASSES
    if not holds & _PITCHED:
        return melody.NO_MELODY
    if programs is not None and not holds & _LOW_PROGRAM:
        return melody.wrong_programs(programs)
    in_range = holds & (_PITCH if programs is None else _LOW_PITCH)
    return TOO_SHORT if in_range else melody.NO_PITCHES

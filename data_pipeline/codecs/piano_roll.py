"""The codec of piano rolls: where notes start, in bars of 96 ticks, whatever their meter.

A unit of music is read as a whole, unlike other tracks, which are read between changes of tempo and
meter: bars follow its time signatures, and each is divided into 96 ticks. All instruments but the
drums are taken together; a note's length and loudness are not kept.

Reference: a Matura thesis of 2020 on video-game music (docs/systems.md).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.codecs.figures import NUM_PITCHES, TrackFigures, counted
from data_pipeline.codecs.pieces import Cutter, Excerpt, Part, Piece
from data_pipeline.codecs.windows import Encoded
from data_pipeline.reading.extraction import NO_NOTES, TOO_SHORT
from data_pipeline.reading.segments import (
    BAD_METER,
    DEFAULT_METER,
    DEFAULT_QPM,
    STEP_DTYPE,
    NoteArrays,
)
from musicvae_jax import tokens
from musicvae_jax.config import InputError
from musicvae_jax.tasks import (
    LOWEST_ROLL_PITCH,
    ROLL_PITCHES,
    ROLL_TICKS,
    STEPS_PER_BAR,
    RollTask,
    Task,
    Track,
)

PANEL_SHARE = 6  # height in pictures, relative to other kinds
HAS_LENGTHS = False
HOP_BARS = 4  # between two windows

NO_STARTS = "no notes but drums in pitches 12..107"
TOO_MANY = "window: too many note starts"
SILENT = "window: no note starts"
_MOST_BARS = 100_000


class Windows(NamedTuple):
    """The rows of a unit of music.

    Attributes:
      rows: uint16 [N, T].
      bars: int64 [N], first bar of each row, from 0.
      num_bars: of the unit.
      reasons: windows left out, by reason; or why there are none.
    """

    rows: np.ndarray
    bars: np.ndarray
    num_bars: int
    reasons: dict[str, int]


def windows_of(unit: NoteArrays, task: RollTask, *, pad: bool = False) -> Windows | str:
    """Cut a unit of music into windows that hop by `HOP_BARS`, or say why there is none.

    Args:
      unit: notes, tempos and time signatures.
      task: of the rows.
      pad: take one window of what is shorter than a row, silence after it.
    """
    notes = unit.notes[~unit.notes["is_drum"]]
    pitches = notes["pitch"].astype(np.int64) - LOWEST_ROLL_PITCH
    kept = (pitches >= 0) & (pitches < ROLL_PITCHES)
    if not kept.any():
        return NO_STARTS
    if any(numerator < 1 or denominator < 1 for _, numerator, denominator in unit.meters):
        return BAD_METER
    lines, at = bar_lines(unit), beats(unit, notes["start"][kept])
    bars = np.clip(np.searchsorted(lines, at, side="right") - 1, 0, len(lines) - 2)
    parts = (at - lines[bars]) / (lines[bars + 1] - lines[bars])
    ticks = np.floor((bars + parts) * ROLL_TICKS + 0.5).astype(np.int64)
    cells = np.unique(np.maximum(ticks, 0) * ROLL_PITCHES + pitches[kept])
    num_bars = max(int(bars.max()), int(cells[-1]) // (ROLL_TICKS * ROLL_PITCHES)) + 1
    first = range(0, max(num_bars - task.num_bars + 1, int(pad)), HOP_BARS)
    return _cut(cells, first, num_bars, task)


def _cut(cells: np.ndarray, first: Sequence[int], num_bars: int, task: RollTask) -> Windows:
    """Cut windows that begin at the bars `first` from sorted cells."""
    rows, bars = [np.zeros((0, task.num_entries), np.uint16)], []
    reasons = collections.Counter[str]()
    size = ROLL_TICKS * ROLL_PITCHES
    for bar in first:
        bounds = np.searchsorted(cells, [bar * size, (bar + task.num_bars) * size])
        own = cells[bounds[0] : bounds[1]] - bar * size
        if not len(own):
            reasons[SILENT] += 1
        elif len(own) > task.most_starts:
            reasons[TOO_MANY] += 1
        else:
            rows.append(tokens.roll_row(own, task)[None])
            bars.append(bar)
    return Windows(np.concatenate(rows), np.array(bars, np.int64), num_bars, dict(reasons))


def beats(unit: NoteArrays, seconds: np.ndarray) -> np.ndarray:
    """Return how many quarter notes have passed at times in seconds, float64 [N]."""
    tempos = sorted([(0.0, DEFAULT_QPM), *unit.tempos], key=lambda tempo: tempo[0])
    times = np.array([time for time, _ in tempos])
    rates = np.array([qpm for _, qpm in tempos]) / 60.0
    passed = np.concatenate([[0.0], np.cumsum(np.diff(times) * rates[:-1])])
    at = np.maximum(np.searchsorted(times, seconds, side="right") - 1, 0)
    return passed[at] + (seconds - times[at]) * rates[at]


def bar_lines(unit: NoteArrays) -> np.ndarray:
    """Return where bars begin, and the last ends, in quarter notes: float64 [bars + 1].

    A time signature begins a bar; the bar before it may be cut short.
    """
    changes = {0.0: DEFAULT_METER}
    for time, numerator, denominator in sorted(unit.meters, key=lambda meter: meter[0]):
        changes[max(time, 0.0)] = (numerator, denominator)
    last = max(unit.total_seconds, float(unit.notes["start"].max(initial=0.0)))
    starts = beats(unit, np.array([*changes, last]))
    lines = [0.0]
    for start, end, meter in zip(starts[:-1], starts[1:], changes.values(), strict=True):
        length = 4.0 * meter[0] / meter[1]
        whole = min(int(np.ceil((end - start) / length - 1e-6)), _MOST_BARS)
        lines += [start + length * n for n in range(1, whole)]
        if whole > 0:
            lines.append(end)
    numerator, denominator = list(changes.values())[-1]
    length = 4.0 * numerator / denominator
    if len(lines) == 1:  # all notes start at 0
        return np.array([0.0, length])
    lines[-1] = max(lines[-1], lines[-2] + length)  # the last bar is whole
    return np.array(lines)


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


class _WholePieces:
    """Cuts rows from a piece as a whole; see `Cutter`."""

    in_fast_engine = False

    def parts(self, piece: Piece, task: Task) -> list[Part]:
        """Return the one part; what it leaves out are windows, if it has any."""
        num_notes = len(piece.unit.notes)
        found = windows_of(piece.unit, _checked(task)) if num_notes else NO_NOTES
        if isinstance(found, str):
            return [Part(None, {found: 1}, num_notes)]
        if not len(found.rows):
            return [Part(None, found.reasons or {TOO_SHORT: 1}, num_notes)]
        no_instruments = np.zeros((len(found.rows), 0), np.int64)
        rows = Encoded(found.rows, found.bars, no_instruments)
        return [Part(rows, found.reasons, num_notes)]

    def excerpts(
        self, piece: Piece, task: Task, *, pad: bool = False, at_end: bool = False
    ) -> list[Excerpt]:
        """List the rows; silence comes after what is shorter than a row, also with `at_end`."""
        del at_end
        found = windows_of(piece.unit, _checked(task), pad=pad)
        if isinstance(found, str):
            return []
        silence = (0, max(task.num_bars - found.num_bars, 0))
        qpm = piece.unit.tempos[0][1] if piece.unit.tempos else DEFAULT_QPM
        starts = [len(tokens.roll_starts(row[None])[1]) for row in found.rows]
        return [
            RollExcerpt("", row, bar + 1, 0.0, (), num, num, silence, qpm, task.num_bars)
            for row, bar, num in zip(found.rows, found.bars.tolist(), starts, strict=True)
        ]


CUTTER: Cutter = _WholePieces()


def _checked(task: Task) -> RollTask:
    """Return a task whose track is of this kind."""
    if not isinstance(task, RollTask):
        raise TypeError(f"{task.name} lists no note starts")
    return task


def decode(row: np.ndarray, *, program: int = 0) -> np.ndarray:
    """Read the note starts of one row as notes.

    Args:
      row: entries [T].
      program: General MIDI program.

    Returns:
      Notes of STEP_DTYPE by start, then pitch; a step is a tick. They last to the next start of
      any note, at most a bar.
    """
    _, cells = tokens.roll_starts(np.asarray(row)[None])
    ticks, pitches = np.divmod(cells, ROLL_PITCHES)
    notes = np.zeros(len(cells), STEP_DTYPE)
    notes["start_step"], notes["pitch"] = ticks, pitches + LOWEST_ROLL_PITCH
    starts, index = np.unique(ticks, return_inverse=True)
    end = (int(ticks.max(initial=0)) // ROLL_TICKS + 1) * ROLL_TICKS
    notes["end_step"] = ticks + np.minimum(np.diff(starts, append=end), ROLL_TICKS)[index]
    notes["program"] = program
    return notes


def melody_of(row: np.ndarray, task: Task) -> np.ndarray:
    """Keep the highest note of those that start together: [T]."""
    _, cells = tokens.roll_starts(np.asarray(row)[None])
    is_highest = np.append(np.diff(cells // ROLL_PITCHES) > 0, True)[: len(cells)]
    return tokens.roll_row(cells[is_highest], _checked(task))


def vocabulary(track: Track) -> dict[str, str]:
    """Say what the entries mean: {entry or range of entries: meaning}."""
    last = track.num_classes - 1
    return {
        "0": "end of the list",
        f"1..{last - 1}": "distance to the next note start, in cells (96 a tick, 12..107 upwards)",
        f"{last}": f"{last - 1} cells without a note start",
    }


def words(row: np.ndarray) -> list[str]:
    """Write each note start as bar.tick:pitch."""
    notes = decode(row)
    return [
        f"{start // ROLL_TICKS + 1}.{start % ROLL_TICKS}:{pitch}"
        for start, pitch in zip(notes["start_step"].tolist(), notes["pitch"].tolist(), strict=True)
    ]


def read_words(words: Sequence[str]) -> np.ndarray:
    """Refuse text.

    Raises:
      InputError: always.
    """
    raise InputError("piano rolls cannot be written as text; give a file")


def figures(rows: np.ndarray, track: Track) -> TrackFigures:
    """Count the note starts of rows [N, T] by 16th of the bar and pitch; they have no lengths."""
    ticks, pitches = np.divmod(tokens.roll_starts(rows)[1], ROLL_PITCHES)
    return TrackFigures(
        track=track,
        positions=counted(ticks % ROLL_TICKS * STEPS_PER_BAR // ROLL_TICKS, STEPS_PER_BAR),
        pitches=counted(pitches + LOWEST_ROLL_PITCH, NUM_PITCHES),
        lengths=np.zeros(0, np.int64),
        classes={},
    )


def drawn_notes(row: np.ndarray) -> np.ndarray:
    """Return start, length in ticks and pitch of the notes of a row: [N, 3].

    A note start is drawn as wide as a 32nd of a bar.
    """
    notes = decode(row)
    lengths = np.full(len(notes), ROLL_TICKS // 32)
    return np.stack([notes["start_step"], lengths, notes["pitch"]], axis=1)


def drawn_lines(used: np.ndarray) -> tuple[int, int]:
    """Return the lowest and highest pitch to show: whole octaves that hold all notes."""
    if not len(used):
        return 48, 71
    return int(used.min()) // 12 * 12, int(used.max()) // 12 * 12 + 11


def line_names(low: int, high: int) -> dict[int, str]:
    """Name the Cs from low to high."""
    return {pitch: f"C{pitch // 12 - 1}" for pitch in range(low, high + 1) if pitch % 12 == 0}

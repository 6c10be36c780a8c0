"""Rows of tokens to NoteSequences, MIDI files, pictures and text.

Reference: magenta/models/music_vae/data.py (from_tensors): velocity 80, 120 quarters per
minute, melody on program 0, bass on program 33, drums one step long.
"""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipeline import drums, melody, trio
from data_pipeline.notes import import_note_seq
from data_pipeline.pieces import DEFAULT_QPM
from musicvae_jax.config import InputError
from musicvae_jax.tasks import (
    DRUM_CLASS_NAMES,
    FIRST_NOTE_ON,
    MIN_PITCH,
    NO_EVENT,
    NOTE_OFF,
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    Task,
    Track,
    get_task,
)

if TYPE_CHECKING:
    from note_seq import NoteSequence

VELOCITY = 80
TICKS_PER_QUARTER = 220
MAX_PICTURED_ROWS = 64

_PITCH_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_DRUM_LETTERS = "KSHOLMTCR"  # one per class, in the order of DRUM_CLASS_NAMES
_COLOURS = {"melody": "#1f6fb4", "bass": "#c8553d", "drums": "#3c3c3c"}


def row_to_sequence(
    row: np.ndarray, task_name: str, *, qpm: float = DEFAULT_QPM, program: int | None = None
) -> NoteSequence:
    """Turn one row into a NoteSequence.

    Args:
      row: tokens [T], or [T, 3] for trios.
      task_name: key of `TASKS`.
      qpm: quarters per minute.
      program: General MIDI program of the melody; None takes 0.

    Raises:
      InputError: the row does not fit the task, or `qpm` or `program` is out of range.
    """
    return concatenate([row], task_name, qpm=qpm, program=program)


def concatenate(
    rows: Sequence[np.ndarray] | np.ndarray,
    task_name: str,
    *,
    rest_bars: int = 1,
    qpm: float = DEFAULT_QPM,
    program: int | None = None,
) -> NoteSequence:
    """Put rows one after the other with bars of rest between them, to listen A/B.

    Args:
      rows: rows as in `row_to_sequence`, lengths may differ.
      task_name: key of `TASKS`.
      rest_bars: bars of silence between two rows.
      qpm: quarters per minute.
      program: General MIDI program of the melody; None takes 0.

    Raises:
      InputError: as `row_to_sequence`.
    """
    check_sound(qpm, program)
    task = get_task(task_name)
    sequence = import_note_seq().NoteSequence(ticks_per_quarter=TICKS_PER_QUARTER)
    sequence.tempos.add(qpm=qpm)
    origin = 0
    for row in rows:
        notes = decode(_checked(row, task), task, program=program or 0)
        _add_notes(sequence, notes, origin, 60.0 / qpm / STEPS_PER_QUARTER)
        bars = -(-len(row) // STEPS_PER_BAR)
        origin += (bars + rest_bars) * STEPS_PER_BAR
    return sequence


def check_sound(qpm: float, program: int | None) -> None:
    """Refuse what no MIDI file can say.

    Raises:
      InputError: `qpm` (quarters per minute) or `program` (General MIDI) is out of range.
    """
    if not 1.0 <= qpm <= 1000.0:
        raise InputError(f"qpm: {qpm!r} is out of range, it must be from 1 to 1000")
    if program is not None and not 0 <= program <= 127:
        raise InputError(f"program: {program!r} is out of range, it must be from 0 to 127")


def decode(row: np.ndarray, task: Task, *, program: int = 0) -> np.ndarray:
    """Read the notes of one row, in steps, as STEP_DTYPE."""
    if len(task.tracks) == 3:
        return trio.decode(row, program=program)
    if task.tracks[0].kind == "drums":
        return drums.decode(row)
    return melody.decode(row, program=program)


def _checked(row: np.ndarray, task: Task) -> np.ndarray:
    """Return the row as an array, or say why it is no row of the task."""
    row = np.asarray(row)
    if row.ndim != len(task.row_shape) or row.shape[1:] != task.row_shape[1:] or not len(row):
        expected = ", ".join(["T", *map(str, task.row_shape[1:])])
        raise InputError(f"row: its shape is {row.shape}, {task.name} has rows of [{expected}]")
    for track, column in zip(task.tracks, _columns(row), strict=True):
        if column.min() < 0 or column.max() >= track.num_classes:
            raise InputError(
                f"row: {track.name} tokens of {task.name} go from 0 to {track.num_classes - 1}, "
                f"this row has {column.min()}..{column.max()}"
            )
    return row


def _columns(row: np.ndarray) -> list[np.ndarray]:
    """Split a row into its tracks, each [T]."""
    return [row] if row.ndim == 1 else list(row.T)


def _add_notes(
    sequence: NoteSequence, notes: np.ndarray, origin: int, seconds_per_step: float
) -> None:
    """Append notes in steps, counted from step `origin`, to a NoteSequence."""
    for note in notes:
        sequence.notes.add(
            start_time=(origin + int(note["start_step"])) * seconds_per_step,
            end_time=(origin + int(note["end_step"])) * seconds_per_step,
            pitch=int(note["pitch"]),
            velocity=VELOCITY,
            program=int(note["program"]),
            instrument=int(note["instrument"]),
            is_drum=bool(note["is_drum"]),
        )
        sequence.total_time = max(sequence.total_time, sequence.notes[-1].end_time)


def midi_bytes(sequence: NoteSequence) -> bytes:
    """Return a MIDI file's content; equal sequences give equal bytes."""
    buffer = io.BytesIO()
    import_note_seq().note_sequence_to_pretty_midi(sequence).write(buffer)
    return buffer.getvalue()


def write_midi(
    path: str | os.PathLike[str],
    rows: np.ndarray | Sequence[np.ndarray],
    task_name: str,
    *,
    qpm: float = DEFAULT_QPM,
    program: int | None = None,
    rest_bars: int = 1,
) -> None:
    """Write one row, or several with rests between them, as one MIDI file.

    The file appears under its name only when it is whole.

    Args:
      path: file to write.
      rows: one row, or a list or array of rows (input and output of a reconstruction).
      task_name: key of `TASKS`.
      qpm: quarters per minute.
      program: General MIDI program of the melody; None takes 0.
      rest_bars: bars of silence between two rows.

    Raises:
      InputError: as `row_to_sequence`.
    """
    if isinstance(rows, np.ndarray) and rows.ndim == len(get_task(task_name).row_shape):
        rows = rows[None]
    sequence = concatenate(rows, task_name, rest_bars=rest_bars, qpm=qpm, program=program)
    _write_whole(path, midi_bytes(sequence))


def _write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write to a temporary name beside the file, then rename."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def row_to_text(row: np.ndarray, task_name: str) -> str:
    """Show a row as text: a word per step, bars between "|", a line per track.

    "." is no event and "^" a note off; drums are one letter per class (K kick, S snare,
    H closed hat, O open hat, L low, M mid, T high tom, C crash, R ride).

    Raises:
      InputError: the row does not fit the task.
    """
    task = get_task(task_name)
    row = _checked(row, task)
    lines = [
        _track_text(column, track) for column, track in zip(_columns(row), task.tracks, strict=True)
    ]
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
    return pitch_name(token - FIRST_NOTE_ON + MIN_PITCH)


def _drum_name(token: int) -> str:
    return "".join(c for bit, c in enumerate(_DRUM_LETTERS) if token >> bit & 1) or "."


def pitch_name(pitch: int) -> str:
    """Name a MIDI pitch; 60 is C4."""
    return f"{_PITCH_NAMES[pitch % 12]}{pitch // 12 - 1}"


def piano_roll_png(
    path: str | os.PathLike[str],
    rows: Sequence[np.ndarray] | np.ndarray,
    task_name: str,
    titles: Sequence[str] | None = None,
    *,
    columns: int = 3,
) -> None:
    """Draw a group of rows as piano rolls in one picture, with bar lines.

    Drums are drawn by class. Of more than MAX_PICTURED_ROWS rows the first are drawn, and
    the picture says so.

    Args:
      path: PNG file to write.
      rows: rows of the task, at least one.
      task_name: key of `TASKS`.
      titles: one per row; None numbers them.
      columns: how many short rows are drawn side by side; long ones never are.

    Raises:
      InputError: no rows, a row does not fit the task, or matplotlib is not installed.
    """
    task = get_task(task_name)
    checked = [_checked(row, task) for row in rows]
    if not checked:
        raise InputError("rows: there are none to draw")
    if titles is None:
        titles = [str(number) for number in range(1, len(checked) + 1)]
    if len(titles) != len(checked):
        raise InputError(f"titles: {len(titles)} for {len(checked)} rows")
    figure = _figure(checked[:MAX_PICTURED_ROWS], task, titles, columns)
    if len(checked) > MAX_PICTURED_ROWS:
        figure.suptitle(f"the first {MAX_PICTURED_ROWS} of {len(checked)}")
    buffer = io.BytesIO()
    # No software name: equal rows give equal bytes, whichever version draws them alike.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    _write_whole(path, buffer.getvalue())


def _figure(rows: list[np.ndarray], task: Task, titles: Sequence[str], columns: int) -> Any:
    """Lay out a panel per row; trios have pitches above drums in each."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install 'musicvae-jax[demo]'") from error
    wide = max(len(row) for row in rows) > 4 * STEPS_PER_BAR
    columns = 1 if wide else min(len(rows), columns)
    lines = -(-len(rows) // columns)
    size = (14.0 if wide else 4.6 * columns, (4.0 if len(task.tracks) == 3 else 2.2) * lines + 0.4)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subfigures(lines, columns, squeeze=False).ravel()
    notes = [decode(row, task) for row in rows]
    # One range of pitches for the whole group, so that panels can be compared.
    limits = _pitch_limits(np.concatenate([part["pitch"][~part["is_drum"]] for part in notes]))
    for panel, row, part, title in zip(panels, rows, notes, titles, strict=False):
        _draw_row(panel, part, len(row), task, title, limits)
    return figure


def _draw_row(
    panel: Any,
    notes: np.ndarray,
    num_steps: int,
    task: Task,
    title: str,
    limits: tuple[int, int],
) -> None:
    """Draw one row's notes: pitches within limits, drums, or both one above the other."""
    kinds = list(dict.fromkeys(track.kind for track in task.tracks))
    ratios = [1.5, 1.2][: len(kinds)]
    axes = panel.subplots(len(kinds), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    axes[0].set_title(title, fontsize=9, loc="left")
    for axis, kind in zip(axes, kinds, strict=True):
        if kind == "drums":
            _draw_drums(axis, notes[notes["is_drum"]])
        else:
            _draw_pitches(axis, notes[~notes["is_drum"]], limits)
        _mark_bars(axis, num_steps)
    if len(kinds) > 1:
        # Above the notes, beside the title, where it covers nothing.
        axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=7, frameon=False)
    axes[-1].set_xlabel("bar", fontsize=8)


def _mark_bars(axis: Any, num_steps: int) -> None:
    """Number the bars, draw their lines and faint ones for beats."""
    bars = np.arange(0, num_steps + 1, STEPS_PER_BAR)
    axis.set_xlim(0, num_steps)
    axis.set_xticks(bars[:-1] if num_steps % STEPS_PER_BAR == 0 else bars)
    axis.set_xticklabels(range(1, len(axis.get_xticks()) + 1), fontsize=7)
    axis.set_xticks(np.arange(0, num_steps, STEPS_PER_QUARTER), minor=True)
    axis.grid(axis="x", which="major", color="#888888", linewidth=0.9)
    axis.grid(axis="x", which="minor", color="#dddddd", linewidth=0.5)
    axis.tick_params(axis="x", which="minor", length=0)
    axis.set_axisbelow(True)


def _draw_pitches(axis: Any, notes: np.ndarray, limits: tuple[int, int]) -> None:
    """Draw notes as bars; the bass has its own colour."""
    is_bass = notes["instrument"] == trio.BASS_INSTRUMENT
    for name, part in (("melody", notes[~is_bass]), ("bass", notes[is_bass])):
        lengths = part["end_step"] - part["start_step"]
        axis.barh(
            part["pitch"],
            lengths - 0.15,  # so that two notes in a row are told apart
            left=part["start_step"],
            height=0.8,
            color=_COLOURS[name],
            label=name,
        )
    low, high = limits
    axis.set_ylim(low - 0.5, high + 0.5)
    named = (0, 7) if high - low < 30 else (0,)
    ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 in named]
    axis.set_yticks(ticks)
    axis.set_yticklabels([pitch_name(pitch) for pitch in ticks], fontsize=7)
    axis.grid(axis="y", color="#eeeeee", linewidth=0.5)
    if not len(notes):
        axis.text(0.5, 0.5, "no notes", transform=axis.transAxes, ha="center", va="center")


def _pitch_limits(pitches: np.ndarray) -> tuple[int, int]:
    """Return the lowest and highest pitch to show: at least 14, so that a C and a G are named."""
    low, high = (int(pitches.min()), int(pitches.max())) if len(pitches) else (60, 72)
    margin = max(1, -(-(13 - (high - low)) // 2))
    return low - margin, high + margin


def _draw_drums(axis: Any, notes: np.ndarray) -> None:
    """Draw hits, a line per class."""
    classes = [
        next(i for i, pitches in enumerate(drums.CLASS_PITCHES) if pitch in pitches)
        for pitch in notes["pitch"].tolist()
    ]
    axis.barh(classes, 0.8, left=notes["start_step"], height=0.7, color=_COLOURS["drums"])
    axis.set_ylim(-0.6, len(DRUM_CLASS_NAMES) - 0.4)
    axis.set_yticks(range(len(DRUM_CLASS_NAMES)))
    axis.set_yticklabels(DRUM_CLASS_NAMES, fontsize=7)
    axis.grid(axis="y", color="#eeeeee", linewidth=0.5)

"""Notes as plain arrays, split at changes of tempo and meter, on a grid of 16th steps.

Readers of all formats return a `NoteArrays` and know nothing about tasks. This module does not
import note-seq, so that readers without it start fast.

Reference: note_seq/sequences_lib.py (split_note_sequence_on_time_changes,
quantize_note_sequence), as magenta/models/music_vae/data.py calls them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from musicvae_jax.config import InputError
from musicvae_jax.tasks import STEPS_PER_QUARTER

METERS = ("4/4", "any")
DEFAULT_METER = (4, 4)
DEFAULT_QPM = 120.0

NOT_4_4 = "not 4/4"
BAD_METER = "bad time signature"
BAD_TIMES = "note times out of range"

# Past 2**53 a float64 no longer holds every whole step.
_MAX_STEP = float(2**53)

# `instrument` tells tracks apart: one number per track x channel x program of a MIDI file.
NOTE_DTYPE = np.dtype(
    [
        ("start", np.float64),  # seconds
        ("end", np.float64),  # seconds
        ("pitch", np.int16),  # MIDI pitch
        ("program", np.int16),  # General MIDI program, from 0
        ("instrument", np.int32),
        ("is_drum", np.bool_),
    ]
)
STEP_DTYPE = np.dtype(
    [
        ("start_step", np.int64),
        ("end_step", np.int64),  # exclusive, greater than start_step
        ("pitch", np.int16),
        ("program", np.int16),
        ("instrument", np.int32),
        ("is_drum", np.bool_),
    ]
)


@dataclasses.dataclass(frozen=True)
class NoteArrays:
    """The result of a reader: the sounding notes of one unit of music.

    Attributes:
      notes: [N] of NOTE_DTYPE, any order, velocity greater than 0.
      tempos: (seconds, quarters per minute) of each tempo event, in file order.
      meters: (seconds, numerator, denominator) of each time signature, in file order.
      total_seconds: end of the music; at least the last note's end.
    """

    notes: np.ndarray
    tempos: tuple[tuple[float, float], ...] = ()
    meters: tuple[tuple[float, int, int], ...] = ()
    total_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Segment:
    """The notes between two time changes, in steps counted from the segment's start.

    Attributes:
      notes: [N] of STEP_DTYPE, by start time.
      total_steps: end of the last note.
      start_seconds: where the segment begins in its unit.
      reason: why the segment cannot be used (`NOT_4_4`, ...), or None.
      qpm: tempo, quarter notes per minute.
    """

    notes: np.ndarray
    total_steps: int
    start_seconds: float
    reason: str | None = None
    qpm: float = DEFAULT_QPM


def split_segments(unit: NoteArrays, meter: str = "4/4") -> list[Segment]:
    """Split a unit at its time changes and quantise each segment to 16th steps.

    Args:
      unit: the notes and changes.
      meter: "4/4" marks segments in other meters with a reason; "any" ignores time
        signatures, so that bars of 4/4 are counted from each segment's start.

    Returns:
      Segments in order of time, also those without notes; none if the unit has no length.

    Raises:
      InputError: `meter` is neither.
    """
    if meter not in METERS:
        raise InputError(f"meter: {meter!r} is not one of {', '.join(METERS)}")
    meters = unit.meters if meter == "4/4" else ()
    if not unit.total_seconds > 0.0:
        return []
    starts, states = split_points(unit.tempos, meters, unit.total_seconds)
    ends = [*starts[1:], unit.total_seconds]
    order = np.argsort(unit.notes["start"], kind="stable")
    notes = unit.notes[order]
    bounds = np.searchsorted(notes["start"], [*starts, unit.total_seconds], side="left")
    return [
        _quantised_segment(notes[bounds[i] : bounds[i + 1]], starts[i], ends[i], *states[i])
        for i in range(len(starts))
    ]


def split_points(
    tempos: tuple[tuple[float, float], ...],
    meters: tuple[tuple[float, int, int], ...],
    total_seconds: float,
) -> tuple[list[float], list[tuple[tuple[int, int], float]]]:
    """Return where each segment starts, in seconds, and the meter and tempo in force from there.

    A change starts a segment if it changes anything, and lies after the last split and before the
    end.
    """
    # At one time, time signatures come before tempos; the sort is stable.
    events: list[tuple[float, tuple[int, int] | None, float | None]]
    events = [(time, (numerator, denominator), None) for time, numerator, denominator in meters]
    events += [(time, None, qpm) for time, qpm in tempos]
    events.sort(key=lambda event: event[0])
    state = (DEFAULT_METER, DEFAULT_QPM)
    starts, states = [0.0], [state]
    for time, new_meter, new_qpm in events:
        if time >= total_seconds:
            break
        new_state = (new_meter or state[0], state[1] if new_qpm is None else new_qpm)
        if new_state == state:
            continue
        state = new_state
        if time > starts[-1]:
            starts.append(time)
            states.append(state)
        else:  # several changes at one time: the last one counts
            states[-1] = state
    return starts, states


def _quantised_segment(
    notes: np.ndarray, start: float, end: float, meter: tuple[int, int], qpm: float
) -> Segment:
    """Shift a slice of notes to the segment's start, cut it at its end, and quantise it."""
    steps_per_second = STEPS_PER_QUARTER * qpm / 60.0
    with np.errstate(over="ignore", invalid="ignore"):  # such times are refused below
        start_steps = (notes["start"] - start) * steps_per_second + 0.5
        end_steps = (np.minimum(notes["end"], end) - start) * steps_per_second + 0.5
    reason = refuse_meter(*meter)
    if not (np.all(np.abs(start_steps) < _MAX_STEP) and np.all(np.abs(end_steps) < _MAX_STEP)):
        return Segment(np.zeros(0, STEP_DTYPE), 0, start, BAD_TIMES)
    steps = np.empty(len(notes), STEP_DTYPE)
    steps["start_step"] = start_steps.astype(np.int64)
    steps["end_step"] = np.maximum(end_steps.astype(np.int64), steps["start_step"] + 1)
    for field in ("pitch", "program", "instrument", "is_drum"):
        steps[field] = notes[field]
    total_steps = int(steps["end_step"].max(initial=0))
    return Segment(steps, total_steps, start, reason, qpm)


def refuse_meter(numerator: int, denominator: int) -> str | None:
    """Return the reason why a bar of this meter is not 16 steps, or None."""
    if numerator <= 0 or denominator <= 0 or denominator & (denominator - 1):
        return BAD_METER
    return None if numerator == denominator else NOT_4_4

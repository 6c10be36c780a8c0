"""Tiny pieces and units of music, written as lists of tuples."""

from __future__ import annotations

import numpy as np

from data_pipeline.reading.segments import NOTE_DTYPE, STEP_DTYPE, NoteArrays, Segment

SECONDS_PER_STEP = 0.125  # a 16th at 120 quarters per minute

StepNote = tuple[int, int, int]


def steps(
    *notes: StepNote, program: int = 0, instrument: int = 0, is_drum: bool = False
) -> np.ndarray:
    """Notes of one instrument from (start step, end step, pitch)."""
    return np.array([(*note, program, instrument, is_drum) for note in notes], STEP_DTYPE)


def segment(*parts: np.ndarray) -> Segment:
    """A piece of several instruments' notes."""
    notes = np.concatenate(parts)
    return Segment(notes, int(notes["end_step"].max(initial=0)), 0.0)


def unit(
    *parts: np.ndarray,
    tempos: tuple[tuple[float, float], ...] = (),
    meters: tuple[tuple[float, int, int], ...] = (),
) -> NoteArrays:
    """A unit from notes in steps of 120 quarters per minute."""
    grid = np.concatenate(parts)
    notes = np.zeros(len(grid), NOTE_DTYPE)
    notes["start"] = grid["start_step"] * SECONDS_PER_STEP
    notes["end"] = grid["end_step"] * SECONDS_PER_STEP
    for field in ("pitch", "program", "instrument", "is_drum"):
        notes[field] = grid[field]
    return NoteArrays(notes, tempos, meters, float(notes["end"].max(initial=0.0)))


def row(num_steps: int, **events: int) -> list[int]:
    """A row of zeros but for the events, named "s<step>"."""
    tokens = [0] * num_steps
    for name, token in events.items():
        tokens[int(name[1:])] = token
    return tokens

"""Melody tokens: 0 no event, 1 note off, 2 + (pitch - 21) note on.

Reference: note_seq/melodies_lib.py (Melody.from_quantized_sequence) and
magenta/models/music_vae/data.py (OneHotMelodyConverter).

Differences from the reference, none of which moves a number on its own files:
- Drum notes are left out before a melody's first bar is found; the reference counts a drum
  note's bar. A MIDI file never mixes the two in one instrument.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.codecs.windows import lay_out, windows
from data_pipeline.reading.segments import STEP_DTYPE, Segment
from musicvae_jax.tasks import FIRST_NOTE_ON, MAX_PITCH, MIN_PITCH, NO_EVENT, NOTE_OFF
from musicvae_jax.tokens import melody_notes, note_ons

NO_MELODY = "no melody: no notes but drums"
NO_PITCHES = "no melody: no pitches 21..108"


def wrong_programs(programs: range) -> str:
    """Return the reason for a piece whose notes all have other programs."""
    return f"no melody in programs {programs.start}..{programs.stop - 1}"


def encode(segment: Segment, num_steps: int, programs: range | None) -> np.ndarray | str:
    """Cut every melody of every instrument into windows that hop by one bar.

    Args:
      segment: quantised notes.
      num_steps: T, steps per window.
      programs: General MIDI programs to use; None uses all.

    Returns:
      Tokens uint8 [N, T], N = 0 if every melody is shorter; or the reason why the piece has
      no melody at all.
    """
    notes = segment.notes[~segment.notes["is_drum"]]
    if not len(notes):
        return NO_MELODY
    notes = notes[has_program(notes, programs)]
    if programs is not None and not len(notes):
        return wrong_programs(programs)
    notes = monophonic(notes)
    if not len(notes):
        return NO_PITCHES
    layout = lay_out(notes["start_step"], notes["end_step"], notes["instrument"])
    events = layout.empty(np.uint8)
    layout.write(events, notes["end_step"], np.full(len(notes), NOTE_OFF), heard_offs(notes))
    layout.write(events, notes["start_step"], tokens(notes), np.ones(len(notes), np.bool_))
    return _clear_leading_offs(windows(events, layout, num_steps))


def has_program(notes: np.ndarray, programs: range | None) -> np.ndarray:
    """Tell which notes have one of the programs (None: any), bool [N]."""
    if programs is None:
        return np.ones(len(notes), np.bool_)
    return (notes["program"] >= programs.start) & (notes["program"] < programs.stop)


def monophonic(notes: np.ndarray) -> np.ndarray:
    """Keep notes that have a token and, of those that start together, the highest.

    Returns:
      Notes of STEP_DTYPE by instrument, then start.
    """
    notes = notes[(notes["pitch"] >= MIN_PITCH) & (notes["pitch"] <= MAX_PITCH)]
    notes = notes[np.lexsort((-notes["pitch"], notes["start_step"], notes["instrument"]))]
    keep = np.ones(len(notes), np.bool_)
    keep[1:] = (np.diff(notes["start_step"]) != 0) | (np.diff(notes["instrument"]) != 0)
    return notes[keep]


def heard_offs(notes: np.ndarray) -> np.ndarray:
    """Tell which notes of `monophonic` end before the next one of their instrument begins."""
    heard = np.ones(len(notes), np.bool_)
    heard[:-1] = (notes["end_step"][:-1] < notes["start_step"][1:]) | (
        np.diff(notes["instrument"]) != 0
    )
    return heard


def tokens(notes: np.ndarray) -> np.ndarray:
    """Return the note-on token of each note, int [N]."""
    return note_ons(notes["pitch"])


def _clear_leading_offs(rows: np.ndarray) -> np.ndarray:
    """Turn note offs before a row's first note into no events, [N, T]."""
    started = np.logical_or.accumulate(rows >= FIRST_NOTE_ON, axis=1)
    return np.where(started, rows, NO_EVENT).astype(rows.dtype)


def decode(row: np.ndarray, *, program: int = 0, instrument: int = 0) -> np.ndarray:
    """Read the notes of one row.

    A note lasts to the next note, the next note off, or the row's end.

    Args:
      row: tokens [T].
      program: General MIDI program of the notes.
      instrument: instrument number of the notes.

    Returns:
      Notes of STEP_DTYPE by start.
    """
    _, starts, lengths, pitches = melody_notes(np.asarray(row)[None, :])
    notes = np.zeros(len(starts), STEP_DTYPE)
    notes["start_step"], notes["end_step"], notes["pitch"] = starts, starts + lengths, pitches
    notes["program"], notes["instrument"] = program, instrument
    return notes

"""The codec of melodies: 0 no event, 1 note off, 2 + (pitch - 21) note on.

Reference: note_seq/melodies_lib.py (Melody.from_quantized_sequence) and
magenta/models/music_vae/data.py (OneHotMelodyConverter).

Difference from the reference, which changes no result on its own files:
- Drum notes are left out before a melody's first bar is found; the reference counts a drum
  note's bar. A MIDI file never mixes the two in one instrument.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from data_pipeline.codecs.figures import MAX_LENGTH, NUM_PITCHES, TrackFigures, counted
from data_pipeline.codecs.pieces import BySegment, Cutter
from data_pipeline.codecs.windows import Encoded, lay_out, windows
from data_pipeline.reading.programs import describe
from data_pipeline.reading.segments import STEP_DTYPE, Segment
from musicvae_jax.config import InputError
from musicvae_jax.tasks import MAX_PITCH, MIN_PITCH, NO_EVENT, NOTE_OFF, STEPS_PER_BAR, Track
from musicvae_jax.tokens import melody_notes, note_ons, pitches

NO_MELODY = "no melody: no notes but drums"
WRONG_PROGRAMS = "no melody in programs "
NO_PITCHES = "no melody: no pitches 21..108"

PANEL_SHARE = 5  # height in pictures, relative to other kinds
HAS_LENGTHS = True

_PITCH_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def wrong_programs(programs: Collection[int]) -> str:
    """Return the reason for a segment whose notes all have other programs."""
    return WRONG_PROGRAMS + describe(programs)


def encode(segment: Segment, track: Track, num_steps: int) -> Encoded | str:
    """Cut every melody of every instrument into windows that hop by one bar.

    Args:
      segment: quantised notes.
      track: its programs are used.
      num_steps: T, steps per window.

    Returns:
      Rows uint8, none if every melody is shorter; or the reason why the segment has no melody.
    """
    programs = track.programs
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
    layout.write(events, notes["end_step"], np.full(len(notes), NOTE_OFF), note_offs(notes))
    layout.write(
        events, notes["start_step"], note_ons(notes["pitch"]), np.ones(len(notes), np.bool_)
    )
    found = windows(events, layout, num_steps)
    return found._replace(rows=_clear_leading_offs(found.rows))


CUTTER: Cutter = BySegment(lambda segment, task: encode(segment, task.tracks[0], task.num_steps))


def has_program(notes: np.ndarray, programs: Collection[int] | None) -> np.ndarray:
    """Tell which notes have one of the programs (None: any), bool [N]."""
    if programs is None:
        return np.ones(len(notes), np.bool_)
    return np.isin(notes["program"], list(programs))


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


def note_offs(notes: np.ndarray) -> np.ndarray:
    """Tell which notes of `monophonic` end before the next one of their instrument begins."""
    has_off = np.ones(len(notes), np.bool_)
    has_off[:-1] = (notes["end_step"][:-1] < notes["start_step"][1:]) | (
        np.diff(notes["instrument"]) != 0
    )
    return has_off


def _clear_leading_offs(rows: np.ndarray) -> np.ndarray:
    """Turn note offs before a row's first note into no events, [N, T]."""
    started = np.logical_or.accumulate(rows > NOTE_OFF, axis=1)
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
    found = melody_notes(np.asarray(row)[None, :])
    notes = np.zeros(len(found.start), STEP_DTYPE)
    notes["start_step"], notes["end_step"] = found.start, found.start + found.length
    notes["pitch"] = found.pitch
    notes["program"], notes["instrument"] = program, instrument
    return notes


def column(notes: np.ndarray, num_steps: int) -> np.ndarray | None:
    """Write the notes of one instrument from step 0 on.

    Returns:
      Tokens uint16 [num_steps]; None if no note has a token.
    """
    notes = monophonic(notes)
    starts, ends = notes["start_step"], notes["end_step"]
    tokens = np.zeros(num_steps, np.uint16)
    tokens[ends[note_offs(notes) & (ends < num_steps)]] = NOTE_OFF
    inside = starts < num_steps
    tokens[starts[inside]] = note_ons(notes["pitch"])[inside]
    return tokens if len(notes) else None


def vocabulary(track: Track) -> dict[str, str]:
    """Say what the tokens mean: {token or range of tokens: meaning}."""
    note_on = f"{track.first_onset}..{track.num_classes - 1}"
    return {"0": "no event", "1": "note off", note_on: f"pitch {MIN_PITCH}..{MAX_PITCH} on"}


def words(row: np.ndarray) -> list[str]:
    """Write each step [T]: a pitch name, "^" for a note off, "." for no event."""
    names = {NO_EVENT: ".", NOTE_OFF: "^"}
    row = np.asarray(row, np.int64)
    steps = zip(row.tolist(), pitches(row).tolist(), strict=True)
    return [names.get(token) or pitch_name(pitch) for token, pitch in steps]


def read_words(words: Sequence[str]) -> np.ndarray:
    """Read steps that were written as words: the inverse of `words`, uint16 [T].

    A pitch is a MIDI number or a name (60, C4, F#4, Bb3); "_" or "." is no event: the note is held;
    "r" or "^" is a rest. A rest while nothing sounds is no event.

    Raises:
      InputError: a word is none of these.
    """
    row, sounds = np.zeros(len(words), np.uint16), False
    for step, word in enumerate(words):
        if word in ("_", "."):
            continue
        if word in ("r", "^"):
            row[step] = NOTE_OFF if sounds else NO_EVENT
            sounds = False
            continue
        pitch = _pitch(word)
        if pitch is None or not MIN_PITCH <= pitch <= MAX_PITCH:
            raise InputError(
                f"word {step + 1}, {word!r}, must be a pitch ({MIN_PITCH} to {MAX_PITCH}, or a "
                "name such as C4 or F#4), _ (hold) or r (rest)"
            )
        row[step], sounds = note_ons(np.array(pitch)), True
    return row


def _pitch(word: str) -> int | None:
    """Read a MIDI number or a name, None if it is neither."""
    if word.isascii() and word.isdecimal():
        return int(word)
    match = re.fullmatch(r"([A-G])([#b]?)(-?\d)", word)
    if match is None:
        return None
    letter, accidental, octave = match.groups()
    shift = {"#": 1, "b": -1, "": 0}[accidental]
    return _PITCH_NAMES.index(letter) + shift + 12 * (int(octave) + 1)


def pitch_name(pitch: int) -> str:
    """Name a MIDI pitch; 60 is C4."""
    return f"{_PITCH_NAMES[pitch % 12]}{pitch // 12 - 1}"


def figures(rows: np.ndarray, track: Track) -> TrackFigures:
    """Count the notes of melodies [N, T]."""
    notes = melody_notes(rows)
    return TrackFigures(
        track=track,
        positions=counted(notes.start % STEPS_PER_BAR, STEPS_PER_BAR),
        pitches=counted(notes.pitch, NUM_PITCHES),
        lengths=counted(np.minimum(notes.length, MAX_LENGTH) - 1, MAX_LENGTH),
        classes={},
    )


def drawn_notes(row: np.ndarray) -> np.ndarray:
    """Return start step, length in steps and MIDI pitch of the notes of a row [T]: [N, 3]."""
    notes = melody_notes(row[None])
    return np.stack([notes.start, notes.length, notes.pitch], axis=1)


def drawn_lines(used: np.ndarray) -> tuple[int, int]:
    """Return the lowest and highest pitch to show: at least 14, so that a C and a G are named."""
    low, high = (int(used.min()), int(used.max())) if len(used) else (60, 72)
    margin = max(1, -(-(13 - (high - low)) // 2))
    return low - margin, high + margin


def line_names(low: int, high: int) -> dict[int, str]:
    """Name all C, in a small range also all G."""
    named = (0, 7) if high - low < 30 else (0,)
    return {pitch: pitch_name(pitch) for pitch in range(low, high + 1) if pitch % 12 in named}

"""Drum tokens: the sum of 2**class over the classes hit in a step, 0 for none.

Reference: note_seq/drums_lib.py (DrumTrack.from_quantized_sequence) and
magenta/models/music_vae/data.py (DrumsConverter, reduced classes).
"""

from __future__ import annotations

import numpy as np

from data_pipeline.codecs.windows import lay_out, windows
from data_pipeline.reading.segments import STEP_DTYPE, Segment
from musicvae_jax import tokens

# MIDI pitches of each class, in the order of `DRUM_CLASS_NAMES`; a class is written as its first.
CLASS_PITCHES = (
    (36, 35),
    (38, 27, 28, 31, 32, 33, 34, 37, 39, 40, 56, 65, 66, 75, 85),
    (42, 44, 54, 68, 69, 70, 71, 73, 78, 80, 22),
    (46, 67, 72, 74, 79, 81, 26),
    (45, 29, 41, 43, 61, 64, 84),
    (48, 47, 60, 63, 77, 86, 87),
    (50, 30, 62, 76, 83),
    (49, 52, 55, 57, 58),
    (51, 53, 59, 82),
)
DRUM_INSTRUMENT = 9

NO_DRUMS = "no drums"
NO_CLASSES = "no drums of the 9 classes"


def encode(segment: Segment, num_steps: int) -> np.ndarray | str:
    """Cut the drums, all instruments together, into windows that hop by one bar.

    Args:
      segment: quantised notes.
      num_steps: T, steps per window.

    Returns:
      Tokens uint16 [N, T], N = 0 if every track is shorter; or the reason why the piece has
      no drums at all.
    """
    drums = segment.notes[segment.notes["is_drum"]]
    if not len(drums):
        return NO_DRUMS
    steps, values = hits(drums)
    if not len(steps):
        return NO_CLASSES
    layout = lay_out(steps, steps + 1, np.zeros(len(steps), np.int64))
    events = layout.empty(np.uint16)
    layout.write(events, steps, values, np.ones(len(steps), np.bool_))
    return windows(events, layout, num_steps)


def hits(notes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gather the hits of each step.

    Args:
      notes: drum notes of STEP_DTYPE; pitches of no class are left out.

    Returns:
      Steps, ascending, and tokens, both int [H].
    """
    bits = class_bits()[np.clip(notes["pitch"], 0, 127)]
    known = bits > 0
    steps, index = np.unique(notes["start_step"][known], return_inverse=True)
    values = np.zeros(len(steps), np.int64)
    np.bitwise_or.at(values, index, bits[known])
    return steps, values


def class_bits() -> np.ndarray:
    """Return 2**class of each MIDI pitch, 0 for pitches of no class, int [128]."""
    bits = np.zeros(128, np.int64)
    for number, pitches in enumerate(CLASS_PITCHES):
        bits[list(pitches)] = 1 << number
    return bits


def decode(row: np.ndarray) -> np.ndarray:
    """Read the hits of one row as notes one step long, each class as its first pitch.

    Args:
      row: tokens [T].

    Returns:
      Notes of STEP_DTYPE by start, then class.
    """
    steps, numbers = np.nonzero(tokens.hits(np.asarray(row)))
    notes = np.zeros(len(steps), STEP_DTYPE)
    notes["start_step"], notes["end_step"] = steps, steps + 1
    notes["pitch"] = np.array([pitches[0] for pitches in CLASS_PITCHES])[numbers]
    notes["instrument"], notes["is_drum"] = DRUM_INSTRUMENT, True
    return notes

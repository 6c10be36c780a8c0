"""The codec of drums: the sum of 2**class over the classes hit in a step, 0 for none.

Reference: note_seq/drums_lib.py (DrumTrack.from_quantized_sequence) and
magenta/models/music_vae/data.py (DrumsConverter, reduced classes).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipeline.codecs.figures import MAX_LENGTH, NUM_PITCHES, TrackFigures, counted
from data_pipeline.codecs.pieces import BySegment, Cutter
from data_pipeline.codecs.windows import Encoded, lay_out, windows
from data_pipeline.reading.segments import STEP_DTYPE, Segment
from musicvae_jax import tokens
from musicvae_jax.config import InputError
from musicvae_jax.tasks import DRUM_CLASS_NAMES, STEPS_PER_BAR, Track

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

PANEL_SHARE = 4  # height in pictures, relative to other kinds
HAS_LENGTHS = True  # one step each

_LETTERS = "KSHOLMTCR"  # one per class, in the order of DRUM_CLASS_NAMES

NO_DRUMS = "no drums"
NO_CLASSES = "no drums of the 9 classes"


def encode(segment: Segment, track: Track, num_steps: int) -> Encoded | str:
    """Cut the drums, all instruments together, into windows that hop by one bar.

    Args:
      segment: quantised notes.
      track: not used; drums of all programs are.
      num_steps: T, steps per window.

    Returns:
      Rows uint16, none if every track is shorter; or the reason why the segment has no drums.
    """
    del track
    drums = segment.notes[segment.notes["is_drum"]]
    if not len(drums):
        return NO_DRUMS
    steps, values = hits(drums)
    if not len(steps):
        return NO_CLASSES
    layout = lay_out(steps, steps + 1, np.zeros(len(steps), np.int64))
    events = layout.empty(np.uint16)
    layout.write(events, steps, values, np.ones(len(steps), np.bool_))
    found = windows(events, layout, num_steps)
    return found._replace(instruments=found.instruments[:, :0])


CUTTER: Cutter = BySegment(lambda segment, task: encode(segment, task.tracks[0], task.num_steps))


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


def decode(row: np.ndarray, *, program: int = 0) -> np.ndarray:
    """Read the hits of one row as notes one step long, each class as its first pitch.

    Args:
      row: tokens [T].
      program: not used; General MIDI drums have none.

    Returns:
      Notes of STEP_DTYPE by start, then class.
    """
    del program
    steps, numbers = np.nonzero(tokens.hits(np.asarray(row)))
    notes = np.zeros(len(steps), STEP_DTYPE)
    notes["start_step"], notes["end_step"] = steps, steps + 1
    notes["pitch"] = np.array([pitches[0] for pitches in CLASS_PITCHES])[numbers]
    notes["instrument"], notes["is_drum"] = DRUM_INSTRUMENT, True
    return notes


def column(notes: np.ndarray, num_steps: int) -> np.ndarray | None:
    """Write drum notes from step 0 on.

    Returns:
      Tokens uint16 [num_steps]; None if no note has a class.
    """
    steps, values = hits(notes)
    row = np.zeros(num_steps, np.uint16)
    inside = steps < num_steps
    row[steps[inside]] = values[inside]
    return row if len(steps) else None


def vocabulary(track: Track) -> dict[str, str]:
    """Say what the tokens mean: {token or range of tokens: meaning}."""
    return {"0": "nothing", f"1..{track.num_classes - 1}": "sum of 2**class of the hits"}


def words(row: np.ndarray) -> list[str]:
    """Write each step [T]: a letter for each class that is hit, "." for none."""
    hit = tokens.hits(np.asarray(row))
    return ["".join(np.array(list(_LETTERS))[step]) or "." for step in hit]


def read_words(words: Sequence[str]) -> np.ndarray:
    """Read steps that were written as words: the inverse of `words`, uint16 [T].

    Raises:
      InputError: a word holds anything but the letters of the classes.
    """
    row = np.zeros(len(words), np.uint16)
    for step, word in enumerate(words):
        if word in (".", "_", "r"):
            continue
        classes = [_LETTERS.find(letter) for letter in word]
        if min(classes) < 0:
            named = zip(_LETTERS, DRUM_CLASS_NAMES, strict=True)
            allowed = ", ".join(f"{letter} {name}" for letter, name in named)
            raise InputError(
                f"word {step + 1}, {word!r}, must be letters of drum classes ({allowed}) or . "
                "(nothing)"
            )
        row[step] = np.bitwise_or.reduce(1 << np.array(classes))
    return row


def figures(rows: np.ndarray, track: Track) -> TrackFigures:
    """Count the hits of rows [N, T] by class, and the steps with a hit by their place."""
    steps = np.nonzero(tokens.onsets(rows, track))[1]
    num_hits = tokens.hits(rows).sum(axis=(0, 1)).tolist()
    return TrackFigures(
        track=track,
        positions=counted(steps % STEPS_PER_BAR, STEPS_PER_BAR),
        pitches=np.zeros(NUM_PITCHES, np.int64),
        lengths=np.zeros(MAX_LENGTH, np.int64),
        classes=dict(zip(DRUM_CLASS_NAMES, num_hits, strict=True)),
    )


def drawn_notes(row: np.ndarray) -> np.ndarray:
    """Return step, length 1 and drum class of the hits of a row [T]: [N, 3]."""
    steps, classes = np.nonzero(tokens.hits(row))
    return np.stack([steps, np.ones_like(steps), classes], axis=1)


def drawn_lines(used: np.ndarray) -> tuple[int, int]:
    """Return the lowest and highest class to show: all are."""
    del used
    return 0, len(DRUM_CLASS_NAMES) - 1


def line_names(low: int, high: int) -> dict[int, str]:
    """Name the classes from low to high."""
    return {number: DRUM_CLASS_NAMES[number] for number in range(low, high + 1)}

"""What a report says of the notes of a track."""

from __future__ import annotations

import dataclasses

import numpy as np

from musicvae_jax.tasks import Track

MAX_LENGTH = 32  # steps; longer notes are counted together
NUM_PITCHES = 128


@dataclasses.dataclass(frozen=True)
class TrackFigures:
    """Statistics of one track in a sample of rows.

    Attributes:
      track: the track measured.
      positions: onsets by step of the bar, int64 [16].
      pitches: notes by MIDI pitch, int64 [128]; zeros for drums.
      lengths: notes by length in steps, int64 [32], the last also for longer ones; zeros for drums,
        empty for piano rolls.
      classes: hits by drum class; empty for pitched tracks.
    """

    track: Track
    positions: np.ndarray
    pitches: np.ndarray
    lengths: np.ndarray
    classes: dict[str, int]


def counted(values: np.ndarray, size: int) -> np.ndarray:
    """Count how often each of 0..size - 1 occurs, int64 [size]."""
    return np.bincount(values, minlength=size)

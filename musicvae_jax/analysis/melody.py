"""Measures of melodies: range, intervals, keys.

`pitch_range` and `pitch_class_entropy` equal muspy's functions of these names, and `diatonicity`
equals `scale_consistency` (natural minor has the notes of its relative major, so the best of the 12
major keys is the best of muspy's 24).
"""

from __future__ import annotations

import numpy as np

from musicvae_jax.analysis import events
from musicvae_jax.analysis.measures import Measure, of_events, of_values, row_means
from musicvae_jax.tokens import Notes, melody_notes

FAMILY = "melody"
LARGE_JUMP = 8  # semitones and more: larger than a fifth
_MAX_INTERVAL = 24  # semitones; larger ones count as this large
_MAJOR = (0, 2, 4, 5, 7, 9, 11)


def measures(column: np.ndarray, name: str) -> list[Measure]:
    """Measure melodies, tokens int64 [N, T]."""
    notes, num_rows = melody_notes(column), len(column)
    steps, rows = events.intervals(notes)
    jumps = row_means(rows, (np.abs(steps) >= LARGE_JUMP).astype(np.float64), num_rows)
    repeats = row_means(rows, (steps == 0).astype(np.float64), num_rows)
    bins = np.clip(steps, -_MAX_INTERVAL, _MAX_INTERVAL) + _MAX_INTERVAL
    labels = [f"{size:+d}" for size in range(-_MAX_INTERVAL, _MAX_INTERVAL + 1)]
    entropy, keys = pitch_class_entropy(notes, num_rows), diatonicity(notes, num_rows)
    spread = pitch_range(notes, num_rows)
    return [
        of_values("pitch range, semitones", FAMILY, name, spread, 0, 48, 48),
        of_events("intervals, semitones", FAMILY, name, (rows, bins), num_rows, labels),
        of_values("share of jumps larger than a fifth", FAMILY, name, jumps, 0, 1, 20),
        of_values("pitch-class entropy, bits", FAMILY, name, entropy, 0, np.log2(12), 24),
        of_values("share of notes in the best major key", FAMILY, name, keys, 0, 1, 24),
        of_values("share of repeated notes", FAMILY, name, repeats, 0, 1, 20),
    ]


def pitch_range(notes: Notes, num_rows: int) -> np.ndarray:
    """Return highest less lowest pitch, semitones: float64 [N], NaN for rows without notes."""
    low, high = np.full(num_rows, np.inf), np.full(num_rows, -np.inf)
    np.minimum.at(low, notes.row, notes.pitch)
    np.maximum.at(high, notes.row, notes.pitch)
    known = np.isfinite(low)
    return np.subtract(high, low, out=np.full(num_rows, np.nan), where=known)


def pitch_classes(notes: Notes, num_rows: int) -> np.ndarray:
    """Count the notes of each pitch class, C first: float64 [N, 12]."""
    index = notes.row * 12 + notes.pitch % 12
    return np.bincount(index, minlength=num_rows * 12).reshape(num_rows, 12).astype(np.float64)


def pitch_class_entropy(notes: Notes, num_rows: int) -> np.ndarray:
    """Return the entropy of the pitch classes, bits: float64 [N], NaN for rows without notes."""
    counts = pitch_classes(notes, num_rows)
    total = counts.sum(axis=1)
    share = counts / np.maximum(total, 1)[:, None]
    logs = np.log2(share, out=np.zeros_like(share), where=share > 0)
    return np.where(total > 0, 0.0 - (share * logs).sum(axis=1), np.nan)


def diatonicity(notes: Notes, num_rows: int) -> np.ndarray:
    """Return the share of notes in the best-fitting major key: float64 [N], NaN without notes."""
    counts = pitch_classes(notes, num_rows)
    keys = np.zeros((12, 12))
    for root in range(12):
        keys[[(root + step) % 12 for step in _MAJOR], root] = 1.0
    total = counts.sum(axis=1)
    held = (counts @ keys).max(axis=1)
    return np.divide(held, total, out=np.full(num_rows, np.nan), where=total > 0)

"""A measure of rows: how often each row falls into each bin of a distribution.

Bins are fixed by the task, never by the data, so that any two sets of rows can be compared, and
a set drawn again from a set of rows is a sum over the rows drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Measure(NamedTuple):
    """One measure of N rows.

    Attributes:
      name: what is measured.
      family: "rhythm", "melody", "structure" or "originality".
      track: the track it is measured on, or "all".
      labels: G names of the bins.
      counts: float32 [N, G]; a row counts in several bins (each onset in one), in one, or in none
        where the measure is undefined.
      values: float64 [N], one value per row, NaN where it is undefined; None for a measure of
        several events in a row, such as all onsets.
    """

    name: str
    family: str
    track: str
    labels: tuple[str, ...]
    counts: np.ndarray
    values: np.ndarray | None = None


def of_values(
    name: str, family: str, track: str, values: np.ndarray, low: float, high: float, bins: int
) -> Measure:
    """Make a measure with one value per row.

    Args:
      name: what is measured, with its unit.
      family: as in `Measure`.
      track: as in `Measure`.
      values: float [N], NaN where a row has none; what lies outside counts in the nearest bin.
      low: lower edge of the first bin.
      high: upper edge of the last bin, which belongs to it.
      bins: G.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    place = np.floor((values[known] - low) / (high - low) * bins + 1e-9).astype(np.int64)
    counts = np.zeros((len(values), bins), np.float32)
    counts[np.flatnonzero(known), np.clip(place, 0, bins - 1)] = 1.0
    edges = low + (high - low) * np.arange(bins) / bins
    return Measure(name, family, track, tuple(f"{e:.3g}" for e in edges), counts, values)


def of_events(
    name: str,
    family: str,
    track: str,
    events: tuple[np.ndarray, np.ndarray],
    num_rows: int,
    labels: Sequence[str],
) -> Measure:
    """Make a measure of several events in a row.

    Args:
      name: what is counted.
      family: as in `Measure`.
      track: as in `Measure`.
      events: the row and the bin of each, int64 [M].
      num_rows: N.
      labels: G names of the bins.
    """
    rows, bins = events
    size = len(labels)
    counts = np.bincount(rows * size + bins, minlength=num_rows * size)
    return Measure(
        name, family, track, tuple(labels), counts.reshape(num_rows, size).astype(np.float32)
    )


def row_means(rows: np.ndarray, values: np.ndarray, num_rows: int) -> np.ndarray:
    """Average values [M] over their rows [M]: float64 [N], NaN for rows without any."""
    counts = np.bincount(rows, minlength=num_rows)
    sums = np.bincount(rows, weights=values, minlength=num_rows)
    return np.divide(sums, counts, out=np.full(num_rows, np.nan), where=counts > 0)

"""Distances between distributions over the same bins.

Reference: Yang and Lerch 2018, "On the evaluation of generative models in music", sections 3.3
and 3.4: overlapping area and Kullback-Leibler divergence of densities of a feature, and of the
distances between pieces within the real set and between the two sets.

Differences from the reference:
- Densities are histograms over fixed bins, not kernel estimates: nothing depends on a bandwidth.
- For the divergence each bin gets half a count more, so that an empty one is not infinite.
"""

from __future__ import annotations

import numpy as np

PSEUDO_COUNT = 0.5


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the overlapping area of two histograms, 1 for equal shares.

    Args:
      a: counts [..., G].
      b: counts [..., G].

    Returns:
      float64 [...]; 0 where one side holds nothing, NaN where neither does.
    """
    total_a, total_b = a.sum(axis=-1), b.sum(axis=-1)
    area = np.minimum(shares(a), shares(b)).sum(axis=-1)
    return np.where((total_a > 0) | (total_b > 0), area, np.nan)


def kl_nats(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Kullback-Leibler divergence of b from a, sum of a log(a / b).

    Args:
      a: counts [..., G], of the real rows.
      b: counts [..., G].

    Returns:
      float64 [...], nats, 0 or more; NaN where neither side holds anything.
    """
    held = (a.sum(axis=-1) > 0) | (b.sum(axis=-1) > 0)
    p, q = shares(np.asarray(a, np.float64) + PSEUDO_COUNT), shares(b + PSEUDO_COUNT)
    return np.where(held, (p * np.log(p / q)).sum(axis=-1), np.nan)


def shares(counts: np.ndarray) -> np.ndarray:
    """Divide counts [..., G] by their sums; all 0 where there is nothing."""
    counts = np.asarray(counts, np.float64)
    total = counts.sum(axis=-1, keepdims=True)
    return np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)


def within(a: np.ndarray) -> np.ndarray:
    """Count how far apart the members of a set are: pairs by bins between them.

    Args:
      a: counts [..., G], one per member.

    Returns:
      float64 [..., G], pairs of two different members, as many in all as there are members (so
      that half a count weighs as much as in the histogram itself).
    """
    pairs = _lags(a, a)
    pairs[..., 0] -= a.sum(axis=-1)
    return _rescaled(pairs, a.sum(axis=-1))


def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count how far the members of one set are from those of another, as `within`."""
    return _rescaled(_lags(a, b), a.sum(axis=-1))


def _lags(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count the pairs of a member of each set by the number of bins between them, [..., G]."""
    size = a.shape[-1]
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    pairs = np.empty(np.broadcast_shapes(a.shape, b.shape))
    for lag in range(size):
        pairs[..., lag] = (a[..., lag:] * b[..., : size - lag]).sum(axis=-1)
        if lag:
            pairs[..., lag] += (b[..., lag:] * a[..., : size - lag]).sum(axis=-1)
    return pairs


def _rescaled(pairs: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Scale pairs [..., G] to sum to the number of members."""
    return shares(np.maximum(pairs, 0.0)) * np.asarray(members, np.float64)[..., None]

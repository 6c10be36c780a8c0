"""Interpolation between rows through the data, and distances of a row from both ends.

Reference: Roberts et al. 2018, "A hierarchical latent vector model for learning long-term
structure in music", the experiment on interpolation and its figure.
"""

from __future__ import annotations

import numpy as np


def mix(
    a: np.ndarray, b: np.ndarray, fractions: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Interpolate from a to b in data space: a step is taken from b with probability `fraction`.

    All tracks of a step come from the same end. The paper's baseline.

    Args:
      a: rows [P, T] or [P, T, K].
      b: likewise.
      fractions: [F], from 0 (all of a) to 1 (all of b).
      generator: of random numbers.

    Returns:
      [P, F, T] or [P, F, T, K].
    """
    shape = (len(a), len(fractions), a.shape[1])
    takes_b = generator.random(shape) < fractions[None, :, None]
    if a.ndim == 3:
        takes_b = takes_b[..., None]
    return np.where(takes_b, b[:, None], a[:, None])


def hamming(rows: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the share of tokens that differ: rows [P, F, ...] from ends [P, ...], [P, F]."""
    differ = rows != end[:, None]
    return differ.reshape(*rows.shape[:2], -1).mean(axis=2)

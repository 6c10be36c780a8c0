"""Points in z on a plane, and the nearest neighbours of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

NUM_NEIGHBOURS = 5
DIGITS = 4


def project(z: np.ndarray, measured: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Lay points out by their two principal components.

    Args:
      z: [N, Z] float32, 3 points or more.
      measured: attribute to [N], nan where it is undefined.

    Returns:
      What `/api/map` replies, see the README beside this file.
    """
    # Take a second to import.
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    z = np.asarray(z, np.float64)
    components = min(2, z.shape[1])
    plane = np.zeros((len(z), 2))
    if np.ptp(z, axis=0).any():  # equal points have no components
        plane[:, :components] = PCA(components, svd_solver="covariance_eigh").fit_transform(z)
    count = min(NUM_NEIGHBOURS, len(z) - 1)
    found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(z)
    distances, neighbours = found.kneighbors()  # of the points themselves, each without itself
    return {
        "x": plane[:, 0].round(DIGITS).tolist(),
        "y": plane[:, 1].round(DIGITS).tolist(),
        "attributes": {name: _known(value) for name, value in measured.items()},
        "spread": {name: _spread(value) for name, value in measured.items()},
        "neighbours": neighbours.tolist(),
        "distances": distances.round(DIGITS).tolist(),
    }


def _known(values: np.ndarray) -> list[float | None]:
    """Return numbers that JSON can hold: null for nan."""
    return [None if np.isnan(value) else round(float(value), DIGITS) for value in values]


def _spread(values: np.ndarray) -> float | None:
    """Return the standard deviation of the values that are known; null if there are none."""
    known = values[~np.isnan(values)]
    return round(float(known.std()), DIGITS) if len(known) else None

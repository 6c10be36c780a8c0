"""The nearest training row by Hamming distance: a baseline for reconstructions.

A model whose latent vector is worth its size reconstructs a held-out row better than the training
row that is most like it.
"""

from __future__ import annotations

import numpy as np

# Training rows that are compared at once: the counts of a chunk stay in the processor's cache.
_CHUNK = 32_768


def nearest_rows(rows: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Find for each row the training row with the most equal tokens; the first of several.

    Args:
      rows: [N, T] or [N, T, K] integer.
      train: [M, T] or [M, T, K] of the same type, M at least 1.

    Returns:
      int64 [N], places in `train`.
    """
    wanted = rows.reshape(len(rows), -1)
    best = np.zeros(len(rows), np.int64)
    most = np.full(len(rows), -1, np.int64)
    for start in range(0, len(train), _CHUNK):
        # One contiguous line per step, so that each comparison runs through memory in order.
        part = np.asarray(train[start : start + _CHUNK])
        lines = np.ascontiguousarray(part.reshape(len(part), -1).T)
        equal = np.empty(lines.shape[1], np.uint16)
        for number, row in enumerate(wanted):
            equal[:] = 0
            for line, token in zip(lines, row, strict=True):
                equal += line == token
            place = int(equal.argmax())
            if equal[place] > most[number]:
                best[number], most[number] = start + place, equal[place]
    return best

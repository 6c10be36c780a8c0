"""Share of test rows that have a nearly equal training row: a measure of leakage."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipeline.compiled import compiled

NEAR = 0.05  # Hamming distance, as a share of a row's tokens
_SAMPLE = 256
_MAX_TRAIN = 2_000_000
_PARTS = 8  # of a row; also a whole number of 8-byte words
_CHUNK = 2**14


class Nearness(NamedTuple):
    """The result of `near_duplicates`.

    Attributes:
      near: sampled test rows with a train row within `NEAR`.
      sampled: test rows examined.
      compared: train rows each was compared with.
    """

    near: int
    sampled: int
    compared: int


def near_duplicates(rows: np.ndarray, test: np.ndarray, train: np.ndarray) -> Nearness:
    """Count sampled test rows that have a train row within 5% Hamming distance.

    At most 256 test rows are compared with at most two million train rows, drawn with a fixed seed.

    Args:
      rows: [N, ...] tokens.
      test: indices of the test rows in stored order.
      train: indices of the train rows in stored order.
    """
    rng = np.random.default_rng(0)
    test = np.sort(rng.choice(test, min(len(test), _SAMPLE), replace=False))
    if len(train) > _MAX_TRAIN:
        train = rng.choice(train, _MAX_TRAIN, replace=False)
    train = np.sort(train)  # read in the order of the file
    sample = _flat(rows[test])
    found = np.zeros(len(sample), np.bool_)
    if len(sample):
        limit = int(np.prod(rows.shape[1:]) * NEAR)
        for start in range(0, len(train), _CHUNK):
            chunk = _flat(rows[train[start : start + _CHUNK]])
            _search(
                (sample, sample.view(np.uint64), _events(sample)),
                (chunk, chunk.view(np.uint64), _events(chunk)),
                limit,
                found,
            )
    return Nearness(int(found.sum()), len(sample), len(train))


def _flat(rows: np.ndarray) -> np.ndarray:
    """Return each row as one line of tokens of equal parts, [N, L]."""
    flat = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))
    padding = -flat.shape[1] % _PARTS
    return np.ascontiguousarray(np.pad(flat, ((0, 0), (0, padding))) if padding else flat)


def _events(flat: np.ndarray) -> np.ndarray:
    """Count the tokens that are not 0 in each part of each row, int32 [N, 8]."""
    parts = (flat != 0).reshape(len(flat), _PARTS, -1)
    return parts.sum(axis=2, dtype=np.int32)


@compiled
def _search(sample: tuple, rows: tuple, limit: int, found: np.ndarray) -> None:
    """Mark each row of `sample` that has one of `rows` within `limit` tokens.

    Both are tokens [N, L], the same as uint64 words, and counts of events [N, 8]. The counts of
    two rows, and then their words, are never further apart than their tokens.
    """
    tokens, words, events = sample
    row_tokens, row_words, row_events = rows
    for s in range(len(tokens)):
        if found[s]:
            continue
        for r in range(len(row_tokens)):
            apart = 0
            for p in range(_PARTS):
                apart += abs(events[s, p] - row_events[r, p])
            if apart > limit:
                continue
            apart = 0
            for w in range(words.shape[1]):
                if words[s, w] != row_words[r, w]:
                    apart += 1
                    if apart > limit:
                        break
            if apart > limit:
                continue
            distance = 0
            for i in range(tokens.shape[1]):
                if tokens[s, i] != row_tokens[r, i]:
                    distance += 1
            if distance <= limit:
                found[s] = True
                break

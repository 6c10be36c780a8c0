"""Nearly equal rows are found, by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.selection import near_duplicates as nearness
from data_pipeline.selection.near_duplicates import near_duplicates


def changed(row: np.ndarray, num_tokens: int) -> np.ndarray:
    """Change the first tokens of a row."""
    other = row.copy()
    other.reshape(-1)[:num_tokens] += 1
    return other


@pytest.mark.parametrize(
    ("shape", "dtype", "limit"),
    # 5% of 32, 256, 768 and 23 tokens.
    [((32,), "uint8", 1), ((256,), "uint16", 12), ((256, 3), "uint16", 38), ((23,), "uint8", 1)],
)
def test_the_limit_is_five_percent_of_the_tokens(
    shape: tuple[int, ...], dtype: str, limit: int
) -> None:
    row = np.random.default_rng(0).integers(0, 80, shape).astype(dtype)
    rows = np.stack([row, changed(row, limit), changed(row, limit + 1)])
    assert near_duplicates(rows, np.array([0]), np.array([1])) == (1, 1, 1)
    assert near_duplicates(rows, np.array([0]), np.array([2])) == (0, 1, 1)
    assert near_duplicates(rows, np.array([0, 2]), np.array([2, 1])) == (2, 2, 2)


def test_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "_CHUNK", 17)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (400, 32)).astype(np.uint8)
    rows[:, 6:] = 0
    test, train = np.arange(100), np.arange(100, 130)
    distances = (rows[test][:, None] != rows[train][None]).sum(axis=-1)
    expected = int((distances.min(axis=1) <= 1).sum())
    assert 0 < expected < 100
    assert near_duplicates(rows, test, train) == (expected, 100, 30)


def test_samples_are_bounded_and_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "_SAMPLE", 10)
    monkeypatch.setattr(nearness, "_MAX_TRAIN", 50)
    rows = np.random.default_rng(0).integers(0, 90, (300, 32)).astype(np.uint8)
    rows[200:] = rows[0]
    found = near_duplicates(rows, np.arange(0, 100), np.arange(100, 300))
    assert found[1:] == (10, 50)
    assert near_duplicates(rows, np.arange(0, 100), np.arange(100, 300)) == found


def test_no_rows() -> None:
    rows, none = np.zeros((4, 32), np.uint8), np.zeros(0, np.int64)
    assert near_duplicates(rows, none, np.arange(4)) == (0, 0, 4)
    assert near_duplicates(rows, np.arange(4), none) == (0, 4, 0)

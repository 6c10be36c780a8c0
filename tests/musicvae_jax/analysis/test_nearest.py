"""The nearest training row, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from musicvae_jax.analysis import nearest
from musicvae_jax.analysis.nearest import nearest_rows
from musicvae_jax.evaluation import score_predictions
from musicvae_jax.tasks import TASKS


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_the_row_with_most_equal_tokens_is_found(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(nearest, "_CHUNK", chunk)
    train = np.array([[0, 0, 0, 0], [1, 2, 3, 0], [1, 2, 0, 0], [1, 2, 3, 4]], np.uint8)
    rows = np.array([[1, 2, 3, 4], [0, 0, 0, 9], [1, 2, 9, 9], [1, 2, 3, 9]], np.uint8)
    # The last two have several nearest rows: the first of them.
    np.testing.assert_array_equal(nearest_rows(rows, train), [3, 0, 1, 1])


def test_tracks_count_together() -> None:
    train = np.array([[[1, 1], [0, 0]], [[1, 0], [1, 1]]], np.uint16)
    np.testing.assert_array_equal(nearest_rows(train[::-1], train), [1, 0])


def test_predictions_are_scored_as_by_hand() -> None:
    task = TASKS["drums_2bar"]
    rows = np.zeros((2, 32), np.uint16)
    rows[:, 0] = 3  # kick and snare
    predicted = rows.copy()
    predicted[1, 0] = 1  # the snare is missing
    predicted[1, 8] = 4  # a hat too many
    found = score_predictions(predicted, rows, task)
    assert found["accuracy"]["overall"] == pytest.approx(62 / 64)
    assert found["onset_accuracy"]["overall"] == 0.5
    # Of 4 true and 4 predicted notes, 3 are found.
    assert found["f1"]["overall"] == pytest.approx(0.75)

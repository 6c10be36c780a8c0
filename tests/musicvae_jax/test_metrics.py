from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import metrics
from musicvae_jax.models import draws
from musicvae_jax.tasks import get_task

MELODY, DRUMS, TRIO = (get_task(name) for name in ("mel_2bar", "drums_2bar", "trio_16bar"))


def _scores(predicted: np.ndarray, tokens: np.ndarray, task: metrics.Task) -> dict[str, np.ndarray]:
    counts = metrics.prediction_counts(jnp.asarray(predicted), jnp.asarray(tokens), task)
    sums = metrics.masked_sums(counts, jnp.ones(len(tokens), bool))
    return metrics.scores({name: np.asarray(value) for name, value in sums.items()})


def test_melody_scores_by_hand() -> None:
    tokens = np.array([[40, 0, 0, 0, 42, 0, 1, 0]])
    predicted = np.array([[40, 0, 41, 0, 43, 0, 1, 1]])
    found = _scores(predicted, tokens, MELODY)
    np.testing.assert_allclose(found["accuracy"], [5 / 8])
    np.testing.assert_allclose(found["onset_accuracy"], [1 / 2])
    np.testing.assert_allclose(found["precision"], [1 / 3])
    np.testing.assert_allclose(found["recall"], [1 / 2])
    np.testing.assert_allclose(found["f1"], [2 / 5])


def test_a_drum_token_holds_several_notes() -> None:
    tokens = np.array([[0b101, 0, 0b1, 0]], np.uint16)
    predicted = np.array([[0b111, 0b1000, 0b1, 0]], np.int32)
    found = _scores(predicted, tokens, DRUMS)
    np.testing.assert_allclose(found["accuracy"], [2 / 4])
    np.testing.assert_allclose(found["onset_accuracy"], [1 / 2])
    np.testing.assert_allclose(found["precision"], [3 / 5])
    np.testing.assert_allclose(found["recall"], [3 / 3])
    np.testing.assert_allclose(found["f1"], [6 / 8])


def test_tracks_of_a_trio_are_scored_apart() -> None:
    tokens = np.zeros((1, 4, 3), np.uint16)
    tokens[0, 0] = (30, 20, 3)
    predicted = tokens.copy()
    predicted[0, 0] = (30, 21, 1)
    found = _scores(predicted, tokens, TRIO)
    np.testing.assert_allclose(found["accuracy"], [1, 3 / 4, 3 / 4])
    np.testing.assert_allclose(found["precision"], [1, 0, 1])
    np.testing.assert_allclose(found["recall"], [1, 0, 1 / 2])


def test_the_truth_scores_1_and_silence_has_no_precision() -> None:
    tokens = np.array([[40, 0, 1, 0]])
    assert all(value == 1 for value in _scores(tokens, tokens, MELODY).values())
    silent = _scores(np.zeros_like(tokens), tokens, MELODY)
    assert np.isnan(silent["precision"])
    assert silent["recall"] == silent["f1"] == 0


def test_the_best_token_is_the_one_that_decoding_takes() -> None:
    # Equal logits, a NaN, and nothing but NaN.
    logits = jnp.array([[[0.0, 2.0, 2.0], [1.0, np.nan, 0.0], [np.nan] * 3]])
    assert metrics.best_tokens([logits])[..., 0].tolist() == [[1, 2, 2]]
    assert draws.best((logits,))[0].tolist() == [[1, 2, 2]]


def test_masked_examples_count_nothing() -> None:
    values = {"a": jnp.array([1.0, 2.0, jnp.nan]), "b": jnp.arange(6.0).reshape(3, 2)}
    sums = metrics.masked_sums(values, jnp.array([True, True, False]))
    assert float(sums["a"]) == 3.0
    assert sums["b"].tolist() == [2.0, 4.0]


def test_sums_of_batches_add_up() -> None:
    total: dict[str, np.ndarray] = {}
    for value in (1.0, 2.5):
        total = metrics.add_sums(total, {"a": jnp.full(2, value)})
    assert total["a"].tolist() == [3.5, 3.5]
    assert total["a"].dtype == np.float64


def test_the_best_tokens_are_the_largest_logits() -> None:
    logits = (jnp.array([[[0.0, 2.0, 1.0]]]), jnp.array([[[3.0, 2.0]]]))
    assert metrics.best_tokens(logits).tolist() == [[[1, 0]]]


def test_baselines_by_hand() -> None:
    tokens = np.array([[0, 0, 40, 40], [0, 41, 1, 0]])
    found = metrics.baselines(metrics.token_histogram(tokens, MELODY), MELODY)
    np.testing.assert_allclose(found["no_event_accuracy"], [4 / 8, 4 / 8])
    expected = (4 * 4 + 2 * 2 + 1 + 1) / 8 / 8
    np.testing.assert_allclose(found["unigram_accuracy"], [expected] * 2)
    np.testing.assert_allclose(found["unigram_onset_accuracy"], [(2 * 2 + 1) / 8 / 3] * 2)
    np.testing.assert_allclose(found["onset_unigram_onset_accuracy"], [(2 * 2 + 1) / 3 / 3] * 2)


def test_the_overall_baseline_weighs_tracks_by_what_they_hold() -> None:
    tokens = np.zeros((1, 4, 3), np.uint16)
    tokens[0, :, 0] = 30
    tokens[0, 0, 1] = 20
    found = metrics.baselines(metrics.token_histogram(tokens, TRIO), TRIO)
    np.testing.assert_allclose(found["no_event_accuracy"], [0, 3 / 4, 1, 7 / 12])
    # Onsets: four of the melody, always right; one of the bass, right in one of four draws.
    np.testing.assert_allclose(found["unigram_onset_accuracy"], [1, 1 / 4, np.nan, 4.25 / 5])


def test_moments_of_batches_are_those_of_all_rows() -> None:
    mu = np.random.default_rng(0).normal(size=(50, 4)) * np.array([1.0, 0.2, 0.09, 0.0]) + 1e3
    moments = metrics.LatentMoments()
    for part in np.split(mu, [7, 20]):
        moments.add(part)
    np.testing.assert_allclose(moments.squares / moments.count, mu.var(axis=0), atol=1e-9)
    assert moments.active_units() == 2
    assert moments.active_units(threshold=0.0) == 3


def test_ratio_of_nothing_is_nan() -> None:
    found = metrics.ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    np.testing.assert_array_equal(found, [0.5, np.nan])
    assert metrics.ratio(1, 4) == pytest.approx(0.25)

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from musicvae_jax.analysis import ngram
from musicvae_jax.analysis.interpolation import hamming, mix


def test_a_bigram_model_by_hand() -> None:
    model = ngram.fit(np.array([[0, 0, 1], [0, 2, 2]]), 3, order=2)
    # Tokens: 0 three times, 1 once, 2 twice of 6, three kinds; so p(0) = (3 + 3 / 3) / 9.
    p0, p1, p2 = 4 / 9, 2 / 9, 3 / 9
    # Before the rows: 0 twice, one kind. After 0: 0, 1 and 2 once each.
    expected = [(2 + p0) / 3, (1 + 3 * p0) / 6, (1 + 3 * p1) / 6]
    found = np.exp(ngram.log_probabilities(model, np.array([[0, 0, 1]])))
    np.testing.assert_allclose(found, [expected])
    # After 1 nothing was seen: the shorter context decides. After 2: 2 once.
    found = np.exp(ngram.log_probabilities(model, np.array([[1, 0, 2, 2]])))
    expected = [p1 / 3, p0, (1 + 3 * p2) / 6, (1 + p2) / 2]
    np.testing.assert_allclose(found, [expected])
    cost = ngram.cost_nats(model, np.array([[0, 0, 1]]))
    np.testing.assert_allclose(
        cost, -np.log([(2 + p0) / 3 * (1 + 3 * p0) / 6 * (1 + 3 * p1) / 6]) / 3
    )


@pytest.mark.parametrize("order", [1, 3, 5])
def test_probabilities_sum_to_one(order: int) -> None:
    draw = np.random.default_rng(order)
    model = ngram.fit(draw.integers(0, 3, (20, 8)), 3, order)
    every = np.array(list(itertools.product(range(3), repeat=5)))
    whole = ngram.log_probabilities(model, every).sum(axis=1)
    assert np.exp(whole).sum() == pytest.approx(1.0)


def test_codes_of_five_drum_tokens_are_all_different() -> None:
    rows = np.array([[511, 511, 511, 511, 511], [511, 511, 511, 511, 510]])
    model = ngram.fit(rows, 512)
    assert [len(counts.events) for counts in model.by_length] == [2, 3, 4, 5, 6]
    known, unknown = ngram.cost_nats(model, np.array([rows[0], [5, 9, 1, 30, 2]]))
    assert known < 1.5
    assert unknown > math.log(512) > known


def test_more_context_costs_less_on_what_has_order() -> None:
    rows = np.tile(np.arange(8), (30, 4))
    costs = [ngram.cost_nats(ngram.fit(rows, 90, n), rows).mean() for n in (1, 2)]
    assert costs[0] > 2.0
    assert costs[1] < 0.2


@pytest.mark.parametrize("shape", [(6, 32), (6, 256, 3)])
def test_mixing_goes_from_one_end_to_the_other(shape: tuple[int, ...]) -> None:
    a, b = np.zeros(shape, int), np.ones(shape, int)
    fractions = np.array([0.0, 0.5, 1.0])
    mixed = mix(a, b, fractions, np.random.default_rng(0))
    assert mixed.shape == (6, 3, *shape[1:])
    assert np.array_equal(mixed[:, 0], a)
    assert np.array_equal(mixed[:, 2], b)
    assert mixed[:, 1].mean() == pytest.approx(0.5, abs=0.1)
    if len(shape) == 3:  # the tracks of a step stay together
        assert np.array_equal(mixed.min(axis=-1), mixed.max(axis=-1))
    np.testing.assert_allclose(hamming(mixed, a) + hamming(mixed, b), 1.0)
    np.testing.assert_allclose(hamming(mixed, a)[:, [0, 2]].mean(axis=0), [0.0, 1.0])

"""The encoder's inputs, order of steps, and shorter rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.models import encoders
from tests.support import model_cases

ENCODERS = ("mel_2bar", "drums_2bar")


def test_drum_roll_by_hand() -> None:
    roll = encoders.drum_roll(jnp.array([[0, 1, 5, 256]]))
    expected = np.zeros((4, 10))
    expected[0, 9] = 1  # nothing is hit
    expected[1, 0] = 1  # kick
    expected[2, [0, 2]] = 1  # kick and closed hat
    expected[3, 8] = 1  # ride
    np.testing.assert_array_equal(roll[0], expected)


def test_split_columns() -> None:
    trio = jnp.arange(12).reshape(2, 2, 3)
    columns = encoders.split_columns(trio)
    assert [c.tolist() for c in columns] == [[[0, 6], [3, 9]], [[1, 7], [4, 10]], [[2, 8], [5, 11]]]
    assert encoders.split_columns(jnp.array([[7, 8]], jnp.uint8))[0].tolist() == [[7], [8]]


def test_reverse_keeps_to_the_length() -> None:
    x = jnp.arange(4)[:, None] + jnp.array([[0, 10]])
    assert encoders.reverse(x, None)[:, 0].tolist() == [3, 2, 1, 0]
    found = encoders.reverse(x, jnp.array([4, 2]))
    assert found[:, 0].tolist() == [3, 2, 1, 0]
    assert found[:2, 1].tolist() == [11, 10]


@pytest.mark.parametrize("task", ENCODERS)
def test_full_lengths_change_nothing(task: str) -> None:
    case = model_cases.case(task, "flat")
    full = jnp.full((model_cases.BATCH,), case.task.num_steps)
    given, free = (case.encode(case.params, case.tokens, n) for n in (full, None))
    np.testing.assert_allclose(given.mu, free.mu, atol=1e-6)
    np.testing.assert_allclose(given.sigma, free.sigma, atol=1e-6)


@pytest.mark.parametrize("task", ENCODERS)
def test_steps_beyond_the_length_change_nothing(task: str) -> None:
    case = model_cases.case(task, "flat")
    lengths = jnp.array([case.task.num_steps, 9, 1])
    found = case.encode(case.params, case.tokens, lengths)
    tokens = np.array(case.tokens)
    tokens[1, 9:], tokens[2, 1:] = 3, 4
    np.testing.assert_array_equal(case.encode(case.params, tokens, lengths).mu, found.mu)
    tokens[1, 8] += 1
    assert (case.encode(case.params, tokens, lengths).mu[1] != found.mu[1]).all()


def test_steps_beyond_the_length_have_no_gradient() -> None:
    case = model_cases.case("mel_2bar", "flat")
    tokens = jnp.full((1, case.task.num_steps), 2).at[0, 5:].set(3)

    def total(params: dict) -> jax.Array:
        return case.model.encode(params, tokens, jnp.array([5])).mu.sum()

    grads = jax.jit(jax.grad(total))(case.params)["encoder"]["cell_0"]
    for direction in ("fw", "bw"):
        rows = grads[direction]["kernel"]
        assert np.abs(rows[2]).max() > 0
        np.testing.assert_array_equal(rows[3], np.zeros_like(rows[3]))


def test_lengths_of_rows_and_of_bars() -> None:
    lengths = encoders.bar_lengths(jnp.array([8, 0, 5]), 2, 8)
    assert lengths.tolist() == [[4, 4], [0, 0], [4, 1]]
    assert encoders.bar_lengths(lengths, 2, 8) is lengths


def test_a_bar_is_encoded_from_its_own_steps() -> None:
    case = model_cases.case("mel_16bar", "hier")
    lengths = np.full((model_cases.BATCH, 16), 16)
    lengths[0, 3], lengths[1, 5] = 7, 0
    found = case.encode(case.params, case.tokens, jnp.asarray(lengths))
    tokens = np.array(case.tokens)
    tokens[0, 3 * 16 + 7 : 4 * 16], tokens[1, 5 * 16 : 6 * 16] = 3, 4
    same = case.encode(case.params, jnp.asarray(tokens), jnp.asarray(lengths))
    np.testing.assert_array_equal(same.mu, found.mu)
    full = case.encode(case.params, jnp.asarray(tokens))
    assert (np.abs(np.asarray(full.mu - found.mu)).max(axis=1) > 1e-4).tolist() == [
        True,
        True,
        False,
    ]

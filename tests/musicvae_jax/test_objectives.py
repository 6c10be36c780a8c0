"""Loss terms and schedules: values computed by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import objectives
from musicvae_jax.config import InputError
from tests.support import numpy_oracle


def test_reconstruction_by_hand() -> None:
    # p = (1/4, 3/4) at both steps; tokens 1 and 0.
    logits = (jnp.log(jnp.array([[[1.0, 3.0], [1.0, 3.0]]])),)
    tokens = jnp.array([[1, 0]])
    expected = -math.log(3 / 4) - math.log(1 / 4)
    np.testing.assert_allclose(objectives.reconstruction_nats(logits, tokens), [expected], 1e-6)


def test_reconstruction_sums_over_tracks_and_masks_steps() -> None:
    rng = np.random.default_rng(0)
    depths, lengths = [3, 3, 7], [5, 2]
    logits = tuple(rng.normal(size=(2, 5, depth)).astype(np.float32) for depth in depths)
    tokens = np.array([[[2, 0, 6]] * 5, [[1, 1, 0]] * 5])
    run = jax.jit(objectives.reconstruction_nats_per_track)
    whole, masked = (run(logits, tokens, jnp.array(n)) for n in ([5, 5], lengths))
    for k, depth in enumerate(depths):
        column = tokens[:, :, k : k + 1]
        for found, counted in ((whole, [5, 5]), (masked, lengths)):
            expected = numpy_oracle.reconstruction_nats(logits[k], column, [depth], counted)
            np.testing.assert_allclose(found[:, k], expected, rtol=1e-5)
    total = jax.jit(objectives.reconstruction_nats)(logits, tokens)
    np.testing.assert_allclose(total, whole.sum(axis=1), rtol=1e-6)


def test_reconstruction_gradient_is_softmax_minus_one_hot(key: jax.Array) -> None:
    logits, tokens = jax.random.normal(key, (2, 3, 4)), jnp.array([[0, 3, 1], [2, 2, 0]])
    grad = jax.grad(lambda x: objectives.reconstruction_nats((x,), tokens).sum())(logits)
    expected = jax.nn.softmax(logits) - jax.nn.one_hot(tokens, 4)
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_kl_by_hand() -> None:
    mu, sigma = jnp.array([[0.0, 0.0], [1.0, 2.0]]), jnp.array([[1.0, 1.0], [0.5, 1.0]])
    expected = [0.0, 0.5 * (1 + 0.25 - 1 - 2 * math.log(0.5)) + 0.5 * 4]
    np.testing.assert_allclose(objectives.kl_nats((mu, sigma)), expected, rtol=1e-6)


def test_kl_is_the_mean_log_ratio(key: jax.Array) -> None:
    mu, sigma, n = 0.7, 0.4, 200_000
    z = mu + sigma * jax.random.normal(key, (n,))
    log_ratio = -0.5 * ((z - mu) / sigma) ** 2 - jnp.log(sigma) + 0.5 * z**2
    kl = objectives.kl_nats((jnp.full((1, 1), mu), jnp.full((1, 1), sigma)))[0]
    assert abs(float(log_ratio.mean() - kl)) < 5 * float(log_ratio.std()) / math.sqrt(n)


def test_free_bits() -> None:
    kl, bits = jnp.array([1.0, 10.0]), 4.0
    tau = 4.0 * math.log(2.0)
    np.testing.assert_allclose(objectives.free_bits_cost(kl, bits), [0.0, 10 - tau], rtol=1e-6)
    np.testing.assert_allclose(objectives.free_bits_kl(kl, bits), [tau, 10.0], rtol=1e-6)
    grads = [
        jax.grad(lambda x, f=f: f(x, bits).sum())(kl)
        for f in (objectives.free_bits_cost, objectives.free_bits_kl)
    ]
    assert [g.tolist() for g in grads] == [[0.0, 1.0], [0.0, 1.0]]


def test_beta() -> None:
    assert float(objectives.beta_at(0, 0.2, 0.0)) == 0.0
    assert float(objectives.beta_at(1, 0.2, 0.0)) == np.float32(0.2)
    np.testing.assert_allclose(objectives.beta_at(2, 0.5, 0.9), 0.5 * (1 - 0.81), rtol=1e-5)
    # The base is 0.99999 in float32, which at step 50,000 shows in the fifth digit.
    expected = 0.2 * (1 - float(np.float32(0.99999)) ** 50_000)
    np.testing.assert_allclose(objectives.beta_at(50_000, 0.2, 0.99999), expected, rtol=1e-6)


def test_sampling_probability() -> None:
    at = objectives.sampling_probability_at
    np.testing.assert_allclose(at(0, "inverse_sigmoid", 1000.0), 1 - 1000 / 1001, rtol=1e-3)
    middle = 1000 * math.log(1000)
    np.testing.assert_allclose(at(round(middle), "inverse_sigmoid", 1000.0), 0.5, rtol=1e-3)
    assert float(at(100_000, "inverse_sigmoid", 1000.0)) == 1.0  # exp overflows: k / inf
    np.testing.assert_allclose(at(3, "exponential", 0.5), 1 - 0.125, rtol=1e-6)
    assert float(at(7, "constant", 0.25)) == 0.25
    with pytest.raises(InputError, match="'linear' is not one of constant, inverse_sigmoid"):
        at(0, "linear", 1.0)


@pytest.mark.parametrize(
    ("schedule", "weights"),
    [
        # Steps 0, 1, 2, 3, 4, 5 and 40 of cycles of 4 steps, beta 2.
        ("constant", [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]),
        ("linear", [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0]),
        ("cyclical", [0.0, 1.0, 2.0, 2.0, 0.0, 1.0, 0.0]),
        ("annealed", [0.0, 0.2, 0.38, 0.542, 0.6878, 0.81902, 1.97044]),
    ],
)
def test_schedules_of_beta(schedule: str, weights: list[float]) -> None:
    found = [
        objectives.scheduled_beta(step, schedule, 2.0, rate=0.9, steps=4.0, rise=0.5)
        for step in (0, 1, 2, 3, 4, 5, 40)
    ]
    np.testing.assert_allclose(found, weights, rtol=1e-5, atol=1e-7)


def test_an_unknown_schedule_of_beta_is_refused() -> None:
    with pytest.raises(InputError, match="'sudden' is not one of annealed, constant"):
        objectives.scheduled_beta(0, "sudden", 1.0)

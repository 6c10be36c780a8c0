"""Arcs between z, and bounds of the likelihood."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import model_cases
import numpy as np
import pytest

from musicvae_jax import objectives, sampling
from musicvae_jax.models.encoders import Posterior

FRACTIONS = jnp.linspace(0.0, 1.0, 5)


def test_slerp_on_the_unit_circle() -> None:
    path = sampling.slerp(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), FRACTIONS)
    angles = np.linspace(0, np.pi / 2, 5)
    np.testing.assert_allclose(path, np.stack([np.cos(angles), np.sin(angles)], 1), atol=1e-6)


def test_slerp_of_vectors_of_different_length() -> None:
    # The reference's formula: the angle of the unit vectors, applied to the vectors.
    a, b = np.array([2.0, 0.0, 1.0]), np.array([0.5, 3.0, 0.0])
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    for t, found in zip(
        FRACTIONS, sampling.slerp(jnp.array(a), jnp.array(b), FRACTIONS), strict=True
    ):
        expected = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ([1.0, 2.0], [2.0, 4.0]),
        ([1.0, 2.0], [-1.0, -2.0]),
        ([0.0, 0.0], [1.0, 2.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1e-20, 0.0], [-1e-20, 0.0]),
    ],
)
def test_slerp_without_a_direction_is_a_straight_line(a: list[float], b: list[float]) -> None:
    path = sampling.slerp(jnp.array(a), jnp.array(b), FRACTIONS)
    np.testing.assert_allclose(path, np.linspace(a, b, 5), atol=1e-6)


def test_slerp_of_nearly_equal_ends_keeps_its_ends() -> None:
    a, b = jnp.array([1.0, 2.0]), jnp.array([1.0, 2.01])
    path = sampling.slerp(a, b, FRACTIONS)
    np.testing.assert_allclose(path[jnp.array([0, 4])], jnp.stack([a, b]), atol=1e-6)
    assert np.all(np.diff(path[:, 1]) > 0)


def test_prior_reconstruct_and_interpolate_decode_their_z(key: jax.Array) -> None:
    case = model_cases.case("trio_16bar", "hierdec")
    model, params = case.model._replace(generate=lambda p, z, *_: case.greedy(p, z)), case.params
    num = model_cases.BATCH
    drawn = sampling.prior(model, params, key, num)
    np.testing.assert_array_equal(drawn.tokens, case.greedy(params, drawn.z))
    assert drawn.z.shape == (num, 4)
    again = sampling.reconstruct(model._replace(encode=case.encode), params, case.tokens, key)
    np.testing.assert_allclose(again.z, case.encode(params, case.tokens).mu, atol=1e-5)
    np.testing.assert_array_equal(again.tokens, case.greedy(params, again.z))
    path = sampling.interpolate(model, params, (case.z[0], case.z[1]), num, key)
    np.testing.assert_allclose(path.z[jnp.array([0, -1])], case.z[:2], atol=1e-6)
    np.testing.assert_array_equal(path.tokens, case.greedy(params, path.z))


def test_prior_z_is_standard_normal(key: jax.Array) -> None:
    case = model_cases.case("mel_2bar", "flat")
    model = case.model._replace(generate=lambda params, z, *_: z)
    z = np.asarray(sampling.prior(model, case.params, key, 10_000).z)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.05)


def test_elbo_is_what_training_minimises(key: jax.Array) -> None:
    case = model_cases.case("drums_2bar", "flat")
    bound = jax.jit(
        lambda key: sampling.log_likelihood(case.model, case.params, case.tokens, key, 1)
    )
    found = bound(key)
    posterior = case.encode(case.params, case.tokens)
    eps = jax.random.normal(jax.random.split(key, 1)[0], posterior.mu.shape)
    z = posterior.mu + posterior.sigma * eps
    logits = case.logits(case.params, z, case.tokens)
    cost = objectives.reconstruction_nats(logits, case.tokens) + objectives.kl_nats(posterior)
    np.testing.assert_allclose(found.elbo, -cost, rtol=1e-5)


def test_bounds_of_a_model_that_can_be_integrated(key: jax.Array) -> None:
    # One z, one token: p(1 | z) = sigmoid(2 z), q(z) = N(0.5, 0.8).
    posterior = Posterior(jnp.array([[0.5]]), jnp.array([[0.8]]))
    case = model_cases.case("mel_2bar", "flat")

    model = case.model._replace(
        encode=lambda params, tokens, lengths: posterior,
        logits=lambda params, z, tokens: (jnp.stack([0 * z, 2 * z], axis=-1),),
    )
    tokens = jnp.array([[1]])
    z = np.linspace(-10, 10, 20_001)
    log_p = -np.logaddexp(0, -2 * z)
    normal = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    exact = math.log((np.exp(log_p) * normal).sum() * (z[1] - z[0]))
    q = np.exp(-0.5 * ((z - 0.5) / 0.8) ** 2) / (0.8 * math.sqrt(2 * math.pi))
    elbo = (log_p * q).sum() * (z[1] - z[0]) - float(objectives.kl_nats(posterior)[0])
    found = sampling.log_likelihood(model, case.params, tokens, key, 20_000)
    assert elbo < exact
    np.testing.assert_allclose(found.elbo, elbo, atol=0.02)
    np.testing.assert_allclose(found.importance_weighted, exact, atol=0.02)

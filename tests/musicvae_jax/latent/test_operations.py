"""Arcs between z, what is decoded, and bounds of the likelihood."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import objectives
from musicvae_jax.latent import fitted_prior, operations, paths
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.registry import Params
from musicvae_jax.tasks import TASKS
from tests.support import model_cases

FRACTIONS = jnp.linspace(0.0, 1.0, 5)


def test_slerp_on_the_unit_circle() -> None:
    path = paths.slerp(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), FRACTIONS)
    angles = np.linspace(0, np.pi / 2, 5)
    np.testing.assert_allclose(path, np.stack([np.cos(angles), np.sin(angles)], 1), atol=1e-6)


def test_slerp_of_vectors_of_different_length() -> None:
    # The reference's formula: the angle of the unit vectors, applied to the vectors.
    a, b = np.array([2.0, 0.0, 1.0]), np.array([0.5, 3.0, 0.0])
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    for t, found in zip(FRACTIONS, paths.slerp(jnp.array(a), jnp.array(b), FRACTIONS), strict=True):
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
    path = paths.slerp(jnp.array(a), jnp.array(b), FRACTIONS)
    np.testing.assert_allclose(path, np.linspace(a, b, 5), atol=1e-6)


def test_slerp_of_nearly_equal_ends_keeps_its_ends() -> None:
    a, b = jnp.array([1.0, 2.0]), jnp.array([1.0, 2.01])
    path = paths.slerp(a, b, FRACTIONS)
    np.testing.assert_allclose(path[jnp.array([0, 4])], jnp.stack([a, b]), atol=1e-6)
    assert np.all(np.diff(path[:, 1]) > 0)


def test_elbo_is_what_training_minimises(key: jax.Array) -> None:
    case = model_cases.case("drums_2bar", "flat")
    bound = jax.jit(
        lambda key: operations.log_likelihood(case.model, case.params, case.tokens, key, 1)
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
    found = operations.log_likelihood(model, case.params, tokens, key, 20_000)
    assert elbo < exact
    np.testing.assert_allclose(found.elbo, elbo, atol=0.02)
    np.testing.assert_allclose(found.importance_weighted, exact, atol=0.02)


def test_points_of_any_shape_are_decoded_in_one_batch(key: jax.Array) -> None:
    case = model_cases.case("mel_2bar", "flat")
    decoded = []

    def generate(params: Params, z: jax.Array, *_: Any) -> jax.Array:
        decoded.append(z.shape)
        return case.greedy(params, z)

    model, z = case.model._replace(generate=generate), case.z
    made = operations.decode(model, case.params, paths.grid(z[jnp.array([0, 1, 2, 0])], 3, 4), key)
    assert decoded == [(12, 4)]
    assert made.tokens.shape == (3, 4, 32)
    again = case.greedy(case.params, made.z.reshape(12, 4))
    np.testing.assert_array_equal(made.tokens.reshape(12, 32), again)


def test_similar_decodes_z_itself_at_zero_and_a_draw_from_the_prior_at_one(key: jax.Array) -> None:
    case = model_cases.case("mel_2bar", "flat")
    model = case.model._replace(generate=lambda params, z, *_: case.greedy(params, z))
    still = operations.similar(model, case.params, case.z, 0.0, key)
    np.testing.assert_array_equal(still.tokens, case.greedy(case.params, case.z))
    made = operations.similar(model, case.params, case.z, 1.0, key)
    drawn = fitted_prior.draw(None, jax.random.split(key)[0], *case.z.shape)
    np.testing.assert_array_equal(made.z, drawn)
    np.testing.assert_array_equal(made.tokens, case.greedy(case.params, drawn))


def test_prior_z_is_standard_normal(key: jax.Array) -> None:
    z = np.asarray(fitted_prior.draw(None, key, 10_000, 4))
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.05)


def test_a_chain_without_drift_reconstructs_reconstructions(key: jax.Array) -> None:
    case = model_cases.case("mel_2bar", "flat")
    model, params = case.model, case.params
    run = jax.jit(
        lambda z, drift, key: operations.continuation(model, params, z, 3, drift, key, 0.0)
    )
    z = case.encode(params, case.tokens).mu
    made = run(z, 0.0, key)
    assert made.tokens.shape == (3, 3, 32)
    for window in range(3):
        np.testing.assert_allclose(made.z[:, window], z, atol=1e-5)
        np.testing.assert_array_equal(made.tokens[:, window], case.greedy(params, z))
        z = case.encode(params, made.tokens[:, window]).mu
    free = run(case.z, 1.0, key)
    elsewhere = run(-2 * case.z, 1.0, key)
    np.testing.assert_array_equal(free.z, elsewhere.z)  # nothing of the piece is left
    assert (run(case.z, 0.5, key).z != free.z).all()


def test_no_note_sounds_on_into_the_next_window() -> None:
    windows = np.zeros((1, 4, 32), np.uint8)
    windows[0, 0, 20] = 40  # sounds to the end
    windows[0, 1, 0] = 41  # begins at once, is ended
    windows[0, 1, 9] = 1
    windows[0, 3, 5] = 42
    joined = np.asarray(operations.join_windows(jnp.asarray(windows), TASKS["mel_2bar"]))
    assert (joined.shape, joined.dtype) == ((1, 128), np.uint8)
    np.testing.assert_array_equal(joined.reshape(1, 4, 32), windows)
    windows[0, 1, 0] = 0
    joined = np.asarray(operations.join_windows(jnp.asarray(windows), TASKS["mel_2bar"]))
    assert np.flatnonzero(joined[0]).tolist() == [20, 32, 41, 101]
    assert joined[0, 32] == 1
    drums = np.zeros((1, 2, 32), np.uint16)
    drums[0, 0, 3] = 5
    joined = np.asarray(operations.join_windows(jnp.asarray(drums), TASKS["drums_2bar"]))
    assert np.flatnonzero(joined).tolist() == [3]
    trio = np.zeros((2, 2, 256, 3), np.uint16)
    trio[1, 0, 7] = 50
    joined = np.asarray(operations.join_windows(jnp.asarray(trio), TASKS["trio_16bar"]))
    assert joined.shape == (2, 512, 3)
    assert joined[1, 256].tolist() == [1, 1, 0]
    assert joined[0].any() == np.False_

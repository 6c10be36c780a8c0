"""Normalising flows over z: change of variables, inverse, and what they fit."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.latent import fitted_prior, flow
from musicvae_jax.latent.fitted_prior import Record
from musicvae_jax.priors import Flow

SETTINGS = flow.Settings(
    layers=4, units=16, steps=400, batch_size=128, learning_rate=1e-2, average=0.95, score_every=100
)


def random_flow(Z: int, seed: int = 0) -> Flow:
    """Return a flow whose layers shift and scale by numbers of about 1."""
    generator = np.random.default_rng(seed)
    mu = generator.normal(1.0, 2.0, (50, Z)).astype(np.float32)
    start = flow.first(mu, np.ones_like(mu), SETTINGS, seed)
    changed = {
        name: generator.normal(0, 0.5, getattr(start, name).shape).astype(np.float32)
        for name in Flow._fields[3:]
    }
    return start._replace(**changed)


def towards_noise(of: Flow, z: np.ndarray) -> np.ndarray:
    """Turn one z [Z] into noise, written out with NumPy."""
    x = (z - of.shift) / of.scale
    half = len(z) // 2
    for order, w_in, b_in, w_hidden, b_hidden, w_out, b_out in zip(*of[2:], strict=True):

        def silu(values: np.ndarray) -> np.ndarray:
            return values / (1 + np.exp(-values))

        read, changed = order[:half], order[half:]
        hidden = silu(x[read] @ w_in + b_in)
        hidden = hidden + silu(hidden @ w_hidden + b_hidden)
        shift, log_scale = np.split(hidden @ w_out + b_out, 2)
        x = x.copy()
        x[changed] = (x[changed] - shift) * np.exp(-2 * np.tanh(log_scale / 2))
    return np.asarray(x)


@pytest.mark.parametrize("Z", [2, 5])
def test_the_density_is_that_of_the_noise_times_the_volume(Z: int) -> None:
    of = random_flow(Z)
    z = np.random.default_rng(1).normal(1.0, 2.0, (6, Z))
    expected = []
    for point in z:
        steps = 1e-6 * np.eye(Z)
        columns = [towards_noise(of, point + d) - towards_noise(of, point - d) for d in steps]
        log_volume = np.linalg.slogdet(np.stack(columns) / 2e-6)[1]
        noise = towards_noise(of, point)
        expected.append(log_volume - noise @ noise / 2 - Z / 2 * np.log(2 * np.pi))
    np.testing.assert_allclose(flow.log_density(of, z.astype(np.float32)), expected, rtol=2e-4)


def test_draws_are_noise_turned_back(key: jax.Array) -> None:
    of = random_flow(5)
    z = np.asarray(flow.sample(of, key, 8))
    noise = [towards_noise(of, point) for point in z.astype(np.float64)]
    np.testing.assert_allclose(noise, jax.random.normal(key, (8, 5)), atol=1e-2)
    np.testing.assert_array_equal(fitted_prior.draw(of, key, 8, 5), z)


def test_what_a_layer_reads_is_changed_by_the_other_of_its_pair() -> None:
    orders = random_flow(6).orders
    for first, second in (orders[:2], orders[2:]):
        assert set(first[:3]) == set(second[3:])
        assert set(first) == set(second) == set(range(6))
    assert (orders[0] != orders[2]).any()


def test_the_first_flow_is_the_gaussian_with_the_moments_of_the_posteriors() -> None:
    generator = np.random.default_rng(0)
    mu = generator.normal(3.0, 2.0, (4_000, 4)).astype(np.float32)
    first = flow.first(mu, np.full_like(mu, 1.5), SETTINGS)
    np.testing.assert_allclose(first.scale, np.full(4, 2.5), rtol=0.05)  # 2^2 + 1.5^2 = 2.5^2
    z = np.full((1, 4), 3.0, np.float32)
    expected = -0.5 * np.sum(((z[0] - first.shift) / first.scale) ** 2 + np.log(2 * np.pi))
    expected -= np.sum(np.log(first.scale))
    np.testing.assert_allclose(flow.log_density(first, z), [expected], rtol=1e-5)


@pytest.fixture(scope="module")
def rings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posteriors whose means lie on a circle, and draws of others."""
    generator = np.random.default_rng(0)
    angle = generator.uniform(0, 2 * np.pi, 3_000)
    mu = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    sigma = np.full_like(mu, 0.1)
    held_out = mu[2_000:] + sigma[2_000:] * generator.standard_normal((1_000, 2))
    return mu[:2_000], sigma[:2_000], held_out.astype(np.float32)


def test_a_circle_is_fitted_better_than_by_a_gaussian(
    rings: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    mu, sigma, held_out = rings
    reported: list[tuple[int, float]] = []
    prior, scores = fitted_prior.fit_flow(
        mu, sigma, held_out, SETTINGS, report=lambda *point: reported.append(point)
    )
    assert isinstance(prior, Flow)
    assert [step for step, _ in reported] == [100, 200, 300, 400]
    assert scores["flow"] == pytest.approx(max(score for _, score in reported), abs=1e-4)
    gaussian = float(jnp.mean(flow.log_density(flow.first(mu, sigma, SETTINGS), held_out)))
    assert scores["flow"] > gaussian + 0.5
    again, _ = fitted_prior.fit_flow(mu, sigma, held_out, SETTINGS)
    for one, other in zip(prior, again, strict=True):
        np.testing.assert_array_equal(one, other)
    radius = np.linalg.norm(np.asarray(flow.sample(prior, jax.random.key(1), 1_000)), axis=1)
    assert float(np.mean(np.abs(radius - 1) < 0.3)) > 0.6


def test_training_ends_when_scores_no_longer_improve() -> None:
    generator = np.random.default_rng(0)
    mu = generator.normal(size=(20, 6)).astype(np.float32)  # few rows: the flow learns them
    held_out = generator.normal(size=(500, 6)).astype(np.float32)
    settings = flow.Settings(
        layers=2, units=32, steps=2_000, batch_size=64, score_every=50, patience=2,
        learning_rate=1e-2, average=0.5,
    )  # fmt: skip
    seen: list[float] = []
    prior, scores = fitted_prior.fit_flow(
        mu, 0.05 * np.ones_like(mu), held_out, settings, report=lambda _, s: seen.append(s)
    )
    assert len(seen) < 40
    assert max(scores, key=lambda name: scores[name]) == "standard"
    assert not isinstance(prior, Flow)


def test_one_dimension_is_too_few() -> None:
    with pytest.raises(InputError, match="a flow needs two dimensions of z or more"):
        fitted_prior.fit_flow(np.zeros((9, 1)), np.ones((9, 1)), np.zeros((3, 1)))


def test_a_flow_comes_back_from_the_folder(tmp_path: pathlib.Path) -> None:
    fitted_prior.save(tmp_path, Record(random_flow(3), 12, {"rows": 3}))
    found = fitted_prior.load(tmp_path)
    assert found is not None
    assert isinstance(found.prior, Flow)
    for read, written in zip(found.prior, random_flow(3), strict=True):
        np.testing.assert_array_equal(read, written)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("shift", np.zeros((), np.float32), "it has no layers, or its shift has fewer"),
        ("biases_in", np.zeros((0, 16), np.float32), "it has no layers"),
        ("scale", np.zeros(3, np.float32), "scale must be above 0"),
        ("orders", np.zeros((4, 3), np.int32), "orders must hold every dimension once"),
        ("orders", np.zeros((4, 3), np.float32), r"orders are float32 .* must be int32 \[4, 3\]"),
        ("kernels_out", np.zeros((4, 16, 5), np.float32), r"\[4, 16, 5\], they must be float32"),
        ("biases_out", np.full((4, 4), np.nan, np.float32), "biases_out are not all finite"),
    ],
)
def test_arrays_that_are_no_flow_are_named(
    tmp_path: pathlib.Path, field: str, value: np.ndarray, message: str
) -> None:
    fitted_prior.save(tmp_path, Record(random_flow(3)._replace(**{field: value}), 12, {}))
    with pytest.raises(InputError, match=rf"fitted_prior\.npz is not of format .*{message}"):
        fitted_prior.load(tmp_path)

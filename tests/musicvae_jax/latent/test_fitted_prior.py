"""The density fitted to latent vectors: hand-computed values, recovery of a known mixture."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.latent import fitted_prior
from musicvae_jax.latent.fitted_prior import Record
from musicvae_jax.priors import Mixture

TWO = Mixture(
    np.array([0.25, 0.75], np.float32),
    np.array([[-3.0, 0.0], [3.0, 1.0]], np.float32),
    np.array([[[0.5, 0.0], [0.2, 0.4]], [[1.0, 0.0], [-0.5, 0.3]]], np.float32),
)


def test_the_density_is_that_of_the_mixture() -> None:
    z = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    expected = np.zeros(20)
    for weight, mean, scale in zip(*TWO, strict=True):
        covariance = scale @ scale.T
        squared = np.einsum("nd,de,ne->n", z - mean, np.linalg.inv(covariance), z - mean)
        volume = 2 * np.pi * np.sqrt(np.linalg.det(covariance))
        expected += weight * np.exp(-squared / 2) / volume
    np.testing.assert_allclose(fitted_prior.log_density(TWO, z), np.log(expected), rtol=2e-4)


def test_the_standard_prior_is_the_standard_normal() -> None:
    z = np.array([[1.0, 2.0, 2.0]], np.float32)
    value = fitted_prior.log_density(fitted_prior.standard(3), z)
    np.testing.assert_allclose(value, [-4.5 - 1.5 * np.log(2 * np.pi)], rtol=1e-6)


def test_draws_have_the_moments_of_the_mixture() -> None:
    z = np.asarray(fitted_prior.sample(TWO, jax.random.key(0), 40_000))
    assert z.shape == (40_000, 2)
    # 0.25 * -3 + 0.75 * 3, and 0.75 * 1; five standard errors.
    np.testing.assert_allclose(z.mean(axis=0), [1.5, 0.75], atol=5 * z.std() / 200)
    right = z[z[:, 0] > 0]
    np.testing.assert_allclose(np.cov(right.T)[1, 1], 0.25 + 0.09, atol=0.02)
    np.testing.assert_allclose(len(right) / len(z), 0.75, atol=0.02)


def test_draws_depend_on_the_key_only() -> None:
    one, other = (np.asarray(fitted_prior.sample(TWO, jax.random.key(7), 5)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_a_known_mixture_is_recovered() -> None:
    z = np.asarray(fitted_prior.sample(TWO, jax.random.key(1), 4_000))
    prior, scores = fitted_prior.fit(z[:3_000], z[3_000:], components=(1, 2))
    assert max(scores, key=lambda name: scores[name]) == "2"
    assert set(scores) == {"standard", "1", "2"}
    order = np.argsort(prior.means[:, 0])
    np.testing.assert_allclose(prior.weights[order], TWO.weights, atol=0.03)
    np.testing.assert_allclose(prior.means[order], TWO.means, atol=0.1)
    np.testing.assert_allclose(prior.scales[order], TWO.scales, atol=0.1)


def test_few_rows_of_the_standard_normal_keep_it() -> None:
    z = np.random.default_rng(3).normal(size=(160, 40)).astype(np.float32)
    prior, scores = fitted_prior.fit(z[:80], z[80:])
    assert set(scores) == {"standard", "1"}  # more components are not tried with 80 rows
    for fitted, expected in zip(prior, fitted_prior.standard(40), strict=True):
        np.testing.assert_array_equal(fitted, expected)


@pytest.mark.parametrize(("rows", "held_out"), [(7, 5), (8, 0)])
def test_too_few_rows_are_refused(rows: int, held_out: int) -> None:
    with pytest.raises(InputError, match="too few for 4 dimensions: 8 and 1 are needed"):
        fitted_prior.fit(np.zeros((rows, 4)), np.zeros((held_out, 4)))


def test_a_record_comes_back_from_the_folder(tmp_path: pathlib.Path) -> None:
    assert fitted_prior.load(tmp_path) is None
    path = fitted_prior.save(tmp_path, Record(TWO, 12, {"rows": 3}))
    found = fitted_prior.load(tmp_path)
    assert found is not None
    assert (found.step, found.about) == (12, {"rows": 3})
    for read, written in zip(found.prior, TWO, strict=True):
        np.testing.assert_array_equal(read, written)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"nothing"])
def test_a_damaged_file_is_named(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / fitted_prior.FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"fitted_prior\.npz is not of format"):
        fitted_prior.load(tmp_path)


def test_a_file_of_another_format_is_named(tmp_path: pathlib.Path) -> None:
    for arrays in ({"other": np.zeros(3)}, {"about": np.array("[1]"), **TWO._asdict()}):
        np.savez(tmp_path / fitted_prior.FILE, **arrays)
        with pytest.raises(InputError, match=r"fitted_prior\.npz is not of format"):
            fitted_prior.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", np.zeros(0, np.float32), "it has no weights"),
        ("weights", np.ones(2, np.float32), "weights must be 0 or more, and their sum 1"),
        ("means", TWO.means.astype(np.float64), "means are float64"),
        ("means", TWO.means[:1], r"means are float32 \[1, 2\], they must be float32 \[2, 2\]"),
        ("scales", TWO.scales[0], r"scales are float32 \[2, 2\]"),
        ("scales", np.swapaxes(TWO.scales, 1, 2) + 1, "scales must be lower triangular"),
        ("scales", np.full_like(TWO.scales, np.inf), "scales are not all finite"),
    ],
)
def test_arrays_that_are_no_mixture_are_named(
    tmp_path: pathlib.Path, field: str, value: np.ndarray, message: str
) -> None:
    fitted_prior.save(tmp_path, Record(TWO._replace(**{field: value}), 12, {}))
    with pytest.raises(InputError, match=rf"fitted_prior\.npz is not of format .*{message}"):
        fitted_prior.load(tmp_path)

"""Points in z: what lies where, and which points are met to the bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.latent import paths


@pytest.fixture(scope="module")
def points() -> jax.Array:
    return jax.random.normal(jax.random.key(5), (6, 16))


@pytest.mark.parametrize("kind", paths.KINDS)
def test_ends_are_met_to_the_bit(points: jax.Array, kind: str) -> None:
    fractions = jnp.linspace(0.0, 1.0, 7)
    for run in (paths.between, jax.jit(paths.between, static_argnums=3)):
        found = run(points[0], points[1], fractions, kind)
        np.testing.assert_array_equal(found[jnp.array([0, 6])], points[:2])


def test_a_line_is_not_an_arc() -> None:
    a, b = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    half = jnp.array([0.5])
    np.testing.assert_allclose(paths.between(a, b, half, "linear"), [[0.5, 0.5]])
    np.testing.assert_allclose(paths.between(a, b, half), [[0.5**0.5, 0.5**0.5]], rtol=1e-6)
    with pytest.raises(InputError, match="path: 'curve' is not one of slerp, linear"):
        paths.between(a, b, half, "curve")


@pytest.mark.parametrize("kind", paths.KINDS)
def test_a_grid_has_its_corners_and_its_edges(points: jax.Array, kind: str) -> None:
    found = paths.grid(points[:4], 3, 5, kind)
    assert found.shape == (3, 5, 16)
    corners = found[jnp.array([0, 0, 2, 2]), jnp.array([0, 4, 0, 4])]
    np.testing.assert_array_equal(corners, points[:4])
    upper = paths.between(points[0], points[1], jnp.linspace(0, 1, 5), kind)
    np.testing.assert_allclose(found[0], upper, atol=1e-6)
    column = paths.between(found[0, 2], found[2, 2], jnp.linspace(0, 1, 3), kind)
    np.testing.assert_allclose(found[:, 2], column, atol=1e-6)


def test_a_grid_by_hand() -> None:
    corners = jnp.array([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0], [4.0, 8.0]])
    found = paths.grid(corners, 3, 2, "linear")
    assert found[:, :, 0].tolist() == [[0, 4]] * 3
    assert found[:, :, 1].tolist() == [[0, 0], [4, 4], [8, 8]]


@pytest.mark.parametrize(
    ("corners", "rows", "columns", "message"),
    [
        (3, 2, 2, "corners: 3 given, a grid has 4"),
        (4, 1, 2, "rows: 1 is out of range"),
        (4, 2, 0, "columns: 0 is out of range"),
    ],
)
def test_what_is_no_grid_is_refused(
    points: jax.Array, corners: int, rows: int, columns: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        paths.grid(points[:corners], rows, columns)


def test_similar_goes_from_the_piece_to_the_noise(points: jax.Array) -> None:
    z, noise = points[:3], points[3:]
    np.testing.assert_array_equal(paths.similar(z, noise, 0.0), z)
    np.testing.assert_array_equal(paths.similar(z, noise, 1.0), noise)
    mixed = paths.similar(z, noise, jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(mixed[jnp.array([0, 2])], jnp.stack([z[0], noise[2]]))
    half = paths.slerp(z[1], noise[1], jnp.array([0.5]))[0]
    np.testing.assert_allclose(mixed[1], half, atol=1e-6)


def test_similar_stays_where_draws_from_the_prior_are() -> None:
    z, noise = jax.random.normal(jax.random.key(0), (2, 500, 256))
    for amount in (0.25, 0.5, 0.75):
        moved = paths.similar(z, noise, amount)
        np.testing.assert_allclose(jnp.linalg.norm(moved, axis=1).mean(), 16.0, rtol=0.01)
        cosine = (z * moved).sum(axis=1) / jnp.linalg.norm(z, axis=1)
        cosine /= jnp.linalg.norm(moved, axis=1)
        np.testing.assert_allclose(cosine.mean(), np.cos(amount * np.pi / 2), atol=0.01)


def test_shifting_by_nothing_changes_nothing(points: jax.Array) -> None:
    found = paths.shifted(points[:2], points[2], jnp.array([0.0, -1.5, 1.0]))
    assert found.shape == (2, 3, 16)
    np.testing.assert_array_equal(found[:, 0], points[:2])
    np.testing.assert_allclose(found[1, 1], points[1] - 1.5 * points[2], rtol=1e-6)


@pytest.mark.parametrize("kind", paths.KINDS)
def test_a_walk_passes_its_points(points: jax.Array, kind: str) -> None:
    found = paths.through(points[:3], 7, kind)
    np.testing.assert_array_equal(found[jnp.array([0, 3, 6])], points[:3])
    second = paths.between(points[1], points[2], jnp.linspace(0, 1, 4), kind)
    np.testing.assert_allclose(found[3:], second, atol=1e-6)


def test_short_walks(points: jax.Array) -> None:
    np.testing.assert_array_equal(paths.through(points, 1), points[:1])
    np.testing.assert_array_equal(paths.through(points[:1], 3), points[jnp.array([0, 0, 0])])
    found = paths.through(points, 2)
    np.testing.assert_array_equal(found, points[jnp.array([0, 5])])

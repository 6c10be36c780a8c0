"""What the class for users makes of the latent space: what it must equal, and refusals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.latent import operations
from musicvae_jax.latent.musicvae import MusicVAE
from tests.support import model_cases


@pytest.fixture(scope="module")
def vae() -> MusicVAE:
    case = model_cases.case("mel_2bar", "flat")
    return MusicVAE(case.config, case.params)


@pytest.fixture(scope="module")
def rows(vae: MusicVAE) -> np.ndarray:
    return model_cases.random_tokens(vae.task, np.random.default_rng(2), 4)


@pytest.mark.parametrize("kind", ["slerp", "linear"])
def test_ends_and_corners_are_reconstructions(vae: MusicVAE, rows: np.ndarray, kind: str) -> None:
    again = vae.reconstruct(rows)
    way = vae.interpolate(rows[0], rows[1], 4, kind=kind)
    np.testing.assert_array_equal(way[[0, 3]], again[:2])
    found = vae.grid(rows, 2, 4, kind=kind)
    assert found.shape == (2, 4, 32)
    np.testing.assert_array_equal(found[[0, 0, 1, 1], [0, 3, 0, 3]], again)
    np.testing.assert_array_equal(found, vae.grid(np.asarray(vae.encode(rows).mu), 2, 4, kind=kind))


def test_no_amount_changes_nothing(vae: MusicVAE, rows: np.ndarray) -> None:
    again = vae.reconstruct(rows)
    same = vae.similar(rows, 0.0, 2, key=0)
    assert same.shape == (4, 2, 32)
    np.testing.assert_array_equal(same, np.stack([again, again], axis=1))
    vector = np.full(4, 3.0)
    moved = vae.attribute(rows, vector, [0.0, 2.0])
    np.testing.assert_array_equal(moved[:, 0], again)
    z = np.asarray(vae.encode(rows).mu)
    np.testing.assert_array_equal(moved[:, 1], vae.decode(z + 6.0))


def test_variations_are_repeatable_and_different(vae: MusicVAE, rows: np.ndarray) -> None:
    first = vae.similar(rows, 0.8, 2, key=3)
    np.testing.assert_array_equal(first, vae.similar(list(rows), 0.8, 2, jax.random.key(3)))
    assert (first[:, 0] != first[:, 1]).any()
    assert (first != vae.similar(rows, 0.8, 2, key=4)).any()


def test_sampling_at_temperature_0_is_greedy(vae: MusicVAE) -> None:
    key = jax.random.key(0)
    z = jax.random.normal(jax.random.split(key)[0], (4, 4))
    np.testing.assert_array_equal(vae.sample(4, key, temperature=0.0), vae.decode(np.asarray(z)))


def test_a_walk_is_one_piece(vae: MusicVAE, rows: np.ndarray) -> None:
    piece = vae.long(rows[:2], 4)
    windows = vae.interpolate(rows[0], rows[1], 4)
    expected = operations.join_windows(jnp.asarray(windows)[None], vae.task)[0]
    assert piece.shape == (128,)
    np.testing.assert_array_equal(piece, expected)


def test_a_continuation_is_a_chain(vae: MusicVAE, rows: np.ndarray) -> None:
    still = vae.continuation(rows, 2, key=0, drift=0.0)
    once = vae.reconstruct(rows)
    windows = np.stack([once, vae.reconstruct(once)], axis=1)
    np.testing.assert_array_equal(still, operations.join_windows(jnp.asarray(windows), vae.task))
    moved = vae.continuation(rows, 2, key=1)
    assert moved.shape == (4, 64)
    np.testing.assert_array_equal(moved, vae.continuation(rows, 2, key=1))
    assert (moved != still).any()
    one = vae.continuation(rows[0], 2, key=0, drift=0.0)
    np.testing.assert_array_equal(one, still[:1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae, z: vae.grid(z[:3], 2, 2), "corners: 3 given"),
        (lambda vae, z: vae.grid(z, 2, 2, kind="arc"), "path: 'arc' is not one of"),
        (lambda vae, z: vae.interpolate(z[0], z[1], 3, kind="arc"), "path: 'arc' is not"),
        (lambda vae, z: vae.similar(z, 1.1, 1, 0), "amount: 1.1 is out of range, .* from 0 to 1"),
        (lambda vae, z: vae.similar(z, 0.5, 0, 0), "num: 0 is out of range"),
        (lambda vae, z: vae.similar(z, 0.5, 1, None), "key: None; variations need"),
        (lambda vae, z: vae.attribute(z, z, [1.0]), "attribute: one vector"),
        (lambda vae, z: vae.attribute(z, z[0], []), "attribute: one vector .* one amount"),
        (lambda vae, z: vae.attribute(z, z[0, :2], [1.0]), r"z: shape \[2\]"),
        (lambda vae, z: vae.long(z, 0), "num_windows: 0 is out of range"),
        (lambda vae, z: vae.continuation(z, 0, 0), "num_windows: 0 is out of range"),
        (lambda vae, z: vae.continuation(z, 1, None), "key: None; drifting needs"),
        (lambda vae, z: vae.continuation(z, 1, 0, drift=-0.1), "drift: -0.1 is out of range"),
    ],
)
def test_wrong_arguments_are_named(vae: MusicVAE, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(vae, np.random.default_rng(0).normal(size=(4, 4)))

"""The class for users: any rows in, NumPy arrays out."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.latent import batches
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.variables import variables_from_params
from tests.support import model_cases


@pytest.fixture(scope="module")
def melody() -> MusicVAE:
    case = model_cases.case("mel_2bar", "flat")
    return MusicVAE(case.config, case.params)


@pytest.fixture(scope="module")
def trio() -> MusicVAE:
    case = model_cases.case("trio_16bar", "hierdec")
    return MusicVAE(case.config, case.params)


def rows_of(vae: MusicVAE, num: int) -> np.ndarray:
    return model_cases.random_tokens(vae.task, np.random.default_rng(1), num)


def test_what_comes_out_is_numpy(trio: MusicVAE) -> None:
    rows = rows_of(trio, 3)
    mu, sigma = trio.encode(rows)
    tokens = trio.decode(np.asarray(mu))
    logits = trio.logits(np.asarray(mu), rows)
    assert {type(x) for x in (mu, sigma, tokens, *logits)} == {np.ndarray}
    assert mu.shape == sigma.shape == (3, 4)
    assert tokens.shape == (3, 256, 3)
    assert [x.shape for x in logits] == [(3, 256, 90), (3, 256, 90), (3, 256, 512)]
    assert trio.conductor(np.asarray(mu)).shape == (3, 16, 6)
    np.testing.assert_array_equal(trio.reconstruct(rows), tokens)


def test_one_row_is_a_batch_of_one_without_its_axis(melody: MusicVAE) -> None:
    rows = rows_of(melody, 3)
    mu, sigma = melody.encode(rows)
    one = melody.encode(rows[1])
    np.testing.assert_allclose(one.mu, mu[1], atol=1e-6)
    np.testing.assert_allclose(one.sigma, sigma[1], atol=1e-6)
    z = np.asarray(mu)
    np.testing.assert_array_equal(melody.decode(z[1]), melody.decode(z)[1])
    several, single = melody.logits(z, rows), melody.logits(z[1], rows[1])
    assert isinstance(several, np.ndarray)
    np.testing.assert_allclose(single, several[1], atol=1e-6)
    np.testing.assert_array_equal(melody.reconstruct(list(rows[1])), melody.reconstruct(rows)[1])


def test_batches_of_any_size(melody: MusicVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_BATCH", 4)
    rows = rows_of(melody, 11)  # 4 + 4 + 3, the last padded to 4
    mu = melody.encode(rows).mu
    assert mu.shape == (11, 4)
    alone = np.concatenate([melody.encode(rows[n : n + 4]).mu for n in (0, 4, 8)])
    np.testing.assert_array_equal(mu, alone)
    samples = melody.sample(11, key=0, temperature=1.0)
    assert len({row.tobytes() for row in samples}) == 11


def test_shorter_rows_are_padded(melody: MusicVAE) -> None:
    rows = rows_of(melody, 3)
    ragged = [rows[0], rows[1][:20], rows[2][:7]]
    posterior = melody.encode(ragged)
    for n, row in enumerate(ragged):
        np.testing.assert_allclose(posterior.mu[n], melody.encode(row).mu, atol=1e-6)
    whole = melody.encode(rows)
    assert np.abs(posterior.mu[1] - whole.mu[1]).max() > 1e-3
    assert melody.reconstruct(ragged).shape == (3, 32)
    z = np.asarray(posterior.mu)
    assert np.shape(melody.logits(z, ragged)) == (3, 32, 90)
    shorter = melody.logits(z[1], ragged[1])
    assert np.shape(shorter) == (20, 90)
    np.testing.assert_allclose(shorter, np.asarray(melody.logits(z, rows))[1, :20], atol=1e-6)
    # The likelihood counts the row's own steps: 7 cost less than 32.
    bounds = melody.log_likelihood([rows[0], rows[1][:7], rows[2]], key=0)
    assert bounds.elbo[1] > melody.log_likelihood(rows, key=0).elbo[1]


def test_longer_rows_are_cut_with_a_warning(melody: MusicVAE) -> None:
    rows = rows_of(melody, 3)
    longer = np.concatenate([rows, rows], axis=1)
    with pytest.warns(UserWarning, match="64 steps, only the first 32 are used"):
        posterior = melody.encode(longer)
    np.testing.assert_array_equal(posterior.mu, melody.encode(rows).mu)


def test_sampling_is_repeatable(melody: MusicVAE) -> None:
    first = melody.sample(4, key=3, temperature=0.7)
    np.testing.assert_array_equal(first, melody.sample(4, jax.random.key(3), temperature=0.7))
    assert (first != melody.sample(4, key=4, temperature=0.7)).any()
    z = np.zeros((4, 4))
    warm = melody.decode(z, key=1, temperature=1.0)
    np.testing.assert_array_equal(warm, melody.decode(z, key=1, temperature=1.0))
    assert (warm[0] != warm[1]).any()
    cold = melody.decode(z)
    np.testing.assert_array_equal(cold[0], cold[1])


def test_interpolation_ends_at_its_ends(melody: MusicVAE) -> None:
    rows = rows_of(melody, 3)
    path = melody.interpolate(rows[0], rows[2], 4)
    assert path.shape == (4, 32)
    np.testing.assert_array_equal(path[[0, 3]], melody.reconstruct(rows)[[0, 2]])
    mu = np.asarray(melody.encode(rows).mu)
    np.testing.assert_array_equal(path, melody.interpolate(mu[0], mu[2], 4))
    same = melody.interpolate(rows[0], rows[0], 3)
    np.testing.assert_array_equal(same, melody.reconstruct(rows[[0, 0, 0]]))


def test_importance_weighting_is_no_looser(melody: MusicVAE) -> None:
    bounds = melody.log_likelihood(rows_of(melody, 4), key=0, num_samples=64)
    assert np.all(bounds.importance_weighted > bounds.elbo)
    one = melody.log_likelihood(rows_of(melody, 4)[0], key=0)
    assert np.shape(one.elbo) == np.shape(one.importance_weighted) == ()


def test_from_variables_is_the_same_model(trio: MusicVAE) -> None:
    case = model_cases.case("trio_16bar", "hierdec")
    arrays = {n: np.asarray(a) for n, a in variables_from_params(case.params).items()}
    vae = MusicVAE.from_variables(arrays, "trio_16bar")
    assert vae.config.model.conductor_sizes == (5, 6)
    jax.tree.map(np.testing.assert_array_equal, vae.params, trio.params)


def test_restore_names_an_empty_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        MusicVAE.restore(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((2, 32), np.float32), "type is float32, tokens must be integers"),
        (np.full((2, 32), 90), r"melody tokens of mel_2bar go from 0 to 89, .* 90\.\.90"),
        (np.full((2, 32), -1), r"melody tokens of mel_2bar go from 0 to 89, .* -1\.\.-1"),
        (np.zeros((2, 32, 3), int), r"shape is \(32, 3\), mel_2bar has rows of \[T\]"),
        (np.zeros((0, 32), int), "there are no rows"),
        ([], "there are no rows|shape is"),
        (np.zeros((2, 0), int), r"shape is \(0,\)"),
    ],
)
def test_wrong_rows_are_named(melody: MusicVAE, tokens: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"(tokens|row): .*({message})"):
        melody.encode(tokens)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.decode(np.zeros((2, 5))), r"z: shape \[2, 5\], it must be \[B, 4\]"),
        (lambda vae: vae.decode(np.full((2, 4), np.nan)), "z: holds values that are not finite"),
        (lambda vae: vae.decode(np.zeros(4), temperature=0.5), "key: None; a temperature above 0"),
        (lambda vae: vae.decode(np.zeros(4), 0, -1.0), "temperature: -1.0 is out of range"),
        (lambda vae: vae.sample(0, key=0), "n: 0 is out of range"),
        (lambda vae: vae.sample(1, key=None), "key: None; drawing from the prior"),
        (lambda vae: vae.interpolate(np.zeros(4), np.ones(4), 1), "steps: 1 is out of range"),
        (lambda vae: vae.interpolate(np.zeros((2, 4)), np.ones(4), 3), "a: shape .* one row or"),
        (
            lambda vae: vae.logits(np.zeros((3, 4)), np.zeros((2, 32), int)),
            "must have one z per row",
        ),
        (lambda vae: vae.log_likelihood(np.zeros(32, int), 0, 0), "num_samples: 0 is out of range"),
        (lambda vae: vae.conductor(np.zeros(4)), "conductor: the architecture 'flat' has none"),
    ],
)
def test_wrong_arguments_are_named(melody: MusicVAE, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(melody)


def test_a_seed_may_be_an_integer_of_numpy(melody: MusicVAE) -> None:
    for seed in (np.int64(3), np.uint8(3), np.arange(4)[3]):
        np.testing.assert_array_equal(melody.sample(2, key=seed), melody.sample(2, key=3))

"""The VAE of waveforms."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import VAE, build_vae
from musicvae_jax.models.waveform import waveform_vae
from musicvae_jax.tasks import get_task, sound_task
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import Batch, example_values, make_train_step
from tests.support.model_cases import compiled

SIZES: dict[str, Any] = {
    "encoder_sizes": (4, 8, 8),
    "decoder_sizes": (8, 8, 4),
    "conv_width": 5,
    "dtype": "float32",
    "batch_size": 4,
}


def _config(**fields: Any) -> Config:
    return sound_task(100, 1).config.replace(**SIZES | fields)


@pytest.fixture(scope="module")
def model() -> VAE:
    return compiled(build_vae(_config()))


@pytest.fixture(scope="module")
def params(model: VAE) -> Any:
    return model.init(jax.random.key(0))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    time = np.arange(100) / 100
    sines = [0.5 * np.sin(2 * np.pi * hertz * time) for hertz in (2, 5, 9, 14)]
    return np.rint(np.stack(sines) * 2**15).astype(np.int16)


def test_shapes(model: VAE, params: Any, rows: np.ndarray) -> None:
    posterior = model.encode(params, rows)
    assert posterior.mu.shape == posterior.sigma.shape == (4, 2)
    (distribution,) = model.logits(params, posterior.mu, rows)
    assert distribution.shape == (4, 100, 2)
    np.testing.assert_allclose(np.exp(distribution[..., 1]), waveform_vae.FIRST_SCALE, rtol=1e-6)
    samples = model.generate(params, posterior.mu, jax.random.key(0), 1.0)
    assert (samples.shape, samples.dtype) == ((4, 100), jnp.int32)
    np.testing.assert_allclose(samples / 2**15, distribution[..., 0], atol=2**-15)
    # The first block halves 100 samples, filled up to 104 = 13 * 2 ** 3.
    assert params["encoder"]["mu"]["kernel"].shape == (13 * 8, 2)
    assert params["encoder"]["block_0"]["conv_0"]["kernel"].shape == (5, 1, 4)


def test_a_row_does_not_depend_on_the_others(model: VAE, params: Any, rows: np.ndarray) -> None:
    together = model.encode(params, rows)
    alone = model.encode(params, rows[2:3])
    np.testing.assert_allclose(together.mu[2:3], alone.mu, rtol=1e-4, atol=1e-6)
    decoded = model.logits(params, together.mu, rows)[0]
    np.testing.assert_allclose(
        decoded[2:3], model.logits(params, together.mu[2:3], rows[2:3])[0], rtol=1e-4, atol=1e-5
    )


def test_the_likelihood_and_the_ratio_by_hand() -> None:
    samples = jnp.array([[2**14, -(2**14), 2**14]])  # 0.5, -0.5, 0.5
    mean = jnp.array([[0.4, -0.5, 0.5]])
    distribution = (jnp.stack([mean, jnp.full_like(mean, math.log(0.2))], axis=-1),)
    constant = math.log(0.2) + 0.5 * math.log(2 * math.pi)
    nats = waveform_vae.gaussian_nats(distribution, samples)
    np.testing.assert_allclose(nats, [[3 * constant + 0.5 * 0.25]], rtol=1e-5)
    two = waveform_vae.gaussian_nats(distribution, samples, jnp.array([1]))
    np.testing.assert_allclose(two, [[constant + 0.5 * 0.25]], rtol=1e-5)
    ratio = waveform_vae.snr_db(distribution, samples)["snr_db"]
    np.testing.assert_allclose(ratio, [10 * math.log10(0.75 / 0.01)], rtol=1e-4)


@pytest.mark.slow
def test_the_gradient_is_that_of_finite_differences(
    model: VAE, params: Any, rows: np.ndarray
) -> None:
    config = _config()
    hyper = init_state(model, config).hyper
    eps = jax.random.normal(jax.random.key(1), (4, 2))
    batch = Batch(jnp.asarray(rows), eps)

    def loss(step: jax.Array, direction: Any) -> jax.Array:
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        task = get_task(config.task)
        values = example_values(model, task, hyper, jnp.float32(1.0), moved, batch)
        return jnp.mean(values["loss"])

    leaves, shape = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    draws = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    direction = jax.tree.unflatten(shape, draws)
    compiled, small = jax.jit(jax.value_and_grad(loss)), 1e-4
    (above, _), (below, _) = (compiled(step, direction) for step in (small, -small))
    gradient = compiled(0.0, direction)[1]
    difference = (above - below) / (2 * small)
    np.testing.assert_allclose(difference, gradient, rtol=0.03)


@pytest.mark.slow
def test_it_memorises_rows(model: VAE, rows: np.ndarray) -> None:
    config = _config(learning_rate=3e-3, beta=0.01)
    step = jax.jit(make_train_step(model, config), donate_argnums=0)
    state = init_state(model, config)
    state, first = step(state, Batch(jnp.asarray(rows)))
    for _ in range(400):
        state, last = step(state, Batch(jnp.asarray(rows)))
    assert first["snr_db"] < 1.0
    assert last["snr_db"] > 15.0
    assert {"kl_bits", "reconstruction_nats"} <= set(last)
    assert "accuracy" not in last


def test_sound_and_tokens_are_not_mixed() -> None:
    with pytest.raises(
        InputError,
        match=r"flat models tokens, the task is sound_100hz_1s; use one of waveform_vae$",
    ):
        build_vae(_config(architecture="flat"))
    with pytest.raises(
        InputError, match="waveform_vae models sound, the task is mel_2bar; use one of flat"
    ):
        build_vae(get_task("mel_2bar").config.replace(architecture="waveform_vae"))
    with pytest.raises(InputError, match="stop_metric: waveform_vae has no accuracy; use loss"):
        build_vae(_config(stop_patience=2, stop_metric="accuracy"))
    with pytest.raises(InputError, match="'sound_0hz_1s' is not one of"):
        get_task("sound_0hz_1s")


def test_operations_by_hand() -> None:
    config = sound_task(100, 1).config.replace(
        encoder_sizes=(2,), decoder_sizes=(4,), conv_width=3, z_size=2
    )
    # 50 steps of 2 channels after the block: 3 x 1 x 2, 3 x 2 x 2 and 1 x 2 products; then 100 x 4.
    encoding = 2 * (50 * (6 + 12 + 2) + 100 * 4)
    # 2 x 200 to 50 steps of 4 channels; 3 x 4 x 4 there, twice 3 x 4 x 4 for 100 steps, 4 x 4; then
    # 100 steps of 3 x 4.
    decoding = 2 * (2 * 200 + 50 * (48 + 2 * 48 + 16) + 100 * 12)
    assert waveform_vae.operations(config) == (encoding, decoding)

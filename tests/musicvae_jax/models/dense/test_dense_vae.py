"""`dense_vae`: against NumPy, its likelihood and its sampling by hand, able to learn."""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import objectives
from musicvae_jax.config import InputError
from musicvae_jax.models.dense.layers import DenseStack, UnitDropout
from musicvae_jax.models.registry import VAE, Params, build_model, build_vae
from musicvae_jax.tasks import get_task
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import Batch, example_values, make_train_step
from tests.support.model_cases import compiled, memorise, random_params, random_tokens
from tests.support.synthetic_store import random_rows

SIZES: dict[str, Any] = {
    "architecture": "dense_vae",
    "encoder_sizes": (6, 5),
    "decoder_sizes": (7, 6),
    "bar_sizes": (8, 3),
    "z_size": 4,
    "dtype": "float32",
}
TASKS = ("mel_2bar", "drums_2bar", "trio_16bar")


class Case(NamedTuple):
    """A tiny model with random parameters, and rows [3, T(, K)]."""

    model: VAE
    params: Params
    tokens: jax.Array


@functools.cache
def case(task_name: str) -> Case:
    task, rng = get_task(task_name), np.random.default_rng(0)
    model = compiled(build_vae(task.config.replace(**SIZES)))
    return Case(model, random_params(model, rng), jnp.asarray(random_tokens(task, rng)))


def dense(params: Params, x: np.ndarray) -> np.ndarray:
    for name in sorted(name for name in params if name.startswith("dense_")):
        x = np.maximum(affine(params[name], x), 0)
    return x


def affine(params: Params, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def cells(task_name: str, tokens: np.ndarray) -> np.ndarray:
    columns = []
    for k, track in enumerate(get_task(task_name).tracks):
        column = tokens.reshape(*tokens.shape[:2], -1)[:, :, k].astype(int)
        one_hot = np.eye(track.num_classes)[column]
        bits = (column[..., None] >> np.arange(9)) & 1
        roll = np.concatenate([bits, column[..., None] == 0], axis=-1)
        columns.append(roll if track.encoder_roll else one_hot)
    return np.concatenate(columns, axis=-1)


@pytest.mark.parametrize("task_name", TASKS)
def test_the_layers_equal_numpy(task_name: str) -> None:
    model, params, tokens = case(task_name)
    encoder, decoder = params["encoder"], params["decoder"]
    rows = cells(task_name, np.asarray(tokens))
    hidden = dense(encoder["stack"], rows.reshape(len(rows), -1))
    posterior = model.encode(params, tokens)
    layer = encoder["posterior"]
    np.testing.assert_allclose(posterior.mu, affine(layer["mu"], hidden), rtol=1e-4, atol=1e-4)
    variance = np.exp(affine(layer["log_variance"], hidden))
    np.testing.assert_allclose(posterior.sigma**2, variance, rtol=1e-3)
    z = np.random.default_rng(1).normal(size=(3, 4))
    logits = model.logits(params, jnp.asarray(z, jnp.float32), tokens)
    expected = affine(decoder["output"], dense(decoder["stack"], z))
    T = get_task(task_name).num_steps
    np.testing.assert_allclose(
        np.concatenate(logits, axis=-1), expected.reshape(3, T, -1), rtol=1e-4, atol=1e-4
    )
    assert [x.shape[2] for x in logits] == [t.num_classes for t in get_task(task_name).tracks]
    best = np.stack([x.argmax(axis=-1) for x in logits], axis=-1)
    made = model.generate(params, jnp.asarray(z, jnp.float32), jax.random.key(0), 0.0)
    np.testing.assert_array_equal(made, best.reshape(made.shape))


def test_only_the_first_steps_are_read() -> None:
    model, params, tokens = case("mel_2bar")
    lengths = jnp.array([5, 32, 1])
    later = tokens.at[:, 5:].add(1)
    before, after = (model.encode(params, rows, lengths).mu for rows in (tokens, later))
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[2], after[2])
    assert np.abs(before[1] - after[1]).max() > 1e-3


def test_cross_entropy_of_cells_by_hand() -> None:
    # One step of two values with p = 3/4 and 1/4 of being on; the token is value 1.
    logits = (jnp.log(jnp.array([[[3.0, 1 / 3]]])),)
    expected = -np.log(1 - 3 / 4) - np.log(1 / 4)
    found = objectives.bernoulli_nats_per_track(logits, jnp.array([[1]]))
    np.testing.assert_allclose(found, [[expected]], rtol=1e-6)
    nothing = objectives.bernoulli_nats_per_track(logits, jnp.array([[1]]), jnp.array([0]))
    np.testing.assert_array_equal(nothing, [[0.0]])


def test_a_token_has_its_probability_given_that_one_cell_is_on() -> None:
    x = np.array([0.3, -1.0, 2.0])
    on = 1 / (1 + np.exp(-x))
    patterns = np.array(list(itertools.product([0, 1], repeat=3)))
    chances = np.prod(np.where(patterns, on, 1 - on), axis=1)
    single = patterns.sum(axis=1) == 1
    given = (patterns[single] * chances[single, None]).sum(axis=0) / chances[single].sum()
    np.testing.assert_allclose(given, jax.nn.softmax(x), rtol=1e-6)
    # The model draws from that: one step of a real model, 4,000 times.
    model, params, _ = case("mel_2bar")
    z = jnp.full((1, 4), 0.5)
    expected = jax.nn.softmax(model.logits(params, z, jnp.zeros((1, 32), int))[0][0, 0])
    drawn = model.generate(params, jnp.tile(z, (4000, 1)), jax.random.key(0), 1.0)[:, 0]
    counts = np.bincount(drawn, minlength=90) / 4000
    assert np.abs(counts - expected).max() < 4 * np.sqrt(0.25 / 4000)


def test_samples_follow_their_key() -> None:
    model, params, _ = case("trio_16bar")
    z = jnp.zeros((2, 4))
    made = [model.generate(params, z, jax.random.key(seed), 1.0) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(made[0], made[1])
    assert np.any(made[0] != made[2])
    assert made[0].shape == (2, 256, 3)
    assert made[0].dtype == jnp.int32


@pytest.mark.parametrize("task_name", ["mel_2bar", "drums_2bar"])
def test_gradients_are_those_of_finite_differences(task_name: str) -> None:
    model, _, tokens = case(task_name)
    params = model.init(jax.random.key(1))
    rng = np.random.default_rng(1)
    task = get_task(task_name)
    config = task.config.replace(**SIZES, dropout=0.5)
    batch = Batch(tokens, jnp.asarray(rng.normal(size=(3, 4)), jnp.float32))
    hyper = init_state(model, config).hyper
    keys = jax.random.split(jax.random.key(0))
    options = [{"dropout": 0.5, "dropout_key": key} for key in keys]

    @jax.jit
    @jax.value_and_grad
    def loss(params: Params) -> jax.Array:
        one = jnp.float32(1.0)
        found = example_values(model, task, hyper, one, params, batch, options[0], **options[1])
        return found["loss_reference"].mean()

    leaves, tree = jax.tree.flatten(jax.device_get(params))
    for n, grad in enumerate(jax.device_get(jax.tree.leaves(loss(params)[1]))):
        norm, size = float(np.linalg.norm(grad)), 0.01
        ends = []
        for sign in (size, -size):
            moved = [*leaves[:n], leaves[n] + sign * grad / norm, *leaves[n + 1 :]]
            ends.append(float(loss(jax.tree.unflatten(tree, moved))[0]))
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * size), norm, rtol=0.02, atol=0.01)


def test_dropout_keeps_the_mean_and_is_only_for_training() -> None:
    # Positive numbers only, so that no ReLU cuts anything off.
    stack = DenseStack(2, (3, 1))
    params = jax.tree.map(jnp.ones_like, stack.init(jax.random.key(0), jnp.ones((1, 2))))
    run = jax.vmap(lambda key: stack.apply(params, jnp.ones((1, 2)), UnitDropout(0.25, key)))
    found = np.asarray(run(jax.random.split(jax.random.key(0), 4000))).ravel()
    np.testing.assert_allclose(np.unique(found), [1, 5, 9, 13])  # 1 + 3 / 0.75 for each unit left
    assert np.mean(found) == pytest.approx(10, abs=0.2)

    model, params, tokens = case("mel_2bar")
    keys = jax.random.split(jax.random.key(0))
    plain = model.encode(params, tokens).mu
    dropped = model.encode(params, tokens, dropout=0.5, dropout_key=keys[0]).mu
    again = model.encode(params, tokens, dropout=0.5, dropout_key=keys[0]).mu
    np.testing.assert_array_equal(dropped, again)
    assert np.abs(plain - dropped).max() > 1e-3
    with pytest.raises(ValueError, match="dropout_key: dropped units need a random key"):
        model.encode(params, tokens, dropout=0.5)


def test_a_training_step_drops_units() -> None:
    task = get_task("mel_2bar")
    losses = []
    for dropout in (0.0, 0.5, 0.5):
        config = task.config.replace(**SIZES, dropout=dropout, batch_size=3, transpose=0)
        model, params, tokens = case("mel_2bar")
        state = init_state(model, config)
        _, found = jax.jit(make_train_step(model, config))(state, Batch(tokens))
        losses.append(float(found["loss"]))
        assert params.keys() == state.params.keys()
    assert losses[1] == losses[2] != losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("task_name", ["mel_2bar", "drums_2bar"])
def test_sixteen_rows_are_memorised(task_name: str, key: jax.Array) -> None:
    task = get_task(task_name)
    config = task.config.replace(
        architecture="dense_vae",
        encoder_sizes=(32, 32),
        decoder_sizes=(32, 32),
        z_size=16,
        batch_size=16,
        learning_rate=0.005,
        beta=0.05,
        free_bits=0.0,
        warmup_steps=0,
        transpose=0,
        dtype="float32",
    )
    rows = random_rows(np.random.default_rng(0), task, 16)
    model = compiled(build_vae(config))

    def reproduced(params: Params, rows: jax.Array) -> float:
        mu = model.encode(params, rows).mu
        return float(np.mean(model.generate(params, mu, key, 0.0) == rows))

    assert memorise(config, model, rows, reproduced, most_steps=800) >= 0.99


def test_the_output_starts_at_the_frequency_of_a_one_hot(key: jax.Array) -> None:
    config = get_task("trio_16bar").config.replace(**SIZES)
    bias = jax.jit(build_model(config).init)(key)["decoder"]["output"]["bias"].reshape(256, -1)
    on = jax.nn.sigmoid(bias)
    np.testing.assert_allclose(on[:, :90].sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(on[:, 180:].sum(axis=1), 1, rtol=1e-4)
    params = jax.jit(build_model(config.replace(init="reference")).init)(key)
    biases = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 1]
    assert all(np.all(leaf == np.float32(0.01)) for leaf in biases)


def test_what_it_does_not_have_is_refused() -> None:
    config = get_task("mel_2bar").config.replace(**SIZES)
    with pytest.raises(InputError, match="lstm_backend: dense_vae has no LSTM; use auto"):
        build_model(config.replace(lstm_backend="cudnn"))
    with pytest.raises(InputError, match="dropout: flat drops no units; use 0"):
        build_model(config.replace(architecture="flat", dropout=0.1))
    with pytest.raises(InputError, match=r"dropout: 1.0 is out of range, it must be at least 0"):
        config.replace(dropout=1.0)

"""Every forecaster: causal, the same step by step as in one pass, able to learn."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import objectives
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import (
    Forecaster,
    Params,
    architectures_of,
    build_model,
    build_vae,
)
from musicvae_jax.tasks import get_task
from tests.support.model_cases import memorise, random_params, random_tokens
from tests.support.synthetic_store import random_rows

NAMES = ("lstm_forecaster", "conv_forecaster", "gru_attention", "lstm_attention")
SIZES: dict[str, Any] = {
    "decoder_sizes": (8, 6),
    "conv_filters": 5,
    "conv_width": 4,
    "conv_pool": 3,
    "attention_heads": 2,
    "attention_size": 3,
    "dtype": "float32",
}
TASKS = ("mel_2bar", "trio_16bar")
STEPS = 24


class Case(NamedTuple):
    """A tiny forecaster with random parameters, and rows [3, STEPS(, K)]."""

    model: Forecaster
    params: Params
    tokens: jax.Array


def build_forecaster(config: Config) -> Forecaster:
    model = build_model(config)
    assert isinstance(model, Forecaster)
    return model


def compiled(model: Forecaster) -> Forecaster:
    """Compile the functions of a model's parameters: not each operation by itself."""
    return Forecaster(
        init=jax.jit(model.init),
        next_logits=jax.jit(model.next_logits),
        continuation=jax.jit(model.continuation, static_argnums=2),
    )


@functools.cache
def case(name: str, task_name: str) -> Case:
    task, rng = get_task(task_name), np.random.default_rng(0)
    model = compiled(build_forecaster(task.config.replace(architecture=name, **SIZES)))
    tokens = jnp.asarray(random_tokens(task, rng)[:, :STEPS], jnp.int32)
    return Case(model, random_params(model, rng), tokens)


def test_every_forecaster_is_tested() -> None:
    config = get_task("mel_2bar").config.replace(**SIZES)
    names = architectures_of("mel_2bar")
    models = {name: build_model(config.replace(architecture=name)) for name in names}
    assert {name for name, m in models.items() if isinstance(m, Forecaster)} == set(NAMES)


@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_changed_token_changes_no_logit_up_to_its_step(name: str, task_name: str) -> None:
    model, params, tokens = case(name, task_name)
    changed_at = 13
    before = model.next_logits(params, tokens)
    after = model.next_logits(params, tokens.at[:, changed_at].add(1))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[:, : changed_at + 1], new[:, : changed_at + 1])
        assert np.abs(old[:, changed_at + 1] - new[:, changed_at + 1]).max() > 1e-3


@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_greedy_continuation_takes_the_best_of_the_logits_of_one_pass(
    name: str, task_name: str, key: jax.Array
) -> None:
    model, params, tokens = case(name, task_name)
    seed = tokens[:, :10]
    made = model.continuation(params, seed, 9, key, 0.0)
    assert made.dtype == jnp.int32
    whole = jnp.concatenate([seed, made], axis=1)
    logits = model.next_logits(params, whole)
    best = jnp.stack([column.argmax(axis=-1) for column in logits], axis=-1)
    np.testing.assert_array_equal(best.reshape(whole.shape)[:, 10:], made)


@pytest.mark.parametrize("name", NAMES)
def test_continuations_in_parts_equal_one(name: str, key: jax.Array) -> None:
    model, params, tokens = case(name, "mel_2bar")
    whole = model.continuation(params, tokens[:, :0], 12, key, 0.0)
    first = model.continuation(params, tokens[:, :0], 5, key, 0.0)
    rest = model.continuation(params, first, 7, key, 0.0)
    np.testing.assert_array_equal(jnp.concatenate([first, rest], axis=1), whole)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_their_key(name: str) -> None:
    model, params, tokens = case(name, "mel_2bar")
    keys = [jax.random.key(seed) for seed in (1, 1, 2)]
    made = [model.continuation(params, tokens[:, :10], 9, key, 1.0) for key in keys]
    np.testing.assert_array_equal(made[0], made[1])
    assert np.any(made[0] != made[2])
    assert int(made[0].max()) < get_task("mel_2bar").tracks[0].num_classes


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    model, params, tokens = case(name, "mel_2bar")
    rng = np.random.default_rng(1)

    @jax.jit
    @jax.value_and_grad
    def loss(params: Params) -> jax.Array:
        logits = model.next_logits(params, tokens)
        return objectives.reconstruction_nats(logits, tokens).mean()

    start, grads = jax.device_get((params, loss(params)[1]))
    for _ in range(3):
        way = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), start)
        size = 1e-3
        ends = [jax.tree.map(lambda p, w, s=s: p + s * w, start, way) for s in (size, -size)]
        measured = (loss(ends[0])[0] - loss(ends[1])[0]) / (2 * size)
        products = jax.tree.map(np.vdot, grads, way)
        expected = sum(jax.tree.leaves(products))
        np.testing.assert_allclose(measured, expected, rtol=0.02, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm_forecaster", "gru_attention", "lstm_attention"])
def test_tokens_reach_the_logits_through_three_layers_at_first(name: str, key: jax.Array) -> None:
    """By Glorot's rule for all kernels the standard deviation is 0.001 to 0.005."""
    sizes = SIZES | {"decoder_sizes": (32, 32, 32)}
    config = get_task("drums_2bar").config.replace(architecture=name, **sizes)
    model = compiled(build_forecaster(config))
    tokens = jax.random.randint(key, (64, 8), 0, 512)
    (logits,) = model.next_logits(model.init(key), tokens)
    assert float(jnp.mean(jnp.std(logits[:, -1], axis=0))) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_sixteen_rows_are_memorised(name: str, key: jax.Array) -> None:
    task = get_task("mel_2bar")
    config = task.config.replace(
        architecture=name,
        decoder_sizes=(128,),
        conv_filters=64,
        batch_size=16,
        learning_rate=0.01,
        warmup_steps=0,
        transpose=0,
        dtype="float32",
    )
    rows = random_rows(np.random.default_rng(0), task, 16)
    assert len(np.unique(rows[:, :16], axis=0)) == 16
    model = compiled(build_forecaster(config))

    def reproduced(params: Params, rows: jax.Array) -> float:
        # The first bar tells the rows apart.
        made = model.continuation(params, rows[:, :16], 16, key, 0.0)
        return float(np.mean(made == rows[:, 16:]))

    assert memorise(config, model, rows, reproduced, most_steps=800) >= 0.99


def test_what_needs_a_latent_space_is_refused() -> None:
    config = get_task("mel_2bar").config.replace(architecture="gru_attention", **SIZES)
    with pytest.raises(InputError, match="gru_attention has no latent space: generate with it by"):
        build_vae(config)
    refused: dict[str, dict[str, Any]] = {
        "freeze: gru_attention has no encoder": {"freeze": "encoder"},
        "stop_metric: gru_attention has no KL": {"stop_metric": "kl_bits", "stop_patience": 2},
        "plateau_metric: gru_attention has no KL": {
            "plateau_metric": "kl_bits",
            "learning_rate_schedule": "plateau",
        },
        "lstm_backend: gru_attention runs without cuDNN": {"lstm_backend": "cudnn"},
    }
    for message, fields in refused.items():
        with pytest.raises(InputError, match=message):
            build_model(config.replace(**fields))
    with pytest.raises(InputError, match="attention_heads: 5 is out of range, it must divide the"):
        build_model(config.replace(architecture="lstm_attention", attention_heads=5))

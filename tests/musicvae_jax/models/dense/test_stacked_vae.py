"""`stacked_vae`: against NumPy, its gradients, able to learn; its sizes are the source's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cli import operation_counts
from musicvae_jax.models.registry import Params, build_vae
from musicvae_jax.tasks import get_task
from musicvae_jax.training.state import count_parameters
from tests.musicvae_jax.models.dense.test_dense_vae import SIZES, affine, cells, dense
from tests.support.model_cases import compiled, memorise, random_params, random_tokens
from tests.support.synthetic_store import random_rows

STACKED = SIZES | {"architecture": "stacked_vae"}


@pytest.mark.parametrize("bar_sizes", [(8, 3), (5,)])
@pytest.mark.parametrize("task_name", ["mel_2bar", "trio_16bar"])
def test_the_layers_equal_numpy(task_name: str, bar_sizes: tuple[int, ...]) -> None:
    task, rng = get_task(task_name), np.random.default_rng(0)
    model = compiled(build_vae(task.config.replace(**(STACKED | {"bar_sizes": bar_sizes}))))
    params = random_params(model, rng)
    tokens = jnp.asarray(random_tokens(task, rng))
    encoder, decoder = params["encoder"], params["decoder"]
    rows = cells(task_name, np.asarray(tokens))
    U = task.num_bars
    bars = np.stack(
        [dense(encoder["bars"], part.reshape(3, -1)) for part in np.split(rows, U, axis=1)], axis=1
    )
    hidden = dense(encoder["rows"], bars.reshape(3, -1))
    posterior, layer = model.encode(params, tokens), encoder["posterior"]
    np.testing.assert_allclose(posterior.mu, affine(layer["mu"], hidden), rtol=1e-4, atol=1e-3)
    z = rng.normal(size=(3, 4))
    logits = model.logits(params, jnp.asarray(z, jnp.float32), tokens)
    bars = dense(decoder["rows"], z).reshape(3, U, -1)
    below = [dense(decoder["bars"], bars[:, u]) if decoder.get("bars") else bars[:, u]
             for u in range(U)]  # fmt: skip
    expected = np.stack([affine(decoder["output"], one) for one in below], axis=1)
    np.testing.assert_allclose(
        np.concatenate(logits, axis=-1),
        expected.reshape(3, task.num_steps, -1),
        rtol=1e-4,
        atol=1e-3,
    )
    best = np.stack([x.argmax(axis=-1) for x in logits], axis=-1)
    made = model.generate(params, jnp.asarray(z, jnp.float32), jax.random.key(0), 0.0)
    np.testing.assert_array_equal(made, best.reshape(made.shape))


def test_gradients_are_those_of_finite_differences() -> None:
    task, rng = get_task("mel_2bar"), np.random.default_rng(1)
    model = compiled(build_vae(task.config.replace(**STACKED)))
    params = model.init(jax.random.key(1))
    tokens = jnp.asarray(random_tokens(task, rng))

    @jax.jit
    @jax.value_and_grad
    def loss(params: dict[str, Any]) -> jax.Array:
        posterior = model.encode(params, tokens)
        logits = model.logits(params, posterior.mu + 0.5 * posterior.sigma, tokens)
        return model.nats(logits, tokens).mean()

    leaves, tree = jax.tree.flatten(jax.device_get(params))
    for n, grad in enumerate(jax.device_get(jax.tree.leaves(loss(params)[1]))):
        norm, size = float(np.linalg.norm(grad)), 0.003
        ends = []
        for sign in (size, -size):
            moved = [*leaves[:n], leaves[n] + sign * grad / norm, *leaves[n + 1 :]]
            ends.append(float(loss(jax.tree.unflatten(tree, moved))[0]))
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * size), norm, rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_sixteen_rows_are_memorised(key: jax.Array) -> None:
    task = get_task("drums_2bar")
    config = task.config.replace(
        architecture="stacked_vae",
        bar_sizes=(32, 32),
        encoder_sizes=(32,),
        decoder_sizes=(32,),
        z_size=16,
        batch_size=16,
        learning_rate=0.003,
        beta=0.02,
        free_bits=0.0,
        warmup_steps=0,
        dtype="float32",
    )
    rows = random_rows(np.random.default_rng(0), task, 16)
    model = compiled(build_vae(config))

    def reproduced(params: Params, rows: jax.Array) -> float:
        mu = model.encode(params, rows).mu
        return float(np.mean(model.generate(params, mu, key, 0.0) == rows))

    assert memorise(config, model, rows, reproduced, most_steps=1000) >= 0.99


@pytest.mark.parametrize("task_name", ["mel_16bar", "trio_16bar"])
def test_parameters_and_operations_by_hand(task_name: str) -> None:
    task = get_task(task_name)
    sizes: dict[str, Any] = {
        "architecture": "stacked_vae",
        "z_size": 120,
        "bar_sizes": (2000, 200),
        "encoder_sizes": (1600,),
        "decoder_sizes": (1600,),
    }
    config = task.config.replace(**sizes)
    width = 16 * sum(track.num_classes for track in task.tracks)
    of_bars = width * 2000 + 2000 * 200
    of_rows = 3200 * 1600 + 1600 * 120
    biases = [2000 + 200 + 1600 + 240, 1600 + 3200 + 2000 + width]
    shapes = jax.eval_shape(build_vae(config).init, jax.random.key(0))
    parameters = 2 * of_bars + 2 * of_rows + 1600 * 120 + sum(biases)
    assert count_parameters(shapes) == parameters
    counted = operation_counts.count(config)
    assert counted.parameters == parameters
    assert counted.forward == 2 * (16 * 2 * of_bars + 2 * of_rows + 1600 * 120)
    assert counted.decoding == 2 * (16 * of_bars + of_rows)

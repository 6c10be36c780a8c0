from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from musicvae_jax.config import TrainConfig
from musicvae_jax.models.registry import build_model
from musicvae_jax.training import optimiser
from tests.support.model_cases import random_params, tiny_config

CONFIG = TrainConfig()


def _hyper(**fields: Any) -> optimiser.Hyperparameters:
    return optimiser.hyperparameters(dataclasses.replace(CONFIG, **fields))


def _clip(
    clip: optax.GradientTransformationExtraArgs, grads: list[float], **fields: float
) -> np.ndarray:
    tree = {"a": jnp.array(grads[:1]), "b": jnp.array(grads[1:])}
    clipped, _ = clip.update(tree, clip.init(tree), hyper=_hyper(**fields))
    return np.concatenate([clipped["a"], clipped["b"]])


def _numpy_adam(grads: np.ndarray, rate: float) -> np.ndarray:
    """The formula of `tf1_adam`, in float64."""
    var, m, v = np.zeros(grads.shape[1]), 0.0, 0.0
    for t, g in enumerate(grads, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        scale = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        var = var - scale * m / (np.sqrt(v) + 1e-8)
    return var


def _run_adam(grads: np.ndarray, rate: float) -> np.ndarray:
    adam = optimiser.tf1_adam()
    params = jnp.zeros(grads.shape[1])
    state = adam.init(params)
    for g in jnp.asarray(grads, jnp.float32):
        updates, state = adam.update(
            g, state, params, hyper=_hyper(), learning_rate=jnp.float32(rate)
        )
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


def test_adam_is_the_formula_of_the_reference() -> None:
    grads = np.random.default_rng(0).normal(size=(6, 5)) * np.array([1e-9, 1e-8, 1e-6, 1.0, 100.0])
    np.testing.assert_allclose(_run_adam(grads, 1e-3), _numpy_adam(grads, 1e-3), rtol=2e-5)


def test_epsilon_is_not_corrected_for_bias() -> None:
    g, rate = 1e-7, 1e-3
    # At t = 1: m / sqrt(v) = g, epsilon weighs 1 / sqrt(1 - b2) times as much: 3.2e-7.
    by_hand = -rate * g / (g + 1e-8 / np.sqrt(0.001))
    ours = _run_adam(np.array([[g]]), rate)
    np.testing.assert_allclose(ours, [by_hand], rtol=1e-4)
    corrected, _ = optax.adam(rate).update(jnp.array([g]), optax.adam(rate).init(jnp.zeros(1)))
    assert abs(float(corrected[0]) - by_hand) > 0.5 * abs(by_hand)


def test_the_norm_is_clipped_only_when_it_is_large() -> None:
    clip = optimiser.clip_by_norm_or_zero()
    np.testing.assert_allclose(_clip(clip, [3.0, 4.0]), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(_clip(clip, [0.3, 0.4]), [0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(_clip(clip, [3.0, 4.0], grad_clip=10.0), [3.0, 4.0], rtol=1e-6)


def test_from_the_limit_on_the_gradient_is_0() -> None:
    clip = optimiser.clip_by_norm_or_zero()
    assert _clip(clip, [6000.0, 8000.0]).tolist() == [0.0, 0.0]
    np.testing.assert_allclose(_clip(clip, [5999.0, 8000.0]), [0.5999, 0.8], rtol=1e-3)
    # The norm overflows to infinity although no element does.
    assert _clip(clip, [1e30, 1e30]).tolist() == [0.0, 0.0]


def test_values_are_clipped_one_by_one() -> None:
    clip = optimiser.clip_by_value()
    clipped = _clip(clip, [-3.0, 0.5, 20000.0])
    assert clipped.tolist() == [-1.0, 0.5, 1.0]


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_a_grid_of_learning_rates_is_one_vmap(kind: str) -> None:
    chain = optimiser.make_optimiser(kind, "global_norm")
    params = {"cell_0": {"kernel": jnp.ones((3, 8))}}
    grads = {"cell_0": {"kernel": jnp.sin(jnp.arange(24.0)).reshape(3, 8)}}

    def step(rate: jax.Array, clip: jax.Array) -> jax.Array:
        hyper = dataclasses.replace(_hyper(), grad_clip=clip)
        updates, _ = chain.update(grads, chain.init(params), hyper=hyper, learning_rate=rate)
        return updates["cell_0"]["kernel"]

    rates, clips = jnp.array([1e-3, 2e-3]), jnp.array([1.0, 0.1])
    together = jax.vmap(step)(rates, clips)
    alone = jnp.stack([step(r, c) for r, c in zip(rates, clips, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert np.any(np.abs(alone[0]) > 0)


def test_finite_means_every_element() -> None:
    assert optimiser.all_finite({"a": jnp.ones(2), "b": jnp.zeros(())})
    assert not optimiser.all_finite({"a": jnp.ones(2), "b": jnp.array([0.0, jnp.nan])})
    assert not optimiser.all_finite({"a": jnp.array(jnp.inf)})


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_weights_decay_apart_from_the_gradient_and_biases_do_not(kind: str) -> None:
    leaves = {"kernel": jnp.full((2, 4), 3.0), "bias": jnp.full(4, 3.0)}
    params = {"cell_0": leaves, "mu": leaves}
    grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), params)
    plain, decaying = (
        optimiser.make_optimiser(kind, "global_norm", decays) for decays in (False, True)
    )

    def updates(chain: optax.GradientTransformationExtraArgs) -> Any:
        options = {"hyper": _hyper(weight_decay=0.5), "learning_rate": jnp.float32(0.01)}
        return chain.update(grads, chain.init(params), params, **options)[0]

    without, found = updates(plain), updates(decaying)
    for name in params:
        np.testing.assert_array_equal(found[name]["bias"], without[name]["bias"])
        change = found[name]["kernel"] - without[name]["kernel"]
        np.testing.assert_allclose(change, -0.01 * 0.5 * 3.0, rtol=1e-5)


def test_muon_equalises_the_singular_values_of_each_gate() -> None:
    rng = np.random.default_rng(0)
    rows, units = 24, 16
    matrix = rng.normal(size=(rows, 4 * units)) * rng.uniform(0.1, 1, size=(rows, 1))
    found = np.asarray(optimiser.orthogonalised(jnp.float32(matrix), 4))
    scale = optimiser.MUON_RMS * np.sqrt(rows)
    for gate in np.split(np.arange(4 * units), 4):
        u, before, v = np.linalg.svd(matrix[:, gate], full_matrices=False)
        after = np.linalg.svd(found[:, gate], compute_uv=False)
        assert before.max() / before.min() > 2.5
        # Five iterations bring them into this range, not to 1 (Jordan 2024).
        assert np.all((after > 0.6 * scale) & (after < 1.25 * scale))
        # The directions stay those of the singular vectors.
        inner = u.T @ found[:, gate] @ v.T / scale
        np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.mean(found**2)), optimiser.MUON_RMS, rtol=0.2)


def test_muon_of_one_column_is_the_direction_of_the_momentum() -> None:
    kernel = jnp.float32([[3.0, 0.0, 0.0, 0.0], [4.0, 2.0, 0.0, 0.0]])  # a column for each gate
    chain = optimiser.make_optimiser("muon", "global_norm")
    grads = {"cell_0": {"kernel": kernel}}
    options = {"hyper": _hyper(grad_clip=1e3), "learning_rate": jnp.float32(0.1)}
    updates, state = chain.update(grads, chain.init(grads), **options)
    # Each column has one singular value; five iterations from 1, by x * (a + b x^2 + c x^4).
    value = 1.0
    for _ in range(5):
        value *= 3.4445 - 4.7750 * value**2 + 2.0315 * value**4
    scale = -0.1 * 0.2 * np.sqrt(2) * value
    by_hand = scale * np.array([[0.6, 0.0, 0.0, 0.0], [0.8, 1.0, 0.0, 0.0]])
    np.testing.assert_allclose(updates["cell_0"]["kernel"], by_hand, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(state[1].first_moment["cell_0"]["kernel"], 0.1 * kernel, rtol=1e-6)


@pytest.mark.slow
def test_muon_leaves_biases_and_output_layers_to_adam() -> None:
    config = tiny_config("mel_16bar", "hierdec").replace(encoder_sizes=(6,), decoder_sizes=(7,))
    params = random_params(build_model(config), np.random.default_rng(0))
    grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), params)
    options = {"hyper": _hyper(), "learning_rate": jnp.float32(0.01)}
    by_adam, by_muon = (
        chain.update(grads, chain.init(params), **options)[0]
        for chain in (optimiser.make_optimiser(kind, "global_norm") for kind in ("adam", "muon"))
    )
    equal = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), by_adam, by_muon)
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/kernel")
        for path, same in jax.tree_util.tree_leaves_with_path(equal)
        if not same
    }
    assert changed == {
        "decoder/conductor/cell_0",
        "decoder/conductor/cell_1",
        "decoder/conductor/initial_state",
        "decoder/core/core_0/cell_0",
        "decoder/core/core_0/z_to_initial_state",
        "encoder/cell_0/bw",
        "encoder/cell_0/fw",
    }

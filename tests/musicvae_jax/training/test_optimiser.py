from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from musicvae_jax.config import TrainConfig
from musicvae_jax.training import optimiser

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


def test_a_grid_of_learning_rates_is_one_vmap() -> None:
    chain = optimiser.make_optimiser("global_norm")
    params, grads = jnp.ones(3), jnp.array([0.1, -0.2, 0.3])

    def step(rate: jax.Array, clip: jax.Array) -> jax.Array:
        hyper = dataclasses.replace(_hyper(), grad_clip=clip)
        updates, _ = chain.update(grads, chain.init(params), hyper=hyper, learning_rate=rate)
        return updates

    rates, clips = jnp.array([1e-3, 2e-3]), jnp.array([1.0, 0.1])
    together = jax.vmap(step)(rates, clips)
    alone = jnp.stack([step(r, c) for r, c in zip(rates, clips, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_finite_means_every_element() -> None:
    assert optimiser.all_finite({"a": jnp.ones(2), "b": jnp.zeros(())})
    assert not optimiser.all_finite({"a": jnp.ones(2), "b": jnp.array([0.0, jnp.nan])})
    assert not optimiser.all_finite({"a": jnp.array(jnp.inf)})


def test_weights_decay_apart_from_the_gradient_and_biases_do_not() -> None:
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), params)
    plain, decaying = (optimiser.make_optimiser("global_norm", decays) for decays in (False, True))

    def updates(chain: optax.GradientTransformationExtraArgs) -> Any:
        options = {"hyper": _hyper(weight_decay=0.5), "learning_rate": jnp.float32(0.01)}
        return chain.update(grads, chain.init(params), params, **options)[0]

    without, found = updates(plain), updates(decaying)
    np.testing.assert_array_equal(found["bias"], without["bias"])
    np.testing.assert_allclose(found["kernel"] - without["kernel"], -0.01 * 0.5 * 3.0, rtol=1e-5)

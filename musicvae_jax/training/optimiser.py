"""The reference's optimiser as optax transformations with hyper-parameters as arrays.

`update` receives learning rate, decays and limits as a `Hyperparameters` of float32 arrays, so
`jax.vmap` can train many points of a sweep at once.

Reference: magenta/models/music_vae/music_vae_train.py (clipping) and TensorFlow 1's
`tf.train.AdamOptimizer`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from musicvae_jax.config import TrainConfig

Tree = Any


@flax.struct.dataclass
class Hyperparameters:
    """Hyper-parameters that do not affect shapes: float32 scalars, except `transpose`, int32.

    The fields have the names of those of `TrainConfig`.
    """

    learning_rate: jax.Array
    min_learning_rate: jax.Array
    decay_rate: jax.Array
    warmup_steps: jax.Array
    cosine_steps: jax.Array
    weight_decay: jax.Array
    adam_b1: jax.Array
    adam_b2: jax.Array
    adam_eps: jax.Array
    grad_clip: jax.Array
    grad_norm_clip_to_zero: jax.Array
    beta: jax.Array
    beta_rate: jax.Array
    beta_steps: jax.Array
    beta_rise: jax.Array
    free_bits: jax.Array
    sampling_rate: jax.Array
    input_dropout: jax.Array
    transpose: jax.Array


def hyperparameters(config: TrainConfig) -> Hyperparameters:
    """Return the hyper-parameters of `config` as arrays."""
    names = [field.name for field in dataclasses.fields(Hyperparameters)]
    values = {name: jnp.float32(getattr(config, name)) for name in names}
    values["transpose"] = jnp.int32(config.transpose)
    return Hyperparameters(**values)


def clip_by_norm_or_zero() -> optax.GradientTransformationExtraArgs:
    """Clip the gradient to global norm `grad_clip`; from `grad_norm_clip_to_zero` up, zero it."""

    def update(
        grads: Tree, state: Tree, params: Tree = None, *, hyper: Hyperparameters, **_: Any
    ) -> tuple[Tree, Tree]:
        del params
        norm = optax.tree.norm(grads)
        scale = hyper.grad_clip / jnp.maximum(norm, hyper.grad_clip)
        small = norm < hyper.grad_norm_clip_to_zero
        # Select instead of multiplying by 0: the norm of a huge gradient may be infinite.
        return jax.tree.map(lambda g: jnp.where(small, g * scale, jnp.zeros_like(g)), grads), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def clip_by_value() -> optax.GradientTransformationExtraArgs:
    """Clip each element of the gradient to [-`grad_clip`, `grad_clip`]."""

    def update(
        grads: Tree, state: Tree, params: Tree = None, *, hyper: Hyperparameters, **_: Any
    ) -> tuple[Tree, Tree]:
        del params
        limit = hyper.grad_clip
        return jax.tree.map(lambda g: jnp.clip(g, -limit, limit), grads), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


class AdamState(NamedTuple):
    """Number of updates, int32 [], and the two moments, shaped like the parameters."""

    updates: jax.Array
    first_moment: Tree
    second_moment: Tree


def tf1_adam(decays_weights: bool = False) -> optax.GradientTransformationExtraArgs:
    """Build Adam with epsilon added to sqrt(v) before bias correction, as in TensorFlow 1.

    Its `update` also takes `hyper` and `learning_rate`, float32 [].

    Args:
      decays_weights: also apply decoupled weight decay, `learning_rate * hyper.weight_decay`, to
        the kernels but not to the biases (arrays with one axis), as in AdamW (Loshchilov and
        Hutter 2019).

    Step t subtracts `lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)`.

    Reference: tf.compat.v1.train.AdamOptimizer, as magenta/models/music_vae/base_model.py uses it.
    """

    def init(params: Tree) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.int32(0), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(
        grads: Tree,
        state: AdamState,
        params: Tree = None,
        *,
        hyper: Hyperparameters,
        learning_rate: jax.Array,
        **_: Any,
    ) -> tuple[Tree, AdamState]:
        b1, b2, eps = hyper.adam_b1, hyper.adam_b2, hyper.adam_eps
        count = state.updates + 1
        t = count.astype(jnp.float32)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.first_moment, grads)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.second_moment, grads)
        rate = learning_rate * jnp.sqrt(1 - jnp.power(b2, t)) / (1 - jnp.power(b1, t))
        updates = jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + eps), m, v)
        if decays_weights:
            share = learning_rate * hyper.weight_decay
            updates = jax.tree.map(lambda u, p: u - share * p if p.ndim > 1 else u, updates, params)
        return updates, AdamState(count, m, v)

    return optax.GradientTransformationExtraArgs(init, update)


def make_optimiser(
    clip_mode: str, decays_weights: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Chain clipping ("global_norm" or "value") and Adam, with or without weight decay.

    The chain's `update` takes the extra arguments `hyper` and `learning_rate`.
    """
    clip = {"global_norm": clip_by_norm_or_zero, "value": clip_by_value}[clip_mode]
    return optax.chain(clip(), tf1_adam(decays_weights))


def all_finite(tree: Tree) -> jax.Array:
    """Return whether all elements of all leaves are finite, bool []."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def select(keep_new: jax.Array, new: Tree, old: Tree) -> Tree:
    """Return `new` if `keep_new`, bool [], is true, else `old`, leaf by leaf."""
    return jax.tree.map(lambda n, o: jnp.where(keep_new, n, o), new, old)

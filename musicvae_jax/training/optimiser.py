"""The reference's optimiser, and Muon, as optax transformations with hyper-parameters as arrays.

`update` receives learning rate, decays and limits as a `Hyperparameters` of float32 arrays, so
`jax.vmap` can train many points of a sweep at once.

Reference: magenta/models/music_vae/music_vae_train.py (clipping) and TensorFlow 1's
`tf.train.AdamOptimizer`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from musicvae_jax.config import TrainConfig

Tree = Any
Path = tuple[Any, ...]

# Root mean square of the elements of Muon's updates, as a share of the learning rate. Adam's is
# about the same, so that both take the same rates (Liu et al. 2025).
MUON_RMS = 0.2
LSTM_GATES = 4
GATES_APART = optax.contrib.MuonDimensionNumbers(reduction_axis=0, output_axis=2)


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


def muon(decays_weights: bool = False) -> optax.GradientTransformationExtraArgs:
    """Build Muon for the matrices that `muon_gates` names, and `tf1_adam` for everything else.

    State, arguments of `update` and weight decay are those of `tf1_adam`. The update of a matrix is
    Adam's first moment m after one more step of momentum, `b1 * m + (1 - b1) * g`, with all
    singular values replaced by about 1, instead of m divided by the root of the second moment.

    Sources: K. Jordan, Muon: an optimizer for hidden layers in neural networks, 2024; scale of the
    updates: J. Liu et al., Muon is scalable for LLM training, arXiv 2502.16982.
    """
    adam = tf1_adam(decays_weights)

    def update(
        grads: Tree, state: AdamState, params: Tree = None, **options: Any
    ) -> tuple[Tree, AdamState]:
        updates, after = adam.update(grads, state, params, **options)
        hyper, learning_rate = options["hyper"], options["learning_rate"]
        b1, decay = hyper.adam_b1, hyper.weight_decay if decays_weights else 0.0

        def replaced(path: Path, update: jax.Array, m: jax.Array, g: jax.Array, p: Any) -> Any:
            gates = muon_gates(path)
            if not gates:
                return update
            direction = orthogonalised(b1 * m + (1 - b1) * g, gates)
            return -learning_rate * (direction + decay * p)

        weights = params if decays_weights else grads  # not used without decay
        updates = jax.tree.map_with_path(replaced, updates, after.first_moment, grads, weights)
        return updates, after

    return optax.GradientTransformationExtraArgs(adam.init, update)


def muon_gates(path: Path) -> int:
    """Return into how many matrices Muon divides the columns of an array; 0 if Adam updates it.

    The kernel of an LSTM is divided into its gates; the kernel that computes an initial state is
    one matrix. Adam updates the biases, the layers of the posterior, output layers, and all layers
    of models without LSTMs.
    """
    names = [str(getattr(key, "key", key)) for key in path]
    if names[-1] != "kernel":
        return 0
    if any(name.startswith("cell_") for name in names):
        return LSTM_GATES
    return int(any(name.endswith("initial_state") for name in names))


def orthogonalised(matrix: jax.Array, gates: int) -> jax.Array:
    """Replace the singular values of each gate's part of a matrix by about 1, and scale it.

    Args:
      matrix: float32 [N, gates * M].
      gates: number of parts.

    Returns:
      float32 [N, gates * M], with elements of root mean square `MUON_RMS`, about.
    """
    rows, columns = matrix.shape
    parts = matrix.reshape(rows, gates, columns // gates)
    # Without its own momentum, the state that optax keeps is not needed.
    newton_schulz = optax.contrib.scale_by_muon(
        beta=0.0, nesterov=False, weight_dimension_numbers=GATES_APART
    )
    directions, _ = newton_schulz.update(parts, newton_schulz.init(parts))
    scale = MUON_RMS * math.sqrt(max(rows, columns // gates))
    return scale * directions.reshape(rows, columns)


def make_optimiser(
    kind: str, clip_mode: str, decays_weights: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Chain clipping ("global_norm" or "value") and "adam" or "muon", with or without weight decay.

    The chain's `update` takes the extra arguments `hyper` and `learning_rate`.
    """
    clip = {"global_norm": clip_by_norm_or_zero, "value": clip_by_value}[clip_mode]
    return optax.chain(clip(), {"adam": tf1_adam, "muon": muon}[kind](decays_weights))


def all_finite(tree: Tree) -> jax.Array:
    """Return whether all elements of all leaves are finite, bool []."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def select(keep_new: jax.Array, new: Tree, old: Tree) -> Tree:
    """Return `new` if `keep_new`, bool [], is true, else `old`, leaf by leaf."""
    return jax.tree.map(lambda n, o: jnp.where(keep_new, n, o), new, old)

"""`gru_attention`: GRU layers with additive attention over their past outputs.

The output layer reads h_t and a weighted mean of h_0 ... h_t, with weights
softmax(v . tanh(Q h_t + K h_s)) over s <= t.

Reference: a melody generator of 2024 that names the layers but not their sizes; Bahdanau et al.
2015, "Neural Machine Translation by Jointly Learning to Align and Translate", for the attention;
Cho et al. 2014 for the GRU, with the reset gate after the product, as in cuDNN.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from musicvae_jax.config import Config
from musicvae_jax.models import products
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.forecasters.forecast import (
    ForecasterModule,
    layer_deviation,
    look_up,
    pairs_of,
    token_deviation,
    write_step,
)


class Weights(NamedTuple):
    """Arrays of the layers.

    Attributes:
      tables: K arrays [V_k, 3H], what the previous token adds to the lowest layer's gates.
      inputs: kernel [I, 3H] and bias [3H] of the inputs of each layer; the lowest kernel is unused.
      recurrent: kernel [H, 3H] and bias [3H] of each layer's own h.
      query: kernel [H, A] and bias [A] of the step that looks back.
      key: kernel [H, A] and bias [A] of the steps it looks at.
      score: [A], v.
      outputs: kernel and bias of each column's output layer.
    """

    tables: Columns
    inputs: tuple[tuple[jax.Array, jax.Array], ...]
    recurrent: tuple[tuple[jax.Array, jax.Array], ...]
    query: tuple[jax.Array, jax.Array]
    key: tuple[jax.Array, jax.Array]
    score: jax.Array
    outputs: tuple[tuple[jax.Array, jax.Array], ...]


class State(NamedTuple):
    """What the next step needs of those before it.

    Attributes:
      h: output of each layer, [B, H].
      past: [L, B, H], outputs of the highest layer.
      keys: [L, B, A], their keys.
      t: number of steps done, int32 [].
    """

    h: tuple[jax.Array, ...]
    past: jax.Array
    keys: jax.Array
    t: jax.Array


class GruAttention(ForecasterModule):
    """GRU layers and additive attention.

    Attributes:
      sizes: units of each layer.
      attention_size: A, units that compare two steps.
    """

    sizes: tuple[int, ...] = (256,)
    attention_size: int = 64

    def setup(self) -> None:
        """Declare the layers."""
        rows = (sum(self.depths), *self.sizes[:-1])
        widths = zip(rows, self.sizes, strict=True)
        Affine, A = products.Affine, self.attention_size
        deviations = [token_deviation(self.depths), *map(layer_deviation, self.sizes[:-1])]
        self.inputs = [
            Affine(i, 3 * H, nn.initializers.normal(deviation), name=f"inputs_{n}")
            for n, ((i, H), deviation) in enumerate(zip(widths, deviations, strict=True))
        ]
        self.recurrent = [Affine(H, 3 * H, name=f"recurrent_{n}") for n, H in enumerate(self.sizes)]
        self.query = Affine(self.sizes[-1], A)
        self.key = Affine(self.sizes[-1], A)
        self.score = Affine(A, 1)
        self.outputs = self.declare_outputs(2 * self.sizes[-1])

    def weights(self) -> Weights:
        """Arrange the parameters for the loops."""
        ends = list(itertools.accumulate(self.depths))[:-1]
        return Weights(
            tuple(jnp.split(self.inputs[0].kernel, ends)),
            pairs_of(self.inputs),
            pairs_of(self.recurrent),
            query=(self.query.kernel, self.query.bias),
            key=(self.key.kernel, self.key.bias),
            score=self.score.kernel[:, 0],
            outputs=pairs_of(self.outputs),
        )

    def hidden(self, weights: Weights, previous: Columns) -> jax.Array:
        """Compute the features [T, B, 2H] of all steps."""
        T = len(previous[0])
        gates = look_up(weights.tables, previous, self.dtype).astype(jnp.float32)
        gates = gates + weights.inputs[0][1][None, None, :]
        h = self._run(gates, weights.recurrent[0])
        for layer, recurrent in zip(weights.inputs[1:], weights.recurrent[1:], strict=True):
            h = self._run(self._project("tbh,hg->tbg", h, layer), recurrent)
        keys = self._project("tbh,ha->tba", h, weights.key)

        @jax.checkpoint
        def look_back(_: None, at: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
            # Step by step, and again in the backward pass: scores of all pairs of steps are T
            # times the size of the keys.
            query, t = at
            return None, _attend(query, keys, h, weights.score, t)

        queries = self._project("tbh,ha->tba", h, weights.query)
        _, found = lax.scan(look_back, None, (queries, jnp.arange(T)))
        return jnp.concatenate([h, found], axis=-1)

    def _run(self, gates: jax.Array, recurrent: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Run a layer over all steps: gate inputs [T, B, 3H] -> [T, B, H]."""

        def advance(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = _gru(x, h, recurrent, self.dtype)
            return h, h

        start = jnp.zeros((gates.shape[1], gates.shape[2] // 3))
        return lax.scan(advance, start, gates)[1]

    def _project(
        self, subscripts: str, h: jax.Array, layer: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        """Apply a dense layer."""
        kernel, bias = layer
        product = products.contract(subscripts, h, kernel, self.dtype)
        return product + bias.reshape((1,) * (product.ndim - 1) + (-1,))

    def start(self, batch_size: int, num_steps: int) -> State:
        """Return the state before the first of at most `num_steps` steps."""
        return State(
            tuple(jnp.zeros((batch_size, size)) for size in self.sizes),
            jnp.zeros((num_steps, batch_size, self.sizes[-1])),
            jnp.zeros((num_steps, batch_size, self.attention_size)),
            jnp.int32(0),
        )

    def step(self, weights: Weights, state: State, previous: Columns) -> tuple[State, jax.Array]:
        """Advance by one step."""
        gates = look_up(weights.tables, previous, self.dtype).astype(jnp.float32)
        gates, after = gates + weights.inputs[0][1][None, :], list[jax.Array]()
        for n, before in enumerate(state.h):
            if n:
                gates = self._project("bh,hg->bg", after[-1], weights.inputs[n])
            after.append(_gru(gates, before, weights.recurrent[n], self.dtype))
        h = after[-1]
        past = write_step(state.past, h, state.t)
        keys = write_step(state.keys, self._project("bh,ha->ba", h, weights.key), state.t)
        query = self._project("bh,ha->ba", h, weights.query)
        found = _attend(query, keys, past, weights.score, state.t)
        state = State(tuple(after), past, keys, state.t + 1)
        return state, jnp.concatenate([h, found], axis=-1)


def _gru(
    x: jax.Array, h: jax.Array, recurrent: tuple[jax.Array, jax.Array], dtype: Any
) -> jax.Array:
    """Advance a GRU by one step: gate inputs x [B, 3H] and h [B, H] -> h [B, H]."""
    kernel, bias = recurrent
    own = products.contract("bh,hg->bg", h, kernel, dtype) + bias[None, :]
    reset_x, update_x, new_x = jnp.split(x, 3, axis=-1)
    reset_h, update_h, new_h = jnp.split(own, 3, axis=-1)
    update = jax.nn.sigmoid(update_x + update_h)
    new = jnp.tanh(new_x + jax.nn.sigmoid(reset_x + reset_h) * new_h)
    return (1.0 - update) * new + update * h


def _attend(
    query: jax.Array, keys: jax.Array, values: jax.Array, score: jax.Array, t: jax.Array
) -> jax.Array:
    """Average values [L, B, H] of steps 0 to t, weighted by a query [B, A] and keys [L, B, A]."""
    compared = jnp.tanh(query[None] + keys)
    scores = jnp.sum(compared * score[None, None, :], axis=-1)
    is_past = jnp.arange(len(keys))[:, None] <= t
    shares = jax.nn.softmax(jnp.where(is_past, scores, -jnp.inf), axis=0)
    return jnp.einsum("lb,lbh->bh", shares, values)


def build(config: Config, depths: tuple[int, ...], dtype: jax.typing.DTypeLike) -> GruAttention:
    """Build the module of a configuration."""
    return GruAttention(depths, dtype, config.model.decoder_sizes, config.model.attention_size)

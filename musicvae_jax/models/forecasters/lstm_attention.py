"""`lstm_attention`: LSTM layers followed by causal multi-head attention.

The output layer reads h_t + O [head_1; ...; head_N], where each head is scaled dot-product
attention of step t over the steps up to t.

Reference: a melody generator of 2024 that names the layers but not their sizes; Vaswani et al.
2017, "Attention Is All You Need", section 3.2, for the attention. The sum with h_t is ours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from musicvae_jax.config import Config, InputError
from musicvae_jax.models import lstm, native, products
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.forecasters.forecast import ForecasterModule, pairs_of, write_step
from musicvae_jax.models.forecasters.lstm_layers import LstmLayers, LstmWeights


class Weights(NamedTuple):
    """Arrays of the layers.

    Attributes:
      layers: of the LSTM.
      query: kernel [H, H] and bias [H]; `key`, `value` and `merge` (O) likewise.
      outputs: kernel and bias of each column's output layer.
    """

    layers: LstmWeights
    query: tuple[jax.Array, jax.Array]
    key: tuple[jax.Array, jax.Array]
    value: tuple[jax.Array, jax.Array]
    merge: tuple[jax.Array, jax.Array]
    outputs: tuple[tuple[jax.Array, jax.Array], ...]


class State(NamedTuple):
    """What the next step needs of those before it.

    Attributes:
      lstm: states of the layers.
      keys: [L, B, H], of the steps so far.
      values: [L, B, H].
      t: number of steps done, int32 [].
    """

    lstm: tuple[lstm.State, ...]
    keys: jax.Array
    values: jax.Array
    t: jax.Array


class LstmAttention(ForecasterModule):
    """LSTM layers and multi-head attention.

    Attributes:
      sizes: units of each layer; the last is a multiple of `heads`.
      heads: attention heads.
      remat: recompute each LSTM layer in the backward pass.
      use_native: whether the LSTM layers use the kernel of `models/native.py`.
    """

    sizes: tuple[int, ...] = (256,)
    heads: int = 4
    remat: bool = False
    use_native: bool = False

    def setup(self) -> None:
        """Declare the layers."""
        H = self.sizes[-1]
        self.layers = LstmLayers(
            self.depths, self.sizes, self.dtype, self.remat, self.use_native, name="lstm"
        )
        self.query, self.key = products.Affine(H, H), products.Affine(H, H)
        self.value, self.merge = products.Affine(H, H), products.Affine(H, H)
        self.outputs = self.declare_outputs(H)

    def weights(self) -> Weights:
        """Arrange the parameters for the loops."""
        return Weights(
            self.layers.weights(),
            query=(self.query.kernel, self.query.bias),
            key=(self.key.kernel, self.key.bias),
            value=(self.value.kernel, self.value.bias),
            merge=(self.merge.kernel, self.merge.bias),
            outputs=pairs_of(self.outputs),
        )

    def hidden(self, weights: Weights, previous: Columns) -> jax.Array:
        """Compute the features [T, B, H] of all steps."""
        h = self.layers.run(weights.layers, previous)
        keys, values = self._project(h, weights.key), self._project(h, weights.value)
        steps = jnp.arange(len(h))
        is_past = steps[None, :] <= steps[:, None]
        found = self._attend(self._project(h, weights.query), keys, values, is_past)
        return h + self._project(found, weights.merge)

    def _project(self, h: jax.Array, layer: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Apply a dense layer to [T, B, H]."""
        kernel, bias = layer
        return products.contract("tbh,ho->tbo", h, kernel, self.dtype) + bias[None, None, :]

    def _attend(
        self, query: jax.Array, keys: jax.Array, values: jax.Array, is_past: jax.Array
    ) -> jax.Array:
        """Attend from queries [T, B, H] to keys and values [L, B, H] where `is_past` [T, L]."""
        T, B, H = query.shape
        q, k, v = (x.reshape(len(x), B, self.heads, -1) for x in (query, keys, values))
        scores = products.contract("tbnd,lbnd->bntl", q, k, self.dtype)
        scores = scores / math.sqrt(H // self.heads)
        shares = jax.nn.softmax(jnp.where(is_past[None, None], scores, -jnp.inf), axis=-1)
        found = products.contract("bntl,lbnd->tbnd", shares, v, self.dtype)
        return found.reshape(T, B, H)

    def start(self, batch_size: int, num_steps: int) -> State:
        """Return the state before the first of at most `num_steps` steps."""
        past = jnp.zeros((num_steps, batch_size, self.sizes[-1]))
        return State(self.layers.start(batch_size), past, past, jnp.int32(0))

    def step(self, weights: Weights, state: State, previous: Columns) -> tuple[State, jax.Array]:
        """Advance by one step."""
        states, h = self.layers.step(weights.layers, state.lstm, previous)
        row = h[None]
        keys = write_step(state.keys, self._project(row, weights.key)[0], state.t)
        values = write_step(state.values, self._project(row, weights.value)[0], state.t)
        is_past = (jnp.arange(len(keys)) <= state.t)[None, :]
        found = self._attend(self._project(row, weights.query), keys, values, is_past)
        out = row + self._project(found, weights.merge)
        return State(states, keys, values, state.t + 1), out[0]


def build(config: Config, depths: tuple[int, ...], dtype: jax.typing.DTypeLike) -> LstmAttention:
    """Build the module of a configuration.

    Raises:
      InputError: the heads do not divide the units of the last layer.
    """
    model = config.model
    units, heads = model.decoder_sizes[-1], model.attention_heads
    if units % heads:
        raise InputError(
            f"attention_heads: {heads} is out of range, it must divide the {units} units of the "
            "last layer of decoder_sizes"
        )
    use_native = native.uses_native(config)
    return LstmAttention(depths, dtype, model.decoder_sizes, heads, config.run.remat, use_native)

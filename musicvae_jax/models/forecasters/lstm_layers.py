"""Stacked LSTMs that read the previous tokens."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from musicvae_jax.models import lstm
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.forecasters.forecast import (
    input_kernel,
    layer_deviation,
    look_up,
    token_deviation,
)


class LstmWeights(NamedTuple):
    """Arrays of the layers.

    Attributes:
      tables: K arrays [V_k, 4H], rows of the lowest kernel for the previous token.
      layers: weights of each layer, with a leading axis of length 1.
    """

    tables: Columns
    layers: tuple[lstm.Layer, ...]


class LstmLayers(nn.Module):
    """LSTM layers over one-hot tokens.

    Attributes:
      depths: V of each of the K columns.
      sizes: units of each layer.
      dtype: type of the products.
      remat: recompute each layer in the backward pass.
      use_native: whether the layers use the kernel of `models/native.py`.
    """

    depths: tuple[int, ...]
    sizes: tuple[int, ...]
    dtype: Any = jnp.float32
    remat: bool = False
    use_native: bool = False

    def setup(self) -> None:
        """Declare the cells."""
        inputs = [(sum(self.depths), token_deviation(self.depths))]
        inputs += [(size, layer_deviation(size)) for size in self.sizes[:-1]]
        self.cells = [
            lstm.cell(rows, size, f"cell_{n}", input_kernel(rows, deviation))
            for n, ((rows, deviation), size) in enumerate(zip(inputs, self.sizes, strict=True))
        ]

    def weights(self) -> LstmWeights:
        """Arrange the parameters for the loops."""
        lowest, ends = self.cells[0], list(itertools.accumulate(self.depths))
        *tables, recurrent = jnp.split(lowest.kernel, ends)
        layers = [lstm.Layer(None, recurrent[None], lowest.bias[None])]
        for below, cell in zip(self.sizes, self.cells[1:], strict=False):
            inputs, recurrent = cell.kernel[None, :below], cell.kernel[None, below:]
            layers.append(lstm.Layer(inputs, recurrent, cell.bias[None]))
        return LstmWeights(tuple(tables), tuple(layers))

    def run(self, weights: LstmWeights, previous: Columns) -> jax.Array:
        """Compute h of the highest layer, [T, B, H], from previous tokens [T, B] each."""
        T, B = previous[0].shape
        kept = lstm.kept_dtype(self.dtype, self.use_native)
        hidden = lstm.run_stack(
            weights.layers,
            lambda: look_up(weights.tables, previous, kept)[None],
            weights.layers[0].bias[:, None, :],
            self.start(B),
            T,
            self.dtype,
            self.remat,
            self.use_native,
        )
        return hidden[0].astype(jnp.float32)

    def start(self, batch_size: int) -> tuple[lstm.State, ...]:
        """Return the states before the first step: zeros."""
        zeros = [jnp.zeros((1, batch_size, size)) for size in self.sizes]
        return tuple(lstm.State(c, c) for c in zeros)

    def step(
        self, weights: LstmWeights, states: tuple[lstm.State, ...], previous: Columns
    ) -> tuple[tuple[lstm.State, ...], jax.Array]:
        """Advance by one step: states, previous tokens [B] each -> states, h [B, H]."""
        tokens = look_up(weights.tables, previous, self.dtype).astype(jnp.float32)
        layers = [
            layer._replace(
                inputs=None if layer.inputs is None else layer.inputs.astype(self.dtype),
                recurrent=layer.recurrent.astype(self.dtype),
            )
            for layer in weights.layers
        ]
        gates = tokens[None] + weights.layers[0].bias[:, None, :]
        states, hidden = lstm.step_stack(layers, gates, states)
        return states, hidden[0]

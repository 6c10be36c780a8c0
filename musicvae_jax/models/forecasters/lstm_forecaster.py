"""`lstm_forecaster`: stacked LSTMs over one-hot tokens, and one dense output layer.

Reference: a course project of 2020 on drum patterns, with three layers of 32 units.

Differences from the reference: softmax instead of sigmoid outputs, so that the loss is a
likelihood; larger initial kernels of the inputs (`forecast.token_deviation`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax

from musicvae_jax.config import Config
from musicvae_jax.models import lstm, native
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.forecasters.forecast import ForecasterModule, pairs_of
from musicvae_jax.models.forecasters.lstm_layers import LstmLayers, LstmWeights


class Weights(NamedTuple):
    """Arrays of the layers, and kernel and bias of each column's output layer."""

    layers: LstmWeights
    outputs: tuple[tuple[jax.Array, jax.Array], ...]


class LstmForecaster(ForecasterModule):
    """Stacked LSTMs.

    Attributes:
      sizes: units of each layer.
      remat: recompute each layer in the backward pass.
      use_native: whether the layers use the kernel of `models/native.py`.
    """

    sizes: tuple[int, ...] = (32, 32, 32)
    remat: bool = False
    use_native: bool = False

    def setup(self) -> None:
        """Declare the layers."""
        self.layers = LstmLayers(
            self.depths, self.sizes, self.dtype, self.remat, self.use_native, name="lstm"
        )
        self.outputs = self.declare_outputs(self.sizes[-1])

    def weights(self) -> Weights:
        """Arrange the parameters for the loops."""
        return Weights(self.layers.weights(), pairs_of(self.outputs))

    def hidden(self, weights: Weights, previous: Columns) -> jax.Array:
        """Compute the features [T, B, H] of all steps."""
        return self.layers.run(weights.layers, previous)

    def start(self, batch_size: int, num_steps: int) -> tuple[lstm.State, ...]:
        """Return the states before the first step."""
        del num_steps
        return self.layers.start(batch_size)

    def step(
        self, weights: Weights, state: tuple[lstm.State, ...], previous: Columns
    ) -> tuple[tuple[lstm.State, ...], jax.Array]:
        """Advance by one step."""
        return self.layers.step(weights.layers, state, previous)


def build(config: Config, depths: tuple[int, ...], dtype: jax.typing.DTypeLike) -> LstmForecaster:
    """Build the module of a configuration."""
    run, use_native = config.run, native.uses_native(config)
    return LstmForecaster(depths, dtype, config.model.decoder_sizes, run.remat, use_native)

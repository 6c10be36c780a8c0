"""`conv_forecaster`: one causal convolution over one-hot tokens, max-pooling, one dense layer.

Step t sees the `width + pool - 1` tokens before it.

Reference: a course project of 2020 on drum patterns, with 32 filters of width 32 and pooling of 2.

Differences from the reference: the convolution is causal, so that all steps are learned from in
one pass; softmax instead of sigmoid outputs, so that the loss is a likelihood.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from musicvae_jax.config import Config
from musicvae_jax.models import products
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.forecasters.forecast import ForecasterModule, look_up, pairs_of


class Weights(NamedTuple):
    """Arrays of the layers.

    Attributes:
      tables: K arrays [W, V_k, F]: what each filter adds for a token so many steps back.
      bias: [F].
      outputs: kernel and bias of each column's output layer.
    """

    tables: Columns
    bias: jax.Array
    outputs: tuple[tuple[jax.Array, jax.Array], ...]


class State(NamedTuple):
    """What the next step needs of those before it.

    Attributes:
      tokens: K arrays [W - 1, B], the last tokens, the newest first.
      filtered: [P - 1, B, F], the last outputs of the convolution.
    """

    tokens: Columns
    filtered: jax.Array


class ConvForecaster(ForecasterModule):
    """A causal convolution.

    Attributes:
      filters: F.
      width: W, steps that a filter spans.
      pool: P, outputs of the convolution of which the largest counts.
    """

    filters: int = 32
    width: int = 32
    pool: int = 2

    def setup(self) -> None:
        """Declare the layers."""
        # Of the inputs of a filter one per step and column is 1, all others are 0.
        draw = nn.initializers.normal(1.0 / math.sqrt(self.width * len(self.depths)))
        self.convolution = products.Affine(self.width * sum(self.depths), self.filters, draw)
        self.outputs = self.declare_outputs(self.filters)

    def weights(self) -> Weights:
        """Arrange the parameters for the loops."""
        kernel = self.convolution.kernel.reshape(self.width, -1, self.filters)
        ends = list(itertools.accumulate(self.depths))[:-1]
        tables = tuple(jnp.split(kernel, ends, axis=1))
        return Weights(tables, self.convolution.bias, pairs_of(self.outputs))

    def hidden(self, weights: Weights, previous: Columns) -> jax.Array:
        """Compute the features [T, B, F] of all steps."""
        T, B = previous[0].shape
        padded = [
            jnp.concatenate([jnp.full((self.width - 1, B), depth, jnp.int32), tokens])
            for tokens, depth in zip(previous, self.depths, strict=True)
        ]

        def add(total: jax.Array, lag: tuple[Columns, jax.Array]) -> tuple[jax.Array, None]:
            # One lag after the other: all at once would keep W times the result.
            tables, back = lag
            first = self.width - 1 - back
            tokens = tuple(lax.dynamic_slice_in_dim(p, first, T) for p in padded)
            return total + look_up(tables, tokens, self.dtype), None

        zeros = jnp.zeros((T, B, self.filters), self.dtype)
        sums, _ = lax.scan(add, zeros, (weights.tables, jnp.arange(self.width)))
        filtered = nn.relu(sums.astype(jnp.float32) + weights.bias[None, None, :])
        before = jnp.zeros((self.pool - 1, B, self.filters))
        spread = jnp.concatenate([before, filtered])
        return jnp.stack([spread[n : n + T] for n in range(self.pool)]).max(axis=0)

    def start(self, batch_size: int, num_steps: int) -> State:
        """Return the state before the first step: no tokens, no outputs."""
        del num_steps
        none = [jnp.full((self.width - 1, batch_size), V, jnp.int32) for V in self.depths]
        return State(tuple(none), jnp.zeros((self.pool - 1, batch_size, self.filters)))

    def step(self, weights: Weights, state: State, previous: Columns) -> tuple[State, jax.Array]:
        """Advance by one step."""
        pairs = zip(previous, state.tokens, strict=True)
        tokens = tuple(jnp.concatenate([new[None], old]) for new, old in pairs)
        per_lag = jax.vmap(lambda tables, at: look_up(tables, at, self.dtype))
        sums = per_lag(weights.tables, tokens).sum(axis=0)
        filtered = nn.relu(sums.astype(jnp.float32) + weights.bias[None, :])
        spread = jnp.concatenate([state.filtered, filtered[None]])
        kept = tuple(column[:-1] for column in tokens)
        return State(kept, spread[1:]), spread.max(axis=0)


def build(config: Config, depths: tuple[int, ...], dtype: jax.typing.DTypeLike) -> ConvForecaster:
    """Build the module of a configuration."""
    model = config.model
    return ConvForecaster(depths, dtype, model.conv_filters, model.conv_width, model.conv_pool)

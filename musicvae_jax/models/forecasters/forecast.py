"""What every forecaster shares: its interface, its output layer, and continuing a seed.

    tokens -> the tokens before each step -> hidden [T, B, H], all steps in one pass -> logits

A forecaster gives the same logits step by step from a carried state, which is how it continues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from musicvae_jax.models import draws, products
from musicvae_jax.models.decoders import join_columns, shift
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import split_columns
from musicvae_jax.models.initialisation import GLOROT, Initializer

# Outputs of a recurrent layer have a standard deviation of about 0.25 at first.
_LAYER_GAIN = 3.0


def token_deviation(depths: Sequence[int]) -> float:
    """Return the standard deviation of the initial rows that K tokens are looked up in.

    Their sum has a standard deviation of 1. By Glorot's rule for one-hots of V classes, of which
    one is read at a step, it is so small that three LSTM layers of 32 units pass nothing on: in
    8,900 steps of 128 rows they learned the frequencies of the tokens and no more.
    """
    return 1.0 / math.sqrt(len(depths))


def layer_deviation(units: int) -> float:
    """Return the standard deviation of the initial rows that read a recurrent layer below."""
    return _LAYER_GAIN / math.sqrt(units)


def input_kernel(num_rows: int, deviation: float) -> Initializer:
    """Initialise an LSTM kernel whose first `num_rows` rows, of the inputs, have a deviation.

    The rows of the layer's own h follow Glorot's rule for the whole kernel.
    """

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        own_key, rows_key = jax.random.split(key)
        rows = deviation * jax.random.normal(rows_key, (num_rows, shape[1]), dtype)
        return jnp.concatenate([rows, GLOROT(own_key, shape, dtype)[num_rows:]])

    return draw


class ForecasterModule(nn.Module):
    """Base of the forecasters. A subclass gives `declare`, `weights`, `hidden`, `start`, `step`.

    Attributes:
      depths: V of each of the K columns.
      dtype: type of the products.
    """

    depths: tuple[int, ...]
    dtype: Any = jnp.float32

    def declare_outputs(self, inputs: int) -> list[products.Affine]:
        """Create the output layers, one for each column, that read `inputs` features."""
        return [
            products.Affine(inputs, depth, name=f"output_{k}")
            for k, depth in enumerate(self.depths)
        ]

    def weights(self) -> Any:
        """Arrange the parameters for the loops, "outputs" among them."""
        raise NotImplementedError

    def hidden(self, weights: Any, previous: Columns) -> jax.Array:
        """Compute the features [T, B, H] of all steps from the tokens before them, [T, B] each."""
        raise NotImplementedError

    def start(self, batch_size: int, num_steps: int) -> Any:
        """Return the state before the first of at most `num_steps` steps."""
        raise NotImplementedError

    def step(self, weights: Any, state: Any, previous: Columns) -> tuple[Any, jax.Array]:
        """Advance by one step: state, previous tokens [B] each -> state, features [B, H]."""
        raise NotImplementedError

    def declare(self) -> None:
        """Create all parameters without running the model."""
        self.weights()

    def next_logits(self, tokens: jax.Array) -> Columns:
        """Compute the logits of every step of tokens [B, T] or [B, T, K]: K arrays [B, T, V_k]."""
        weights = self.weights()
        previous = shift(split_columns(tokens), self.no_tokens(tokens.shape[0]))
        hidden = self.hidden(weights, previous)
        return tuple(
            products.contract("tbh,hv->btv", hidden, kernel, self.dtype) + bias[None, None, :]
            for kernel, bias in weights.outputs
        )

    def continuation(
        self, seed: jax.Array, num_steps: int, key: jax.Array, temperature: jax.Array | float
    ) -> jax.Array:
        """Continue tokens [B, S] or [B, S, K] by `num_steps` steps; S may be 0."""
        weights = self.weights()
        columns = split_columns(seed)
        length, B = columns[0].shape
        state = self.start(B, length + num_steps)
        last = self.no_tokens(B)
        if length:
            previous = shift(columns, last)

            def feed(state: Any, tokens: Columns) -> tuple[Any, None]:
                return self.step(weights, state, tokens)[0], None

            state, _ = lax.scan(feed, state, previous)
            last = tuple(column[-1] for column in columns)
        return self._generate(weights, state, last, num_steps, key, temperature)

    def _generate(
        self,
        weights: Any,
        state: Any,
        last: Columns,
        num_steps: int,
        key: jax.Array,
        temperature: jax.Array | float,
    ) -> jax.Array:
        """Draw `num_steps` steps, each output fed back."""
        takes_best, B = draws.is_zero(temperature), last[0].shape[0]

        def draw(carry: tuple[Any, Columns], noise: Any) -> tuple[tuple[Any, Columns], Columns]:
            state, fed = carry
            state, hidden = self.step(weights, state, fed)
            logits = self.logits_of(weights, hidden)
            if not takes_best:
                logits = draws.perturbed(logits, noise, temperature)
            drawn = draws.best(logits)
            return (state, drawn), drawn

        def several(carry: Any, keys: jax.Array) -> tuple[Any, Columns]:
            noise_of = jax.vmap(lambda key: draws.gumbel_noise(key, B, self.depths))
            noise = None if takes_best else noise_of(keys)
            return lax.scan(draw, carry, noise, length=len(keys))

        chunk = math.gcd(num_steps, draws.STEPS_OF_NOISE)
        keys = jax.random.split(key, num_steps)
        keys = keys.reshape(num_steps // chunk, chunk, *keys.shape[1:])
        _, tokens = lax.scan(several, (state, last), keys)
        return join_columns(tuple(column.reshape(num_steps, B) for column in tokens))

    def logits_of(self, weights: Any, hidden: jax.Array) -> Columns:
        """Compute the logits of features [B, H]: K arrays [B, V_k] float32."""
        return tuple(
            products.contract("bh,hv->bv", hidden, kernel, self.dtype) + bias[None, :]
            for kernel, bias in weights.outputs
        )

    def no_tokens(self, batch_size: int) -> Columns:
        """Return what stands before the first step: K arrays [B] that mean "none"."""
        return tuple(jnp.full((batch_size,), depth, jnp.int32) for depth in self.depths)


def look_up(tables: Sequence[jax.Array], tokens: Columns, dtype: Any) -> jax.Array:
    """Add the rows of K tables [V_k, D] for tokens [...]; "none" is a row of zeros: [..., D]."""
    rows = [products.lookup(t, n, dtype) for t, n in zip(tables, tokens, strict=True)]
    return sum(rows[1:], start=rows[0])


def pairs_of(layers: Sequence[products.Affine]) -> tuple[tuple[jax.Array, jax.Array], ...]:
    """Return the kernel and the bias of each layer."""
    return tuple((layer.kernel, layer.bias) for layer in layers)


def write_step(buffer: jax.Array, value: jax.Array, t: jax.Array) -> jax.Array:
    """Write [B, D] at step t of a buffer [L, B, D]."""
    return lax.dynamic_update_index_in_dim(buffer, value.astype(buffer.dtype), t, axis=0)

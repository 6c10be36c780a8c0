"""Sample tokens from logits with the Gumbel-max trick.

With g a Gumbel draw, argmax(logits / t + g) is argmax(logits + t * g) and a draw from
softmax(logits / t): one formula for every temperature, and noise that can be drawn ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Columns = tuple[jax.Array, ...]  # K arrays
STEPS_OF_NOISE = 16  # drawn at once in a sequential loop: one large draw, not many small ones


def sample(logits: Columns, key: jax.Array, temperature: jax.Array | float) -> Columns:
    """Draw a token per example from each column's logits [B, V_k]; temperature 0 takes the best."""
    if is_zero(temperature):
        return best(logits)
    B, depths = logits[0].shape[0], [column.shape[1] for column in logits]
    return best(perturbed(logits, gumbel_noise(key, B, depths), temperature))


def gumbel_noise(key: jax.Array, batch_size: int, depths: Sequence[int]) -> Columns:
    """Draw the noise of one step: K arrays [B, V_k] float32."""
    keys = jax.random.split(key, len(depths))
    return tuple(jax.random.gumbel(k, (batch_size, V)) for k, V in zip(keys, depths, strict=True))


def perturbed(logits: Columns, noise: Columns, temperature: jax.Array | float) -> Columns:
    """Return logits whose largest is a draw from their distribution: K arrays [B, V_k]."""
    return tuple(x + temperature * g for x, g in zip(logits, noise, strict=True))


def best(logits: Columns) -> Columns:
    """Return the most likely token, the first of equals: K arrays [..., V_k] to [...] int32.

    Where a logit is NaN it is the last token.
    """
    return tuple(_first_largest(x) for x in logits)


def best_tokens(logits: Sequence[jax.Array]) -> jax.Array:
    """Return the most likely token of each step: K arrays [B, T, V_k] -> int32 [B, T, K]."""
    return jnp.stack(best(tuple(logits)), axis=-1)


def _first_largest(x: jax.Array) -> jax.Array:
    # XLA's CPU back end computes argmax one element at a time; these two reductions are vectorised.
    last = x.shape[-1] - 1
    index = jnp.arange(last + 1, dtype=jnp.int32)
    return jnp.where(x == x.max(axis=-1, keepdims=True), index, last).min(axis=-1)


def is_zero(temperature: jax.Array | float) -> bool:
    """Tell whether a temperature is known to be 0 before the program runs."""
    return isinstance(temperature, float | int) and temperature == 0

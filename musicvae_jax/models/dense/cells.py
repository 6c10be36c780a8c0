"""The cells of rows: a step and a token value each, read as one-hots and written as logits.

Each cell is a Bernoulli variable of its own, but a row has exactly one token a step and track.
Given that one cell of a step is on, token v has probability softmax(logits)_v: that is what
sampling draws from, and its largest is the best token. The steps are independent given z.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.models import draws
from musicvae_jax.models.decoders import join_columns
from musicvae_jax.models.dense.layers import SMALL_BIAS, UnitDropout
from musicvae_jax.models.dense.sparse import CellsOn
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import Posterior, drum_roll
from musicvae_jax.models.initialisation import Initializer
from musicvae_jax.tasks import Track


def read_cells(
    tracks: Sequence[Track], tokens: jax.Array, lengths: jax.Array | None
) -> CellsOn | jax.Array:
    """Return the cells of the first `lengths` [B] steps; the others are 0.

    A step of T has D cells. Where the task says that drums are read as hits, 10 cells of a step of
    which several may be on, the cells are dense, [B, T, D] float32.
    """
    T, depths = tokens.shape[1], [track.encoder_depth for track in tracks]
    columns = tokens.reshape(*tokens.shape[:2], -1).astype(jnp.int32)
    is_read = jnp.ones((1, T), bool)
    if lengths is not None:
        is_read = jnp.arange(T)[None, :] < lengths[:, None]
    if any(track.encoder_roll for track in tracks):
        parts = [
            drum_roll(columns[:, :, k])
            if track.encoder_roll
            else jax.nn.one_hot(columns[:, :, k], track.num_classes)
            for k, track in enumerate(tracks)
        ]
        return jnp.where(is_read[:, :, None], jnp.concatenate(parts, axis=-1), 0.0)
    before = jnp.arange(T)[:, None] * sum(depths) + np.cumsum([0, *depths[:-1]])[None, :]
    num_cells = T * sum(depths)
    is_on = is_read[:, :, None] & (columns >= 0) & (columns < np.array(depths)[None, None, :])
    cells = jnp.where(is_on, before[None] + columns, num_cells)
    return CellsOn(cells.reshape(len(cells), -1), num_cells)


def as_columns(logits: jax.Array, depths: Sequence[int]) -> Columns:
    """Divide the logits of all cells, [B, T * (sum of V)], into K arrays [B, T, V_k]."""
    cells = logits.reshape(len(logits), -1, sum(depths))
    return tuple(jnp.split(cells, np.cumsum(depths)[:-1], axis=-1))


class CellVAE(nn.Module):
    """An encoder and a decoder of the cells of rows.

    Attributes:
      encoder: module with `declare()` and `(tokens, lengths, dropout) -> Posterior`.
      decoder: module with `declare()` and `(z, dropout=None) ->` K arrays [B, T, V_k].
    """

    encoder: Any
    decoder: Any

    def declare(self) -> None:
        """Create all parameters without running the model."""
        self.encoder.declare()
        self.decoder.declare()

    def encode(
        self, tokens: jax.Array, lengths: jax.Array | None, dropout: UnitDropout | None
    ) -> Posterior:
        """Encode tokens [B, T] or [B, T, K] integer, the first `lengths` [B] steps or all."""
        return self.encoder(tokens, lengths, dropout)

    def logits(self, z: jax.Array, dropout: UnitDropout | None) -> Columns:
        """Compute the logits of the cells given z [B, Z]: K arrays [B, T, V_k] float32."""
        return self.decoder(z, dropout)

    def generate(self, z: jax.Array, key: jax.Array, temperature: jax.Array | float) -> jax.Array:
        """Decode z [B, Z] to one token a step and track: [B, T] or [B, T, K] int32."""
        logits = self.decoder(z)
        flat = tuple(column.reshape(-1, column.shape[-1]) for column in logits)
        drawn = draws.sample(flat, key, temperature)
        return join_columns(tuple(column.reshape(len(z), -1).T for column in drawn))


@functools.cache
def cell_bias(tracks: tuple[Track, ...], init: str, num_steps: int) -> Initializer:
    """Return the initial biases of the cells of so many steps.

    With init=default a cell starts at the probability 1 / V of its track, else near one half.
    """
    if init == "reference":
        return SMALL_BIAS
    depths = [track.num_classes for track in tracks]

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        del key, shape
        step = np.concatenate([np.full(depth, -math.log(depth - 1)) for depth in depths])
        return jnp.asarray(np.tile(step, num_steps), dtype)

    return draw

"""The flat decoder: one loop over all time steps, whose context is z.

Reference: CategoricalLstmDecoder and MultiOutCategoricalLstmDecoder in
magenta/models/music_vae/lstm_models.py.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from musicvae_jax.models.decoders import (
    CategoricalDecoder,
    Dropout,
    Sampling,
    join_columns,
    shift,
)
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import split_columns


class FlatDecoder(nn.Module):
    """p(tokens | z) by one loop over all steps.

    Attributes:
      core: decoder whose context is z.
    """

    core: CategoricalDecoder

    def declare(self) -> None:
        """Create all parameters."""
        self.core.weights()

    def logits(
        self,
        z: jax.Array,
        tokens: jax.Array,
        sampling: Sampling | None,
        dropout: Dropout | None = None,
    ) -> Columns:
        """Compute the logits of tokens [B, T] or [B, T, K]: K arrays [B, T, V_k]."""
        previous = shift(split_columns(tokens), self.core.no_tokens(z.shape[0]))
        return self.core.logits(z, previous, sampling, dropout)

    def generate(
        self, z: jax.Array, key: jax.Array, temperature: jax.Array | float, num_steps: int
    ) -> jax.Array:
        """Decode z [B, Z] to tokens [B, T] or [B, T, K] int32."""
        weights = self.core.weights()
        start = self.core.prepare(weights, z)
        keys = jax.random.split(key, num_steps)
        first = self.core.no_tokens(z.shape[0])
        fast = self.core.cast_weights(weights)
        return join_columns(self.core.generate(fast, start, first, keys, temperature)[1])

"""The variational autoencoder: q(z | tokens) and p(tokens | z) put together.

Reference: MusicVAE in magenta/models/music_vae/base_model.py.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from musicvae_jax.models.decoders import Dropout, Sampling
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import Encoder, Posterior
from musicvae_jax.models.flat import FlatDecoder
from musicvae_jax.models.hierarchical import HierarchicalDecoder


class VariationalAutoencoder(nn.Module):
    """An encoder and a decoder that share z.

    Attributes:
      encoder: q(z | tokens).
      decoder: p(tokens | z).
      num_steps: T of generated tokens.
    """

    encoder: Encoder
    decoder: FlatDecoder | HierarchicalDecoder
    num_steps: int

    def declare(self) -> None:
        """Create all parameters without running the model."""
        self.encoder.declare()
        self.decoder.declare()

    def encode(self, tokens: jax.Array, lengths: jax.Array | None = None) -> Posterior:
        """Encode tokens [B, T] or [B, T, K] integer, lengths [B] or [B, U] int32, or None."""
        return self.encoder(tokens, lengths)

    def conductor(self, z: jax.Array) -> jax.Array:
        """Compute the bar embeddings [B, U, H] of z [B, Z]; hierarchical decoders only."""
        return self.decoder.bar_embeddings(z)

    def logits(
        self,
        z: jax.Array,
        tokens: jax.Array,
        sampling: Sampling | None = None,
        dropout: Dropout | None = None,
    ) -> Columns:
        """Compute the logits of tokens given z [B, Z]: K arrays [B, T, V_k] float32."""
        return self.decoder.logits(z, tokens, sampling, dropout)

    def generate(self, z: jax.Array, key: jax.Array, temperature: jax.Array | float) -> jax.Array:
        """Decode z [B, Z] to tokens [B, T] or [B, T, K] int32."""
        return self.decoder.generate(z, key, temperature, self.num_steps)

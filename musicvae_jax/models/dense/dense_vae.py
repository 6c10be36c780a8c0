"""`dense_vae`: a row of one-hots through dense layers to z, and back to a probability per cell.

    tokens -> one-hots [B, T * D] -> dense -> mu, sigma -> z -> dense -> logits [B, T, V]

Each cell (a step and a token value) is a Bernoulli variable of its own, but a row has exactly one
token a step. Given that one cell of a step is on, token v has probability softmax(logits)_v: that
is what sampling draws from, and its largest is the best token. The steps are independent given z.

Reference: a melody generator of 2024: layers of 256 units, dropout 0.5 after the first of each two,
z of 50, Glorot-uniform kernels and biases of 0.01.

Differences from the reference: the cross-entropy is summed over the cells of a row, as in the
ELBO; averaged, as there, the KL weighs as much as thousands of cells and z stays unused. With
init=default the output layer starts at the frequency of a one-hot, 1 / V, instead of one half.
Drums are read as hits where the task says so.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.config import Config
from musicvae_jax.models import draws, products
from musicvae_jax.models.decoders import join_columns
from musicvae_jax.models.dense.layers import (
    SMALL_BIAS,
    DenseStack,
    PosteriorLayer,
    UnitDropout,
    affine,
    products_of,
)
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import Posterior, drum_roll, split_columns
from musicvae_jax.models.initialisation import Initializer
from musicvae_jax.tasks import Track, get_task


class RowEncoder(nn.Module):
    """q(z | tokens) from all cells of a row at once.

    Attributes:
      tracks: the K columns of a row.
      num_steps: T.
      sizes: units of each dense layer.
      z_size: Z.
      dtype: type of the products.
    """

    tracks: tuple[Track, ...]
    num_steps: int
    sizes: tuple[int, ...]
    z_size: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Declare the layers."""
        width = sum(track.encoder_depth for track in self.tracks)
        self.stack = DenseStack(self.num_steps * width, self.sizes, self.dtype)
        self.posterior = PosteriorLayer(self.sizes[-1], self.z_size, self.dtype)

    def declare(self) -> None:
        """Create all parameters."""
        self.stack.declare()
        self.posterior.declare()

    def __call__(
        self, tokens: jax.Array, lengths: jax.Array | None, dropout: UnitDropout | None
    ) -> Posterior:
        """Encode the first `lengths` [B] steps of tokens [B, T] or [B, T, K]; None: all."""
        columns = [
            drum_roll(column) if track.encoder_roll else jax.nn.one_hot(column, track.num_classes)
            for track, column in zip(self.tracks, split_columns(tokens), strict=True)
        ]
        cells = jnp.concatenate(columns, axis=-1).swapaxes(0, 1)  # [B, T, D]
        if lengths is not None:
            is_read = jnp.arange(self.num_steps)[None, :] < lengths[:, None]
            cells = jnp.where(is_read[:, :, None], cells, 0.0)
        return self.posterior(self.stack(cells.reshape(len(cells), -1), dropout))


class RowDecoder(nn.Module):
    """A logit for each cell of a row, from z alone.

    Attributes:
      depths: V of each of the K columns.
      num_steps: T.
      sizes: units of each dense layer.
      z_size: Z.
      bias_init: initial values of the biases of the cells, [T * (sum of V)].
      dtype: type of the products.
    """

    depths: tuple[int, ...]
    num_steps: int
    sizes: tuple[int, ...]
    z_size: int
    bias_init: Initializer
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Declare the layers."""
        self.stack = DenseStack(self.z_size, self.sizes, self.dtype)
        self.output = affine(self.sizes[-1], self.num_steps * sum(self.depths), self.bias_init)

    def declare(self) -> None:
        """Create all parameters."""
        self.stack.declare()
        products.touch(self.output)

    def __call__(self, z: jax.Array, dropout: UnitDropout | None = None) -> Columns:
        """Compute the logits of z [B, Z]: K arrays [B, T, V_k] float32."""
        cells = self.output(self.stack(z, dropout), self.dtype)
        cells = cells.reshape(len(z), self.num_steps, sum(self.depths))
        return tuple(jnp.split(cells, np.cumsum(self.depths)[:-1], axis=-1))


class DenseVAE(nn.Module):
    """The encoder and the decoder of rows.

    Attributes:
      encoder: q(z | tokens).
      decoder: a logit per cell.
    """

    encoder: RowEncoder
    decoder: RowDecoder

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


def build(config: Config, dtype: jax.typing.DTypeLike) -> DenseVAE:
    """Build the module of a configuration."""
    task, model = get_task(config.task), config.model
    depths = tuple(track.num_classes for track in task.tracks)
    T, Z = task.num_steps, model.z_size
    bias = SMALL_BIAS if model.init == "reference" else _one_hot_bias(depths, T)
    return DenseVAE(
        RowEncoder(task.tracks, T, model.encoder_sizes, Z, dtype),
        RowDecoder(depths, T, model.decoder_sizes, Z, bias, dtype),
    )


def operations(config: Config) -> tuple[int, int]:
    """Count the operations of encoding and of decoding one row."""
    task, model = get_task(config.task), config.model
    cells = task.num_steps * sum(track.num_classes for track in task.tracks)
    encoding = products_of(task.num_steps * task.encoder_depth, model.encoder_sizes)
    encoding += 2 * products_of(model.encoder_sizes[-1], [model.z_size])
    return encoding, products_of(model.z_size, [*model.decoder_sizes, cells])


def _one_hot_bias(depths: tuple[int, ...], num_steps: int) -> Initializer:
    """Start each cell at the probability 1 / V of its track."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        del key, shape
        step = np.concatenate([np.full(depth, -math.log(depth - 1)) for depth in depths])
        return jnp.asarray(np.tile(step, num_steps), dtype)

    return draw

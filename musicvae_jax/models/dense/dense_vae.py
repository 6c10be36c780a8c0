"""`dense_vae`: a row of one-hots through dense layers to z, and back to a probability per cell.

    tokens -> one-hots [B, T * D] -> dense -> mu, sigma -> z -> dense -> logits [B, T, V]

What a cell is and how a row is drawn from the probabilities of its cells: `cells.py`.

Reference: a melody generator of 2024: layers of 256 units, dropout 0.5 after the first of each two,
z of 50, Glorot-uniform kernels and biases of 0.01.

Differences from the reference: the cross-entropy is summed over the cells of a row, as in the
ELBO; averaged, as there, the KL weighs as much as thousands of cells and z stays unused. With
init=default a cell starts at the probability 1 / V instead of one half.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from musicvae_jax.config import Config
from musicvae_jax.models import products
from musicvae_jax.models.dense.cells import CellVAE, as_columns, cell_bias, read_cells
from musicvae_jax.models.dense.layers import (
    DenseStack,
    PosteriorLayer,
    UnitDropout,
    affine,
    products_of,
)
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import Posterior
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
        cells = read_cells(self.tracks, tokens, lengths)
        return self.posterior(self.stack(cells, dropout))


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
        return as_columns(cells, self.depths)


def build(config: Config, dtype: jax.typing.DTypeLike) -> CellVAE:
    """Build the module of a configuration."""
    task, model = get_task(config.task), config.model
    depths = tuple(track.num_classes for track in task.tracks)
    T, Z = task.num_steps, model.z_size
    bias = cell_bias(task.tracks, model.init, T)
    return CellVAE(
        RowEncoder(task.tracks, T, model.encoder_sizes, Z, dtype),
        RowDecoder(depths, T, model.decoder_sizes, Z, bias, dtype),
    )


def operations(config: Config) -> tuple[int, int]:
    """Count the operations of encoding and of decoding one row."""
    task, model = get_task(config.task), config.model
    cells = task.num_steps * sum(track.num_classes for track in task.tracks)
    encoding = products_of(task.num_steps * task.encoder_depth, model.encoder_sizes)
    encoding += products_of(model.encoder_sizes[-1], [2 * model.z_size])
    return encoding, products_of(model.z_size, [*model.decoder_sizes, cells])

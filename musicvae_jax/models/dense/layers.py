"""Dense layers with ReLU and dropout, and the posterior that reads them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from musicvae_jax.models import products
from musicvae_jax.models.dense import sparse
from musicvae_jax.models.dense.sparse import CellsOn
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.initialisation import GLOROT, Initializer

SMALL_BIAS = nn.initializers.constant(0.01)


class UnitDropout(NamedTuple):
    """Dropout of the units of hidden layers in training.

    Attributes:
      probability: that a unit is dropped.
      key: random key.
    """

    probability: float
    key: jax.Array

    def of_part(self, number: int) -> UnitDropout:
        """Return the dropout of one of several stacks, with a key of its own."""
        return self._replace(key=jax.random.fold_in(self.key, number))


def affine(
    inputs: int, outputs: int, bias_init: Initializer = SMALL_BIAS, name: str | None = None
) -> products.Affine:
    """Create a dense layer: a Glorot-uniform kernel, biases of 0.01."""
    return products.Affine(inputs, outputs, GLOROT, bias_init, name=name)


class DenseStack(nn.Module):
    """Dense layers with ReLU.

    Attributes:
      inputs: I, features that the first layer reads.
      sizes: units of each layer; the last is O. Without layers O is I.
      dtype: type of the products.
    """

    inputs: int
    sizes: tuple[int, ...]
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Declare the layers."""
        widths = itertools.pairwise((self.inputs, *self.sizes))
        self.layers = [affine(*width, name=f"dense_{n}") for n, width in enumerate(widths)]

    def declare(self) -> None:
        """Create all parameters."""
        products.touch(*self.layers)

    def __call__(
        self, inputs: jax.Array | CellsOn, dropout: UnitDropout | None = None
    ) -> jax.Array:
        """Run the layers: [B, I] -> [B, O]. Dropout follows every layer but the last.

        Rows of U * I features, [B, ...] or `CellsOn`, are U inputs each: -> [B * U, O].
        """
        x = inputs if isinstance(inputs, CellsOn) else inputs.reshape(-1, self.inputs)
        for n, layer in enumerate(self.layers):
            if isinstance(x, CellsOn):
                x = sparse.multiply(x, layer.kernel, self.dtype) + layer.bias[None, :]
            else:
                x = layer(x, self.dtype)
            x = jax.nn.relu(x)
            if dropout is not None and n < len(self.layers) - 1:
                x = _dropped(x, dropout.probability, jax.random.fold_in(dropout.key, n))
        return x.dense().reshape(-1, self.inputs) if isinstance(x, CellsOn) else x


class PosteriorLayer(nn.Module):
    """Mean and log-variance of q(z | row) from the features of a row.

    Attributes:
      inputs: I, features.
      z_size: Z.
      dtype: type of the products.
    """

    inputs: int
    z_size: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Declare the two layers."""
        self.mu = affine(self.inputs, self.z_size)
        self.log_variance = affine(self.inputs, self.z_size)

    def declare(self) -> None:
        """Create all parameters."""
        products.touch(self.mu, self.log_variance)

    def __call__(self, x: jax.Array) -> Posterior:
        """Compute mu and sigma [B, Z] from features [B, I]."""
        return Posterior(self.mu(x, self.dtype), jnp.exp(0.5 * self.log_variance(x, self.dtype)))


def _dropped(x: jax.Array, probability: float, key: jax.Array) -> jax.Array:
    """Set features to 0 with this probability, and scale the others so that the mean stays."""
    keeps = jax.random.bernoulli(key, 1.0 - probability, x.shape)
    return jnp.where(keeps, x / (1.0 - probability), 0.0)


def products_of(inputs: int, sizes: Sequence[int]) -> int:
    """Count the operations of dense layers for one row; a multiply-add is two."""
    widths = (inputs, *sizes)
    return sum(2 * a * b for a, b in itertools.pairwise(widths))

"""The bidirectional LSTM encoder, q(z | tokens).

Reference: BidirectionalLstmEncoder in magenta/models/music_vae/lstm_models.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from musicvae_jax.models import lstm, products
from musicvae_jax.models.initialisation import Initialisation, Initializer
from musicvae_jax.tasks import NUM_DRUM_CLASSES, Track

DIRECTIONS = ("fw", "bw")


class Posterior(NamedTuple):
    """q(z | tokens), a diagonal normal distribution.

    Attributes:
      mu: mean, [B, Z] float32.
      sigma: standard deviation, [B, Z] float32.
    """

    mu: jax.Array
    sigma: jax.Array


def split_columns(tokens: jax.Array) -> tuple[jax.Array, ...]:
    """Return the K columns of tokens [B, T] or [B, T, K] as arrays [T, B] int32."""
    columns = tokens[..., None] if tokens.ndim == 2 else tokens
    return tuple(columns[..., k].T.astype(jnp.int32) for k in range(columns.shape[-1]))


def drum_roll(tokens: jax.Array) -> jax.Array:
    """Return what the encoder reads of drums: [..., 10] float32, 9 hits and "nothing"."""
    bits = (
        tokens[..., None] >> jnp.arange(NUM_DRUM_CLASSES).reshape((1,) * tokens.ndim + (-1,))
    ) & 1
    nothing = (tokens == 0)[..., None]
    return jnp.concatenate([bits, nothing], axis=-1).astype(jnp.float32)


def reverse(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Reverse the first `lengths` steps of each example; the order of later steps is open.

    Args:
      x: [T, B] or [T, B, D].
      lengths: [B] int32, or None for T.
    """
    if lengths is None:
        return jnp.flip(x, axis=0)
    steps = jnp.arange(x.shape[0])[:, None]
    index = (lengths[None, :] - 1 - steps) % x.shape[0]
    return jnp.take_along_axis(x, index.reshape(index.shape + (1,) * (x.ndim - 2)), axis=0)


class BidirectionalEncoder(nn.Module):
    """Stacked bidirectional LSTM; layer n + 1 reads both directions of layer n.

    Attributes:
      tracks: columns of the tokens.
      sizes: units of each layer, per direction.
      z_size: Z.
      initial: draws the parameters.
      num_steps: T, how long the cells are to remember at first.
      dtype: type of the products.
      remat: compute each layer again in the backward pass.
      run_layer: runs a layer from its dense inputs (`cudnn.run_layer`); None: `lstm.recur`.
    """

    tracks: tuple[Track, ...]
    sizes: tuple[int, ...]
    z_size: int
    initial: Initialisation
    num_steps: int
    dtype: Any = jnp.float32
    remat: bool = False
    run_layer: Callable[..., jax.Array] | None = None

    def setup(self) -> None:
        """Declare the cells and the two output layers."""
        depth = sum(track.encoder_depth for track in self.tracks)
        inputs = (depth, *(2 * size for size in self.sizes[:-1]))
        self.cells = [
            BidirectionalCell(rows, size, self.initial.cell_bias(self.num_steps), name=f"cell_{n}")
            for n, (rows, size) in enumerate(zip(inputs, self.sizes, strict=True))
        ]
        last, initial = 2 * self.sizes[-1], self.initial
        self.mu = products.Affine(last, self.z_size, initial.mu)
        self.sigma = products.Affine(last, self.z_size, initial.sigma, initial.sigma_bias)

    def declare(self) -> None:
        """Touch every parameter."""
        products.touch(self.mu, self.sigma)
        for cell in self.cells:
            cell.stacked()

    def __call__(self, tokens: jax.Array, lengths: jax.Array | None = None) -> Posterior:
        """Encode tokens [B, T] or [B, T, K], of which the first `lengths` [B] steps count."""
        columns = split_columns(tokens)
        both = [jnp.stack([column, reverse(column, lengths)]) for column in columns]
        first = lstm.recomputed(
            lambda: self._layer(0, self._token_inputs(both), lengths), self.remat
        )
        hidden = first()
        for n in range(1, len(self.sizes)):
            above = functools.partial(self._upper_layer, n, lengths)
            hidden = lstm.recomputed(above, self.remat)(hidden)
        embedding = jnp.concatenate([hidden[0], hidden[1]], axis=-1)
        mu = self.mu(embedding, self.dtype)
        return Posterior(mu, jax.nn.softplus(self.sigma(embedding, self.dtype)))

    def _token_inputs(self, columns: Sequence[jax.Array]) -> jax.Array:
        """Return what `_layer` takes of the tokens [2, T, B]."""
        if self.run_layer is None:
            return self._token_gates(columns)
        pairs = zip(self.tracks, columns, strict=True)
        dense = [
            drum_roll(tokens) if track.encoder_roll else jax.nn.one_hot(tokens, track.encoder_depth)
            for track, tokens in pairs
        ]
        return jnp.concatenate(dense, axis=-1)

    def _token_gates(self, columns: Sequence[jax.Array]) -> jax.Array:
        """Multiply the one-hot (or roll) inputs [2, T, B] by their kernel rows: [2, T, B, 4H]."""
        kernel, _ = self.cells[0].stacked()
        parts, row = [], 0
        for track, tokens in zip(self.tracks, columns, strict=True):
            rows = kernel[:, row : row + track.encoder_depth]
            row += track.encoder_depth
            if track.encoder_roll:
                roll = drum_roll(tokens)
                parts.append(products.contract("ntbi,nig->ntbg", roll, rows, self.dtype))
            else:
                parts.append(products.lookup_stacked(rows, tokens, self.dtype))
        return sum(parts[1:], start=parts[0])

    def _upper_layer(self, n: int, lengths: jax.Array | None, hidden: jax.Array) -> jax.Array:
        """Run layer n on h of the layer below, [2, T, B, H]; see `_layer`."""
        # The second direction comes out in its own order, last step first.
        inputs = jnp.concatenate([hidden[0], reverse(hidden[1], lengths)], axis=-1)
        inputs = jnp.stack([inputs, reverse(inputs, lengths)])
        if self.run_layer is None:
            kernel = self.cells[n].stacked()[0][:, : inputs.shape[-1]]
            inputs = products.contract("ntbi,nig->ntbg", inputs, kernel, self.dtype)
        return self._layer(n, inputs, lengths)

    def _layer(self, n: int, x: jax.Array, lengths: jax.Array | None) -> jax.Array:
        """Run layer n in both directions on its gate inputs; with `run_layer`, on its inputs.

        Returns h of every step, [2, T, B, H], or of the last layer h after the last step
        that counts, [2, B, H]. Steps beyond an example's length touch nothing that is read.
        """
        _, T, B, _ = x.shape
        H = self.sizes[n]
        kernel, bias = self.cells[n].stacked()
        zeros = jnp.zeros((2, B, H), jnp.float32)
        start = lstm.State(zeros, zeros)
        is_last = n == len(self.sizes) - 1
        keep_sequence = not is_last or lengths is not None
        if self.run_layer is not None:
            hidden = self.run_layer(x, kernel, bias, start)
            hidden = hidden if keep_sequence else hidden[:, -1]
        else:
            hidden = lstm.recur(
                x,
                bias[:, None, :],
                kernel[:, -H:],
                start,
                num_steps=T,
                dtype=self.dtype,
                keep_sequence=keep_sequence,
            )
        if is_last and lengths is not None:
            steps = lengths[None, None, :, None] - 1
            return jnp.take_along_axis(hidden, steps, axis=1)[:, 0]
        return hidden


class BidirectionalCell(nn.Module):
    """Parameters of a cell for each direction.

    Attributes:
      inputs: I, input features.
      units: H.
      bias_init: draws the biases.
    """

    inputs: int
    units: int
    bias_init: Initializer

    def setup(self) -> None:
        """Declare both cells."""
        self.fw = lstm.cell(self.inputs, self.units, bias_init=self.bias_init)
        self.bw = lstm.cell(self.inputs, self.units, bias_init=self.bias_init)

    def stacked(self) -> tuple[jax.Array, jax.Array]:
        """Return kernels [2, I + H, 4H] and biases [2, 4H], forward first."""
        return (
            jnp.stack([self.fw.kernel, self.bw.kernel]),
            jnp.stack([self.fw.bias, self.bw.bias]),
        )

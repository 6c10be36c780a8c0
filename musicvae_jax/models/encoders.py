"""The bidirectional LSTM encoders, q(z | tokens): flat, and hierarchical over bars.

Reference: BidirectionalLstmEncoder and HierarchicalLstmEncoder in
magenta/models/music_vae/lstm_models.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from musicvae_jax.models import lstm, products, remat
from musicvae_jax.models.initialisation import Initialisation, Initializer
from musicvae_jax.tasks import NUM_DRUM_CLASSES, Track


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
    """Reverse the first `lengths` steps of each example; the order of later steps is unspecified.

    Args:
      x: [T, B] or [T, B, D].
      lengths: [B] int32, or None for T.
    """
    if lengths is None:
        return jnp.flip(x, axis=0)
    steps = jnp.arange(x.shape[0])[:, None]
    index = (lengths[None, :] - 1 - steps) % x.shape[0]
    return jnp.take_along_axis(x, index.reshape(index.shape + (1,) * (x.ndim - 2)), axis=0)


class BidirectionalStack(nn.Module):
    """Stacked bidirectional LSTM; layer n + 1 reads both directions of layer n.

    Attributes:
      inputs: D, features of a step.
      sizes: units of each layer, per direction.
      initial: how the parameters are initialised.
      num_steps: T, sets the initial forget biases.
      dtype: type of the products.
      remat: recompute each layer in the backward pass.
      run_layer: runs a layer from its dense inputs (`cudnn.run_layer`); None: `lstm.recur`.
      use_native: whether `lstm.recur` uses the kernel of `native.py`.
    """

    inputs: int
    sizes: tuple[int, ...]
    initial: Initialisation
    num_steps: int
    dtype: Any = jnp.float32
    remat: bool = False
    run_layer: Callable[..., jax.Array] | None = None
    use_native: bool = False

    def setup(self) -> None:
        """Declare the cells."""
        inputs = (self.inputs, *(2 * size for size in self.sizes[:-1]))
        self.cells = [
            BidirectionalCell(rows, size, self.initial.cell_bias(self.num_steps), name=f"cell_{n}")
            for n, (rows, size) in enumerate(zip(inputs, self.sizes, strict=True))
        ]

    @property
    def embedding_size(self) -> int:
        """Features of an embedding: both directions of the last layer."""
        return 2 * self.sizes[-1]

    def declare(self) -> None:
        """Create all parameters."""
        for cell in self.cells:
            cell.stacked()

    def embed_tokens(
        self, tracks: Sequence[Track], columns: Sequence[jax.Array], lengths: jax.Array | None
    ) -> jax.Array:
        """Embed the first `lengths` [B] steps of K columns [T, B]: [B, 2H]."""
        both = [jnp.stack([column, reverse(column, lengths)]) for column in columns]
        first = remat.recomputed(
            lambda: self._layer(0, self._token_inputs(tracks, both), lengths), self.remat
        )
        return self._upper_layers(first(), lengths)

    def embed_features(self, features: jax.Array) -> jax.Array:
        """Embed all steps of features [T, B, D]: [B, 2H]."""
        first = remat.recomputed(functools.partial(self._dense_layer, 0, None), self.remat)
        return self._upper_layers(first(features), None)

    def _upper_layers(self, hidden: jax.Array, lengths: jax.Array | None) -> jax.Array:
        """Run all layers but the lowest, whose h is given, and join the directions."""
        for n in range(1, len(self.sizes)):
            above = functools.partial(self._upper_layer, n, lengths)
            hidden = remat.recomputed(above, self.remat)(hidden)
        return jnp.concatenate([hidden[0], hidden[1]], axis=-1)

    def _token_inputs(self, tracks: Sequence[Track], columns: Sequence[jax.Array]) -> jax.Array:
        """Return what `_layer` takes of the tokens [2, T, B]."""
        if self.run_layer is None:
            return self._token_gates(tracks, columns)
        pairs = zip(tracks, columns, strict=True)
        dense = [
            drum_roll(tokens) if track.encoder_roll else jax.nn.one_hot(tokens, track.encoder_depth)
            for track, tokens in pairs
        ]
        return jnp.concatenate(dense, axis=-1)

    def _token_gates(self, tracks: Sequence[Track], columns: Sequence[jax.Array]) -> jax.Array:
        """Multiply the one-hot (or roll) inputs [2, T, B] by their kernel rows: [2, T, B, 4H]."""
        kernel, _ = self.cells[0].stacked()
        kept = lstm.kept_dtype(self.dtype, self.use_native)
        parts, row = [], 0
        for track, tokens in zip(tracks, columns, strict=True):
            rows = kernel[:, row : row + track.encoder_depth]
            row += track.encoder_depth
            if track.encoder_roll:
                roll = drum_roll(tokens)
                parts.append(products.contract("ntbi,nig->ntbg", roll, rows, self.dtype))
            else:
                parts.append(products.lookup_stacked(rows, tokens, kept))
        return sum(parts[1:], start=parts[0])

    def _upper_layer(self, n: int, lengths: jax.Array | None, hidden: jax.Array) -> jax.Array:
        """Run layer n on h of the layer below, [2, T, B, H]; see `_layer`."""
        # The second direction comes out in its own order, last step first.
        features = jnp.concatenate([hidden[0], reverse(hidden[1], lengths)], axis=-1)
        return self._dense_layer(n, lengths, features)

    def _dense_layer(self, n: int, lengths: jax.Array | None, features: jax.Array) -> jax.Array:
        """Run layer n on features [T, B, D]; see `_layer`."""
        inputs = jnp.stack([features, reverse(features, lengths)])
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
                use_native=self.use_native,
            )
        if is_last and lengths is not None:
            steps = jnp.maximum(lengths, 1)[None, None, :, None] - 1
            last = jnp.take_along_axis(hidden, steps, axis=1)[:, 0]
            # With no step the states stay at their start.
            return jnp.where(lengths[None, :, None] > 0, last, 0.0)
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


class HierarchicalStack(nn.Module):
    """A stack over the steps of each bar, and one over the embeddings of the bars.

    The bars share the weights of the first level and run side by side, B * U examples in a
    loop of S steps.

    Attributes:
      level_0: the steps of a bar to its embedding.
      level_1: the embeddings of all bars to that of the row.
      num_bars: U.
    """

    level_0: BidirectionalStack
    level_1: BidirectionalStack
    num_bars: int

    @property
    def num_steps(self) -> int:
        """T."""
        return self.num_bars * self.level_0.num_steps

    @property
    def embedding_size(self) -> int:
        """Features of an embedding."""
        return self.level_1.embedding_size

    def declare(self) -> None:
        """Create all parameters."""
        self.level_0.declare()
        self.level_1.declare()

    def embed_tokens(
        self, tracks: Sequence[Track], columns: Sequence[jax.Array], lengths: jax.Array | None
    ) -> jax.Array:
        """Embed K columns [T, B], of which the first `lengths` count: [B, 2H].

        Lengths are [B], or [B, U] for each bar; a bar without steps is embedded as zeros.
        """
        num_steps, batch_size = columns[0].shape
        if lengths is not None:
            lengths = bar_lengths(lengths, self.num_bars, num_steps).reshape(-1)
        bars = [side_by_side(column, self.num_bars) for column in columns]
        embeddings = self.level_0.embed_tokens(tracks, bars, lengths)
        by_row = embeddings.reshape(batch_size, self.num_bars, -1)
        return self.level_1.embed_features(jnp.swapaxes(by_row, 0, 1))


def bar_lengths(lengths: jax.Array, num_bars: int, num_steps: int) -> jax.Array:
    """Return the steps that count of each bar, [B, U], given those of each row [B] or bar."""
    if lengths.ndim == 2:
        return lengths
    steps = num_steps // num_bars
    return jnp.clip(lengths[:, None] - steps * jnp.arange(num_bars)[None, :], 0, steps)


def side_by_side(column: jax.Array, num_bars: int) -> jax.Array:
    """Turn [U * S, B] into [S, B * U]: the bars of an example stay neighbours."""
    bars = column.reshape(num_bars, -1, column.shape[1])
    return jnp.transpose(bars, (1, 2, 0)).reshape(bars.shape[1], -1)


class Encoder(nn.Module):
    """q(z | tokens): a stack, and the output layers of mu and sigma.

    Attributes:
      tracks: columns of the tokens.
      stack: tokens to an embedding.
      z_size: Z.
      initial: how the parameters are initialised.
      dtype: type of the products.
    """

    tracks: tuple[Track, ...]
    stack: BidirectionalStack | HierarchicalStack
    z_size: int
    initial: Initialisation
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Declare the two output layers; the stack's parameters lie beside them."""
        nn.share_scope(self, self.stack)
        inputs, initial = self.stack.embedding_size, self.initial
        self.mu = products.Affine(inputs, self.z_size, initial.mu)
        self.sigma = products.Affine(inputs, self.z_size, initial.sigma, initial.sigma_bias)

    def declare(self) -> None:
        """Create all parameters."""
        products.touch(self.mu, self.sigma)
        self.stack.declare()

    def __call__(self, tokens: jax.Array, lengths: jax.Array | None = None) -> Posterior:
        """Encode tokens [B, T] or [B, T, K], of which the first `lengths` [B] steps count."""
        embedding = self.stack.embed_tokens(self.tracks, split_columns(tokens), lengths)
        mu = self.mu(embedding, self.dtype)
        return Posterior(mu, jax.nn.softplus(self.sigma(embedding, self.dtype)))

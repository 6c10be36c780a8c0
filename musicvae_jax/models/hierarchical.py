"""The hierarchical decoder: a conductor LSTM over bars, a decoder LSTM within each bar.

The decoder's state is reset at every bar from the conductor's output; only the previous token
crosses the bar line. Under teacher forcing all bars therefore run in parallel, as B * U examples
in a loop of S steps; also under scheduled sampling, which never samples the first input of a bar.
Generation decodes one bar after another.

Reference: HierarchicalLstmDecoder (disable_autoregression=True) in
magenta/models/music_vae/lstm_models.py.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from musicvae_jax.models import cudnn, lstm, products
from musicvae_jax.models.decoders import (
    CategoricalDecoder,
    Dropout,
    Prepared,
    Sampling,
    join_columns,
    shift,
)
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import side_by_side, split_columns
from musicvae_jax.models.initialisation import Initialisation


class Conductor(nn.Module):
    """LSTM that turns z into one embedding per bar; its input is a single zero.

    Attributes:
      z_size: Z.
      sizes: units of each layer.
      initial: how the parameters are initialised.
      num_bars: U, sets the initial forget biases.
      dtype: type of the products.
      run_layer: runs a layer from its dense inputs (`cudnn.run_layer`); None: `lstm.recur`.
      use_native: whether `lstm.recur` uses the kernel of `native.py`.
    """

    z_size: int
    sizes: tuple[int, ...]
    initial: Initialisation
    num_bars: int
    dtype: Any = jnp.float32
    run_layer: cudnn.RunLayer | None = None
    use_native: bool = False

    def setup(self) -> None:
        """Declare the initial states and the cells."""
        self.initial_state = products.Affine(self.z_size, 2 * sum(self.sizes), self.initial.state)
        # The row of the zero input is kept: the reference's variables have it.
        inputs = (1, *self.sizes[:-1])
        self.cells = [
            lstm.cell(rows, size, f"cell_{n}", bias_init=self.initial.cell_bias(self.num_bars))
            for n, (rows, size) in enumerate(zip(inputs, self.sizes, strict=True))
        ]

    def declare(self) -> None:
        """Create all parameters."""
        products.touch(self.initial_state, *self.cells)

    def __call__(self, z: jax.Array) -> jax.Array:
        """Compute the embeddings [U, B, H] of z [B, Z]."""
        states = lstm.split_states(jnp.tanh(self.initial_state(z, self.dtype))[None], self.sizes)
        layers = [
            lstm.Layer(cell.kernel[None, :-size], cell.kernel[None, -size:], cell.bias[None])
            for cell, size in zip(self.cells, self.sizes, strict=True)
        ]
        if self.run_layer is not None:
            nothing = jnp.zeros((1, self.num_bars, z.shape[0], 1))
            return cudnn.run_stack(self.run_layer, nothing, layers, states)[0]
        constant = layers[0].bias[:, None, :]
        hidden = lstm.run_stack(
            layers,
            lambda: None,
            constant,
            states,
            self.num_bars,
            self.dtype,
            use_native=self.use_native,
        )
        return hidden[0].astype(jnp.float32)


class HierarchicalDecoder(nn.Module):
    """p(tokens | z) bar by bar.

    Attributes:
      conductor: z to bar embeddings.
      core: decoder whose context is a bar embedding.
      num_bars: U.
    """

    conductor: Conductor
    core: CategoricalDecoder
    num_bars: int

    def declare(self) -> None:
        """Create all parameters."""
        self.conductor.declare()
        self.core.weights()

    def bar_embeddings(self, z: jax.Array) -> jax.Array:
        """Compute the bar embeddings [B, U, H] of z [B, Z]."""
        return jnp.swapaxes(self.conductor(z), 0, 1)

    def logits(
        self,
        z: jax.Array,
        tokens: jax.Array,
        sampling: Sampling | None,
        dropout: Dropout | None = None,
    ) -> Columns:
        """Compute the logits of tokens [B, T] or [B, T, K]: K arrays [B, T, V_k]."""
        embeddings = self.bar_embeddings(z)
        previous = shift(split_columns(tokens), self.core.no_tokens(z.shape[0]))
        bars = tuple(side_by_side(column, self.num_bars) for column in previous)
        contexts = embeddings.reshape(-1, embeddings.shape[-1])
        logits = self.core.logits(contexts, bars, sampling, dropout)
        return tuple(column.reshape(z.shape[0], -1, column.shape[-1]) for column in logits)

    def generate(
        self, z: jax.Array, key: jax.Array, temperature: jax.Array | float, num_steps: int
    ) -> jax.Array:
        """Decode z [B, Z] to tokens [B, T] or [B, T, K] int32."""
        weights = self.core.weights()
        embeddings = self.conductor(z)
        starts = jax.vmap(self.core.prepare, in_axes=(None, 0))(weights, embeddings)
        fast = self.core.cast_weights(weights)

        def bar(first: Columns, x: tuple[Prepared, jax.Array]) -> tuple[Columns, Columns]:
            start, keys = x
            return self.core.generate(fast, start, first, keys, temperature)

        keys = jax.random.split(key, (self.num_bars, num_steps // self.num_bars))
        _, bars = lax.scan(bar, self.core.no_tokens(z.shape[0]), (starts, keys))
        return join_columns(tuple(column.reshape(num_steps, -1) for column in bars))

"""The categorical LSTM decoder: teacher forced, scheduled sampling, free running.

A decoder has N streams, LSTM stacks of equal sizes that see the same context (z, or a bar's
embedding) and run in one loop. A stream reads and writes one or more columns of the tokens: a
melody is one stream with one column, a flat trio one with three, a hierarchical trio three streams.

Reference: CategoricalLstmDecoder, MultiOutCategoricalLstmDecoder and
SplitMultiOutLstmDecoder in magenta/models/music_vae/lstm_models.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from musicvae_jax.models import cudnn, draws, lstm, products
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.initialisation import GLOROT, Initialisation


class Sampling(NamedTuple):
    """How a decoder feeds its own output back in training.

    Attributes:
      probability: of feeding back a sample instead of the true token, drawn for each example,
        stream and step.
      key: random key.
      temperature: divides the logits of the samples; 0 takes the best token.
    """

    probability: jax.Array | float
    key: jax.Array
    temperature: jax.Array | float = 1.0


class Dropout(NamedTuple):
    """Input dropout: previous tokens that are hidden from a decoder in training.

    Attributes:
      probability: that the previous tokens are hidden, drawn for each example and step.
      key: random key.
    """

    probability: jax.Array | float
    key: jax.Array


class Weights(NamedTuple):
    """A decoder's arrays, arranged for the loops.

    Attributes:
      tables: K arrays [V_k, 4H], rows of the lowest kernel for the previous token.
      context: [N, C, 4H], rows of the lowest kernel for the context.
      layers: weights of each layer.
      initial: kernel [N, C, 2 * sum(H)] and bias [N, 2 * sum(H)] of the initial states.
      outputs: N pairs of kernel [H, V] and bias [V], V summed over the stream's columns.
    """

    tables: Columns
    context: jax.Array
    layers: tuple[lstm.Layer, ...]
    initial: tuple[jax.Array, jax.Array]
    outputs: tuple[tuple[jax.Array, jax.Array], ...]


class Prepared(NamedTuple):
    """What depends only on the context; computed once, before any loop.

    Attributes:
      gates: [N, B, 4H], the context's part of the lowest gates, bias included.
      states: initial state of each layer.
      context: [B, C], the context itself.
    """

    gates: jax.Array
    states: tuple[lstm.State, ...]
    context: jax.Array


class Stream(nn.Module):
    """Parameters of one stream.

    Attributes:
      depth: V, summed over the columns.
      context_size: C.
      sizes: units of each layer.
      initial: how the parameters are initialised.
    """

    depth: int
    context_size: int
    sizes: tuple[int, ...]
    initial: Initialisation

    def setup(self) -> None:
        """Declare the initial states, the cells and the output projection."""
        self.z_to_initial_state = products.Affine(
            self.context_size, 2 * sum(self.sizes), self.initial.state
        )
        inputs = (self.depth + self.context_size, *self.sizes[:-1])
        lowest = self.initial.context_kernel(self.depth, self.context_size)
        self.cells = [
            lstm.cell(rows, size, f"cell_{n}", lowest if n == 0 else GLOROT)
            for n, (rows, size) in enumerate(zip(inputs, self.sizes, strict=True))
        ]
        self.output_projection = products.Affine(self.sizes[-1], self.depth)


class CategoricalDecoder(nn.Module):
    """N LSTM stacks with softmax outputs.

    Attributes:
      depths: for each stream the V of its columns, in the order of the tokens' columns.
      context_size: C.
      sizes: units of each layer.
      initial: how the parameters are initialised.
      dtype: type of the products.
      remat: recompute each layer in the backward pass.
      run_layer, use_native: as in `encoders.BidirectionalStack`.
    """

    depths: tuple[tuple[int, ...], ...]
    context_size: int
    sizes: tuple[int, ...]
    initial: Initialisation
    dtype: Any = jnp.float32
    remat: bool = False
    run_layer: cudnn.RunLayer | None = None
    use_native: bool = False

    def setup(self) -> None:
        """Declare the streams."""
        self.streams = [
            Stream(sum(depths), self.context_size, self.sizes, self.initial, name=f"core_{n}")
            for n, depths in enumerate(self.depths)
        ]

    def weights(self) -> Weights:
        """Arrange the parameters for the loops."""
        C, H = self.context_size, self.sizes[0]
        lowest = [stream.cells[0].kernel for stream in self.streams]
        tables = [
            table
            for kernel, depths in zip(lowest, self.depths, strict=True)
            for table in _split(kernel[: sum(depths)], depths, axis=0)
        ]
        layers = [lstm.Layer(None, jnp.stack([k[-H:] for k in lowest]), self._bias(0))]
        for n in range(1, len(self.sizes)):
            kernel = jnp.stack([stream.cells[n].kernel for stream in self.streams])
            below = self.sizes[n - 1]
            layers.append(lstm.Layer(kernel[:, :below], kernel[:, below:], self._bias(n)))
        initial = [stream.z_to_initial_state for stream in self.streams]
        return Weights(
            tables=tuple(tables),
            context=jnp.stack([kernel[-H - C : -H] for kernel in lowest]),
            layers=tuple(layers),
            initial=(jnp.stack([a.kernel for a in initial]), jnp.stack([a.bias for a in initial])),
            outputs=tuple(
                (s.output_projection.kernel, s.output_projection.bias) for s in self.streams
            ),
        )

    def _bias(self, n: int) -> jax.Array:  # [N, 4H]
        return jnp.stack([stream.cells[n].bias for stream in self.streams])

    def prepare(self, weights: Weights, context: jax.Array) -> Prepared:
        """Compute what depends only on the context [B, C]."""
        gates = products.contract("bc,ncg->nbg", context, weights.context, self.dtype)
        kernel, bias = weights.initial
        flat = products.contract("bc,nco->nbo", context, kernel, self.dtype) + bias[:, None, :]
        states = lstm.split_states(jnp.tanh(flat), self.sizes)
        return Prepared(gates + weights.layers[0].bias[:, None, :], states, context)

    def logits(
        self,
        context: jax.Array,
        previous: Columns,
        sampling: Sampling | None,
        dropout: Dropout | None,
    ) -> Columns:
        """Compute the logits in training of all steps.

        Args:
          context: [B, C].
          previous: K arrays [T, B], the token before each step; V_k means "none".
          sampling: how the decoder's own output takes the place of some of these tokens.
          dropout: how some of them are hidden.

        Returns:
          K arrays [B, T, V_k] float32.
        """
        weights = self.weights()
        start = self.prepare(weights, context)
        if sampling is not None:
            previous = self.feed_back(weights, start, previous, sampling)
        if dropout is not None:
            previous = self.drop(previous, dropout)
        return self.teacher_forced(weights, start, previous)

    def teacher_forced(self, weights: Weights, start: Prepared, previous: Columns) -> Columns:
        """Compute the logits of all steps from the tokens before them.

        Args:
          weights: of `weights()`.
          start: of `prepare`.
          previous: K arrays [T, B]; V_k means "none" and is a row of zeros.

        Returns:
          K arrays [B, T, V_k] float32.
        """
        if self.run_layer is not None:
            hidden = self._run_dense(self.run_layer, weights, start, previous)
        else:
            hidden = lstm.run_stack(
                weights.layers,
                lambda: self._token_gates(weights, previous),
                start.gates,
                start.states,
                len(previous[0]),
                self.dtype,
                self.remat,
                self.use_native,
            )
        logits: list[jax.Array] = []
        for n, (kernel, bias) in enumerate(weights.outputs):
            flat = products.contract("tbh,hv->btv", hidden[n], kernel, self.dtype)
            logits.extend(_split(flat + bias[None, None, :], self.depths[n], axis=2))
        return tuple(logits)

    def _run_dense(
        self, run: cudnn.RunLayer, weights: Weights, start: Prepared, previous: Columns
    ) -> jax.Array:
        """Run the layers on dense inputs, one-hot tokens and the context: h [N, T, B, H]."""
        context = jnp.broadcast_to(start.context[None], (len(previous[0]), *start.context.shape))
        x, kernels = [], []
        streams = zip(
            _group(weights.tables, self.depths), _group(previous, self.depths), strict=True
        )
        for n, (tables, columns) in enumerate(streams):
            pairs = zip(columns, tables, strict=True)
            one_hot = [jax.nn.one_hot(tokens, len(table)) for tokens, table in pairs]
            x.append(jnp.concatenate([*one_hot, context], axis=-1))
            recurrent = weights.layers[0].recurrent[n]
            kernels.append(jnp.concatenate([*tables, weights.context[n], recurrent]))
        hidden = run(x, kernels, weights.layers[0].bias, start.states[0])
        return cudnn.run_stack(run, hidden, weights.layers[1:], start.states[1:])

    def _token_gates(self, weights: Weights, previous: Columns) -> jax.Array:
        """Look up the previous tokens' part of the lowest gates: [N, T, B, 4H]."""
        parts = [
            products.lookup(table, tokens, lstm.kept_dtype(self.dtype, self.use_native))
            for table, tokens in zip(weights.tables, previous, strict=True)
        ]
        streams = _group(parts, self.depths)
        return jnp.stack([sum(parts[1:], start=parts[0]) for parts in streams])

    def feed_back(
        self, weights: Weights, start: Prepared, previous: Columns, sampling: Sampling
    ) -> Columns:
        """Replace previous tokens, except the first, by samples with a given probability.

        The logits of teacher forcing on the result are those that a sequential decoder with
        scheduled sampling computes: no gradient passes through a sample.
        """
        weights, start = lax.stop_gradient((weights, start))
        fast = self.cast_weights(weights)
        T, B = previous[0].shape
        choice_key, token_key = jax.random.split(sampling.key)
        chosen = jax.random.uniform(choice_key, (len(self.depths), T, B)) < sampling.probability
        per_column = [chosen[n] for n, depths in enumerate(self.depths) for _ in depths]

        def step(carry: tuple[Any, Columns], x: Any) -> tuple[tuple[Any, Columns], Columns]:
            states, fed = carry
            true_next, use, key = x
            states, logits = self._step(fast, start.gates, states, fed)
            drawn = draws.sample(logits, key, sampling.temperature)
            after = tuple(jnp.where(u, d, t) for u, d, t in zip(use, drawn, true_next, strict=True))
            return (states, after), fed

        following = tuple(jnp.roll(tokens, -1, axis=0) for tokens in previous)
        first = tuple(tokens[0] for tokens in previous)
        xs = (following, tuple(per_column), jax.random.split(token_key, T))
        _, fed = lax.scan(step, (start.states, first), xs)
        return fed

    def generate(
        self,
        weights: Weights,
        start: Prepared,
        first: Columns,
        keys: jax.Array,
        temperature: jax.Array | float,
    ) -> tuple[Columns, Columns]:
        """Decode with every output fed back.

        Args:
          weights: of `weights()`; products take the type they have (see `cast_weights`).
          start: of `prepare`.
          first: K arrays [B], the tokens before the first step; V_k means "none".
          keys: one random key for each of T steps.
          temperature: divides the logits; 0 takes the best token.

        Returns:
          The last tokens, K arrays [B] int32, and all tokens, K arrays [T, B] int32.
        """
        takes_best = draws.is_zero(temperature)
        B, depths = first[0].shape[0], [depth for stream in self.depths for depth in stream]

        def step(carry: tuple[Any, Columns], noise: Any) -> tuple[tuple[Any, Columns], Columns]:
            states, fed = carry
            states, logits = self._step(weights, start.gates, states, fed)
            if not takes_best:
                logits = draws.perturbed(logits, noise, temperature)
            drawn = draws.best(logits)
            return (states, drawn), drawn

        def steps(carry: Any, keys: jax.Array) -> tuple[Any, Columns]:
            draw = jax.vmap(lambda key: draws.gumbel_noise(key, B, depths))
            noise = None if takes_best else draw(keys)
            return lax.scan(step, carry, noise, length=len(keys))

        T = len(keys)
        chunk = math.gcd(T, draws.STEPS_OF_NOISE)
        (_, last), tokens = lax.scan(
            steps, (start.states, first), keys.reshape(T // chunk, chunk, *keys.shape[1:])
        )
        return last, tuple(column.reshape(T, -1) for column in tokens)

    def cast_weights(self, weights: Weights) -> Weights:
        """Return the weights of the sequential loops in the type of the products."""
        layers = tuple(
            layer._replace(
                inputs=None if layer.inputs is None else layer.inputs.astype(self.dtype),
                recurrent=layer.recurrent.astype(self.dtype),
            )
            for layer in weights.layers
        )
        outputs = tuple((kernel.astype(self.dtype), bias) for kernel, bias in weights.outputs)
        return weights._replace(layers=layers, outputs=outputs)

    def _step(
        self, weights: Weights, gates: jax.Array, states: Any, previous: Columns
    ) -> tuple[Any, Columns]:
        """Run one step: states, previous tokens [B] -> states, K logits [B, V_k]."""
        tokens = self._token_gates(weights, tuple(p[None] for p in previous))[:, 0]
        states, hidden = lstm.step_stack(weights.layers, gates + tokens, states)
        logits: list[jax.Array] = []
        for n, (kernel, bias) in enumerate(weights.outputs):
            flat = products.multiply("bh,hv->bv", hidden[n].astype(kernel.dtype), kernel)
            logits.extend(_split(flat + bias[None, :], self.depths[n], axis=1))
        return states, tuple(logits)

    def drop(self, previous: Columns, dropout: Dropout) -> Columns:
        """Replace previous tokens by "none", all columns of a step together.

        Reference: Bowman et al. 2016, section 3.1, where a special token replaces dropped ones.
        """
        gone = jax.random.bernoulli(dropout.key, dropout.probability, previous[0].shape)
        nothing = self.no_tokens(1)
        pairs = zip(previous, nothing, strict=True)
        return tuple(jnp.where(gone, none[:, None], tokens) for tokens, none in pairs)

    def no_tokens(self, batch_size: int) -> Columns:
        """Return the tokens before the first step: K arrays [B] that mean "none"."""
        depths = [depth for stream in self.depths for depth in stream]
        return tuple(jnp.full((batch_size,), depth, jnp.int32) for depth in depths)


def shift(columns: Columns, first: Columns) -> Columns:
    """Return the tokens before each step: [T, B] each, with `first` [B] before step 0."""
    pairs = zip(columns, first, strict=True)
    return tuple(jnp.concatenate([start[None], tokens[:-1]]) for tokens, start in pairs)


def join_columns(columns: Columns) -> jax.Array:
    """Return K columns [T, B] as tokens [B, T], or [B, T, K] for several."""
    if len(columns) == 1:
        return columns[0].T
    return jnp.stack([column.T for column in columns], axis=-1)


def _split(x: jax.Array, sizes: Sequence[int], axis: int) -> list[jax.Array]:
    """Split an axis into parts of these sizes."""
    parts, start = [], 0
    for size in sizes:
        parts.append(lax.slice_in_dim(x, start, start + size, axis=axis))
        start += size
    return parts


def _group(parts: Sequence[jax.Array], depths: Sequence[Sequence[int]]) -> list[list[jax.Array]]:
    """Group K arrays by stream."""
    rest = iter(parts)
    return [[next(rest) for _ in stream] for stream in depths]

"""`stacked_vae`: each bar through the same dense layers, then the joined bars through others.

    cells [B, U, S * D] -> dense, the same for each bar -> [B, U * H] -> dense -> mu, sigma
    z -> dense -> [B, U * H] -> dense, the same for each bar -> logits [B, T, V]

What a cell is and how a row is drawn from the probabilities of its cells: `cells.py`.

Reference: a Matura thesis of 2020: bars of 9,216 cells through 2,000 and 200 units, 16 bars joined
to 3,200, 1,600 units, z of 120, and the same sizes back.

Differences from the reference: bars are those of the task, 96 x 96 note starts as there
(`rolls.py`) or 16 steps of one-hot tokens; ReLU between the layers and the Bernoulli likelihood are
not stated there. With init=default a cell starts at the probability 1 / V instead of one half, of
piano rolls at 1 / 300.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from musicvae_jax.config import Config
from musicvae_jax.models import products
from musicvae_jax.models.dense import rolls
from musicvae_jax.models.dense.cells import CellVAE, as_columns, cell_bias, read_cells
from musicvae_jax.models.dense.layers import (
    SMALL_BIAS,
    DenseStack,
    PosteriorLayer,
    UnitDropout,
    affine,
    products_of,
)
from musicvae_jax.models.dense.sparse import CellsOn
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.initialisation import Initializer
from musicvae_jax.tasks import ROLL_PITCHES, STEPS_PER_BAR, RollTask, Task, get_task

# About the share of cells in which a note starts: 30 of the 9,216 of a bar.
_ROLL_SHARE = 1 / 300
_ROLL_BIAS = nn.initializers.constant(math.log(_ROLL_SHARE / (1 - _ROLL_SHARE)))


class Cells(NamedTuple):
    """The cells of the rows of a task.

    Attributes:
      read: `read(tokens, lengths) -> cells`, bar after bar: those that are on, or [B, ...] float32.
      inputs: cells of a bar that are read.
      outputs: cells of a bar that have a logit.
      as_columns: divides the logits of a row, [B, U * outputs], into K arrays [B, T, V_k].
      bias_init: initial biases of the logits of a bar.
    """

    read: Callable[[jax.Array, jax.Array | None], CellsOn | jax.Array]
    inputs: int
    outputs: int
    as_columns: Callable[[jax.Array], Columns]
    bias_init: Initializer


def cells_of(config: Config) -> Cells:
    """Return how the rows of a configuration's task are read and written."""
    task, init = get_task(config.task), config.model.init
    return _roll_cells(task, init) if isinstance(task, RollTask) else _token_cells(task, init)


# Kept, so that modules of equal sizes are equal.
@functools.cache
def _roll_cells(task: RollTask, init: str) -> Cells:
    """Return how lists of note starts are read and written."""
    size = task.steps_per_bar * ROLL_PITCHES
    bias = SMALL_BIAS if init == "reference" else _ROLL_BIAS
    return Cells(lambda rows, _: rolls.note_starts(rows, task), size, size, rolls.as_ticks, bias)


@functools.cache
def _token_cells(task: Task, init: str) -> Cells:
    """Return how rows of tokens are read and written."""
    depths = tuple(track.num_classes for track in task.tracks)
    return Cells(
        read=functools.partial(read_cells, task.tracks),
        inputs=STEPS_PER_BAR * task.encoder_depth,
        outputs=STEPS_PER_BAR * sum(depths),
        as_columns=lambda logits: as_columns(logits, depths),
        bias_init=cell_bias(task.tracks, init, STEPS_PER_BAR),
    )


class StackedEncoder(nn.Module):
    """q(z | tokens) from bars.

    Attributes:
      read: returns the cells of tokens and lengths, bar after bar: `Cells.read`.
      inputs: cells of a bar.
      num_bars: U.
      bar_sizes: units of each layer of a bar; the last is H.
      sizes: units of each layer of the joined bars.
      z_size: Z.
      dtype: type of the products.
    """

    read: Callable[[jax.Array, jax.Array | None], CellsOn | jax.Array]
    inputs: int
    num_bars: int
    bar_sizes: tuple[int, ...]
    sizes: tuple[int, ...]
    z_size: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Declare the layers."""
        self.bars = DenseStack(self.inputs, self.bar_sizes, self.dtype)
        self.rows = DenseStack(self.num_bars * self.bar_sizes[-1], self.sizes, self.dtype)
        self.posterior = PosteriorLayer(self.sizes[-1], self.z_size, self.dtype)

    def declare(self) -> None:
        """Create all parameters."""
        self.bars.declare()
        self.rows.declare()
        self.posterior.declare()

    def __call__(
        self, tokens: jax.Array, lengths: jax.Array | None, dropout: UnitDropout | None
    ) -> Posterior:
        """Encode the first `lengths` [B] steps of tokens [B, T] or [B, T, K]; None: all."""
        bars = self.bars(self.read(tokens, lengths), dropout)
        rows_dropout = None if dropout is None else dropout.of_part(1)
        return self.posterior(self.rows(bars, rows_dropout))


class StackedDecoder(nn.Module):
    """A logit for each cell of a row, from z alone.

    Attributes:
      outputs: cells of a bar.
      as_columns: divides the logits of a row into K arrays [B, T, V_k].
      num_bars: U.
      bar_sizes: units of each layer of a bar, in the encoder's order.
      sizes: units of each layer before the bars are divided.
      z_size: Z.
      bias_init: initial values of the biases of the cells of a bar.
      dtype: type of the products.
    """

    outputs: int
    as_columns: Callable[[jax.Array], Columns]
    num_bars: int
    bar_sizes: tuple[int, ...]
    sizes: tuple[int, ...]
    z_size: int
    bias_init: Initializer
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Declare the layers."""
        *upper, H = self.bar_sizes
        self.rows = DenseStack(self.z_size, (*self.sizes, self.num_bars * H), self.dtype)
        self.bars = DenseStack(H, tuple(reversed(upper)), self.dtype)
        self.output = affine(self.bar_sizes[0], self.outputs, self.bias_init)

    def declare(self) -> None:
        """Create all parameters."""
        self.rows.declare()
        self.bars.declare()
        products.touch(self.output)

    def __call__(self, z: jax.Array, dropout: UnitDropout | None = None) -> Columns:
        """Compute the logits of z [B, Z]: K arrays [B, T, V_k] float32."""
        rows_dropout = None if dropout is None else dropout.of_part(1)
        bars = self.rows(z, rows_dropout).reshape(len(z) * self.num_bars, -1)
        cells = self.output(self.bars(bars, dropout), self.dtype)
        return self.as_columns(cells.reshape(len(z), -1))


def build(config: Config, dtype: jax.typing.DTypeLike) -> CellVAE:
    """Build the module of a configuration."""
    task, model = get_task(config.task), config.model
    U, Z, bar_sizes, cells = task.num_bars, model.z_size, model.bar_sizes, cells_of(config)
    encoder = StackedEncoder(cells.read, cells.inputs, U, bar_sizes, model.encoder_sizes, Z, dtype)
    decoder = StackedDecoder(
        cells.outputs,
        cells.as_columns,
        U,
        bar_sizes,
        model.decoder_sizes,
        Z,
        cells.bias_init,
        dtype,
    )
    return CellVAE(encoder, decoder)


def likelihood(config: Config) -> rolls.Likelihood | None:
    """Return the likelihood of the cells of piano rolls; None for rows of tokens."""
    task: Task = get_task(config.task)
    return rolls.Likelihood(task, config.run.threshold) if isinstance(task, RollTask) else None


def operations(config: Config) -> tuple[int, int]:
    """Count the operations of encoding and of decoding one row."""
    task, model = get_task(config.task), config.model
    U, bar_sizes = task.num_bars, model.bar_sizes
    cells = cells_of(config)
    joined = U * bar_sizes[-1]
    encoding = U * products_of(cells.inputs, bar_sizes)
    encoding += products_of(joined, [*model.encoder_sizes, 2 * model.z_size])
    decoding = products_of(model.z_size, [*model.decoder_sizes, joined])
    widths = [*reversed(bar_sizes[:-1]), cells.outputs]
    return encoding, decoding + U * products_of(bar_sizes[-1], widths)

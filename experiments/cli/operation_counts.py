"""Count operations and fewest bytes per example, and the time they need at least on a machine.

Example:
  python -m experiments.cli.operation_counts --tflops=790 --bandwidth=4.3

prints one training step of every published configuration and of the demo.

What is counted (a multiply-add is two operations):
  forward    Recurrent products, input products of layers that read activations, and the output
             projection. Token inputs are row lookups and count nothing (the encoder's drum roll,
             10 wide, counts). z and bar embeddings are multiplied once per sequence.
  plain      The same for a model that multiplies one-hot tokens and repeats z at every step.
  backward   Twice the forward products: gradients of the inputs and of the weights.
  bytes      What the backward pass reads again, as 2-byte numbers: gates, cell and output of each
             unit and step (6 per unit), written and read once; logits, written and read once.
             Parameters with Adam's two moments, as 4-byte numbers, are read and written once per
             batch, gradients written and read once.
The floor is the larger of operations / matrix rate and bytes / bandwidth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.cli import config_flags, presets
from experiments.cli.run_options import check_ranges
from musicvae_jax.config import Config
from musicvae_jax.models.registry import VAE, Forecaster, build_model, find_architecture
from musicvae_jax.tasks import get_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What one training step costs.

    Attributes:
      forward: operations per example, forward pass.
      plain_forward: those with one-hot products and z repeated at every step.
      decoding: those of the decoder and conductor, which is what generating an example costs.
      parameters: parameters of the model.
      units: LSTM units times steps per example, over all layers.
      logits: output numbers per example.
      batch_size: examples per step.
    """

    forward: int
    plain_forward: int
    decoding: int
    parameters: int
    units: int
    logits: int
    batch_size: int

    @property
    def operations(self) -> int:
        """Operations per example, forward and backward."""
        return 3 * self.forward

    @property
    def plain_operations(self) -> int:
        """Operations per example with one-hot products and z repeated at every step."""
        return 3 * self.plain_forward

    @property
    def bytes(self) -> float:
        """Fewest bytes per example, including its share of the parameters."""
        kept = 2 * 2 * (6 * self.units + self.logits)
        return kept + 4 * 8 * self.parameters / self.batch_size

    def floor_seconds(self, tflops: float, terabytes_per_second: float) -> float:
        """Lower bound of the seconds per example on such a machine."""
        return max(self.operations / (tflops * 1e12), self.bytes / (terabytes_per_second * 1e12))


def _lstm(width: int, hidden: int) -> tuple[int, int]:
    """Return (operations per step, parameters) of one layer reading `width` activations."""
    return 2 * (width + hidden) * 4 * hidden, (width + hidden + 1) * 4 * hidden


class _Tally:
    """Adds up the parts of a model."""

    def __init__(self) -> None:
        self.forward = 0
        self.plain_forward = 0
        self.parameters = 0
        self.units = 0

    def layer(
        self,
        hidden: int,
        steps: int,
        *,
        dense: int = 0,
        once: int = 0,
        starts: int = 1,
        table: int = 0,
    ) -> None:
        """Add an LSTM layer.

        Its input has `dense` activations, `table` token values that are looked up, and `once`
        values that are constant between two of its `starts`.
        """
        self.forward += steps * _lstm(dense, hidden)[0] + 2 * once * 4 * hidden * starts
        operations, parameters = _lstm(dense + once + table, hidden)
        self.plain_forward += steps * operations
        self.parameters += parameters
        self.units += steps * hidden

    def encoder(self, sizes: Sequence[int], steps: int, depth: int, is_dense: bool) -> int:
        """Add bidirectional layers over inputs of this depth; return the embedding's width."""
        dense, table = (depth, 0) if is_dense else (0, depth)
        for hidden in sizes:
            for _direction in range(2):
                self.layer(hidden, steps, dense=dense, table=table)
            dense, table = 2 * hidden, 0
        return dense

    def product(self, width: int, out: int, times: int) -> None:
        """Add a dense layer used `times` times per example."""
        self.forward += 2 * width * out * times
        self.plain_forward += 2 * width * out * times
        self.parameters += (width + 1) * out


def count(config: Config) -> Counts:
    """Count one training step of a configuration under teacher forcing."""
    built = build_model(config)
    if isinstance(built, Forecaster):
        return _count_forecaster(config, built)
    task, model, tally = get_task(config.task), config.model, _Tally()
    if operations := find_architecture(model.architecture).operations:
        return _count_dense(config, built, *operations(config))
    T = task.num_steps
    roll = task.tracks[0].encoder_roll
    if find_architecture(model.architecture).encodes_bars:
        bar = tally.encoder(model.encoder_sizes, T, task.encoder_depth, is_dense=roll)
        width = tally.encoder(model.encoder_sizes, task.num_bars, bar, is_dense=True)
    else:
        width = tally.encoder(model.encoder_sizes, T, task.encoder_depth, is_dense=roll)
    tally.product(width, model.z_size, 1)
    tally.product(width, model.z_size, 1)
    encoding = tally.forward
    starts, context = 1, model.z_size
    if built.conductor is not None:
        starts = task.num_bars
        tally.product(context, 2 * sum(model.resolved_conductor_sizes), 1)
        below = 0
        for hidden in model.resolved_conductor_sizes:
            tally.layer(hidden, starts, dense=below, table=1 if below == 0 else 0)
            below = hidden
        context = below
    groups = [[track] for track in task.tracks] if starts > 1 else [list(task.tracks)]
    for tracks in groups:
        depth = sum(track.num_classes for track in tracks)
        tally.product(context, 2 * sum(model.decoder_sizes), starts)
        below = 0
        for hidden in model.decoder_sizes:
            table, once = (depth, context) if below == 0 else (0, 0)
            tally.layer(hidden, T, dense=below, once=once, starts=starts, table=table)
            below = hidden
        tally.product(below, depth, T)
    return Counts(
        forward=tally.forward,
        plain_forward=tally.plain_forward,
        decoding=tally.forward - encoding,
        parameters=tally.parameters,
        units=tally.units,
        logits=task.num_logits,
        batch_size=config.train.batch_size,
    )


def _count_dense(config: Config, model: VAE, encoding: int, decoding: int) -> Counts:
    """Count a model without LSTMs from the operations of its two halves."""
    task = get_task(config.task)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return Counts(
        forward=encoding + decoding,
        plain_forward=encoding + decoding,
        decoding=decoding,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(shapes)),
        units=0,
        logits=task.num_logits,
        batch_size=config.train.batch_size,
    )


def _count_forecaster(config: Config, model: Forecaster) -> Counts:
    """Count every parameter as one multiply-add per step: an upper bound without attention."""
    task = get_task(config.task)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    forward = 2 * parameters * task.num_steps
    return Counts(
        forward=forward,
        plain_forward=forward,
        decoding=forward,
        parameters=parameters,
        units=sum(config.model.decoder_sizes) * task.num_steps,
        logits=task.num_logits,
        batch_size=config.train.batch_size,
    )


def published() -> dict[str, Config]:
    """Return the configuration of every preset by its name."""
    return {
        name: config_flags.config_from_flagfile(presets.path_of(name)) for name in presets.names()
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Two rates of a machine, by default of an NVIDIA H100."""

    tflops: float = option(790.0, help="Matrix rate of the machine, TFLOP/s.")
    bandwidth: float = option(4.3, help="Memory bandwidth of the machine, TB/s.")

    def __post_init__(self) -> None:
        """Check both."""
        check_ranges(self, tflops=(0.001, math.inf), bandwidth=(0.001, math.inf))


def main(options: Options) -> None:
    """Print a line per configuration."""
    rate, bandwidth = options.tflops, options.bandwidth
    print(f"floor at {rate} TFLOP/s and {bandwidth} TB/s; per example, forward and backward")
    print(f"{'configuration':22}{'batch':>6}{'params/M':>10}{'GFLOP':>9}{'MB':>8}{'floor/us':>10}"
          f"{'bound by':>11}{'ex/s at floor':>15}")  # fmt: skip
    for name, config in published().items():
        c = count(config)
        floor = c.floor_seconds(rate, bandwidth)
        bound = "arithmetic" if c.operations / rate >= c.bytes / bandwidth else "memory"
        print(f"{name:22}{c.batch_size:6}{c.parameters / 1e6:10.2f}{c.operations / 1e9:9.3f}"
              f"{c.bytes / 1e6:8.2f}{floor * 1e6:10.2f}{bound:>11}{1 / floor:15,.0f}")  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Options)

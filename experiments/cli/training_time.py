"""A warning, before training starts, that a run would take more than a day on a CPU."""

from __future__ import annotations

import statistics
import sys
import time

import jax
import jax.numpy as jnp

from experiments.cli import operation_counts, presets
from musicvae_jax.config import Config

LONG_HOURS = 24.0
# Share of the rate of one large product that training is assumed to reach. On two quiet cores it
# was 0.44 for 2-bar drums, 0.47 for 16-bar melodies, both with 256 units, and 0.25 for the demo's
# model (experiments/benchmarks/train_step.txt).
EFFICIENCY = 0.4
_ROWS, _UNITS = 512, 512


def warn_if_long(config: Config) -> None:
    """Print a warning if all steps would take more than `LONG_HOURS` on the CPU that is used.

    The estimate is the number of operations, from the layers' sizes, divided by the rate of one
    matrix product, which is timed here in a fraction of a second. It is right within a factor of
    two; the progress lines of the run then show what is measured.
    """
    if jax.default_backend() != "cpu":
        return
    text = warning(config, operations_per_second())
    if text:
        print(f"warning: {text}", file=sys.stderr, flush=True)


def warning(config: Config, rate: float) -> str | None:
    """Return the warning, None for a shorter run.

    Args:
      config: what is trained.
      rate: operations per second of one large product.
    """
    examples = config.train.batch_size * config.run.train_steps
    hours = examples * operation_counts.count(config).operations / (EFFICIENCY * rate) / 3600
    if hours <= LONG_HOURS:
        return None
    years = hours / (24 * 365)
    long = f"{hours:,.0f} hours" if years < 1.5 else f"{years:,.0f} years"
    quick = presets.quick_preset(config.task)
    if quick:
        advice = f"--preset={quick} needs {presets.header(quick)['Two CPU cores']}"
    else:
        advice = "give fewer --train_steps or smaller --encoder_sizes and --decoder_sizes"
    return (
        f"{config.run.train_steps:,} steps of {config.train.batch_size} rows take about {long} on "
        f"this CPU (estimated from the speed of a matrix product); {advice}"
    )


def operations_per_second() -> float:
    """Time one large product in float32 on the first device."""
    product = jax.jit(jnp.matmul)
    left, right = jnp.ones((_ROWS, _UNITS)), jnp.ones((_UNITS, 4 * _UNITS))
    product(left, right).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(left, right).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * _ROWS * _UNITS * 4 * _UNITS / statistics.median(seconds)

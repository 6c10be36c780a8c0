"""Options shared by the commands that use a trained model."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from data_pipeline.cli import option
from musicvae_jax.config import InputError

LARGEST_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which trained model to use."""

    run_dir: str = option(help="Run folder of the model.")
    checkpoint: str = option("best", help="Checkpoint: best, latest or a saved step.")
    allow_changed_data: bool = option(
        False, help="Accept a token store that has changed since it was written or trained on."
    )


@dataclasses.dataclass(frozen=True)
class RunOptions(ModelOptions):
    """Which trained model to use, and on which data."""

    data_dir: str | None = option(None, help="Token store. Default: the run's own.")


def check_ranges(options: Any, **limits: tuple[float, float]) -> None:
    """Check that numbers are finite and within their limits, both included.

    Args:
      options: object whose attributes are checked.
      **limits: attribute to its smallest and largest value; `math.inf` sets no upper limit.

    Raises:
      InputError: one is not.
    """
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if not (math.isfinite(value) and low <= value <= high):
            allowed = f"{low} or more" if math.isinf(high) else f"from {low} to {high}"
            raise InputError(f"{name}: {value!r} is out of range, it must be {allowed}")

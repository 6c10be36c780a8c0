"""Options that several benchmarks have."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from data_pipeline.cli import option
from musicvae_jax.config import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimingOptions:
    """What to time, and for how long."""

    only: tuple[str, ...] = option((), comma=True, help="Configurations to time, by name.")
    rounds: int = option(5, low=1, help="Rounds in which every side is timed in turn.")
    min_seconds: float = option(1.0, low=0.0, help="Shortest time of a side in a round.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """How to print what was measured."""

    json: bool = option(False, help="Print one JSON line per measurement instead.")


def check_names(names: Sequence[str], known: Collection[str]) -> None:
    """Check what --only names.

    Raises:
      InputError: there is no such configuration.
    """
    for name in names:
        if name not in known:
            raise InputError(f"--only: {name!r} is not one of {', '.join(known)}")

"""Which LSTM implementation `auto` means for a run.

The two for CPUs, `native` and `xla`, differ by rounding, so a resumed run keeps that of its last
start, which its folder records (`starts.jsonl`).
"""

from __future__ import annotations

import pathlib
import sys

from experiments.cli.run_record import read_starts
from musicvae_jax.config import Config
from musicvae_jax.models.native import uses_native

AUTO, XLA, NATIVE = "auto", "xla", "native"
# What `write_start` records it as.
KEY = "lstm_backend"


def resolved(config: Config, folder: pathlib.Path) -> Config:
    """Return the configuration with `lstm_backend` decided.

    Args:
      config: of the run.
      folder: of the run, which may not exist yet.
    """
    if config.run.lstm_backend != AUTO:
        return config
    can = uses_native(config)
    starts = read_starts(folder)
    # Runs without a record are from before the choice, when there was only XLA's loop.
    choice = starts[-1].get(KEY, XLA) if starts else NATIVE if can else XLA
    if choice == NATIVE and not can:
        print(
            f"lstm_backend: {folder} was trained with the native kernel, which does not run here; "
            "resuming with XLA's loop, results differ by rounding",
            file=sys.stderr,
        )
        choice = XLA
    return config.replace(lstm_backend=choice)

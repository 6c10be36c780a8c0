"""The number of devices that a CPU is divided into for training.

XLA computes a small model's step partly on one core. Two devices that each take half of the
batch keep two cores busy: on two cores of an Intel Xeon the demo's model (192 units, batch 64)
trains 1.38 times as fast, while 256 units gain nothing (0.94 times for 2-bar drums at batch 512,
equal for hierarchical melodies at batch 64). `auto` follows these three measurements, one run
each. The native LSTM kernel (`musicvae_jax/models/native.py`) keeps all cores busy by itself, and
runs on one device only: where it can run, `auto` does not divide.

The number changes the rounding of a run, so a resumed run keeps that of its last start, which
its folder records (`starts.jsonl`).
"""

from __future__ import annotations

import os
import pathlib

import jax

from experiments.cli.run_record import read_starts
from musicvae_jax.config import Config, InputError
from musicvae_jax.models import native
from musicvae_jax.models.registry import find_architecture

AUTO = "auto"
# `auto` divides the CPU for models of at most this many units in the widest layer, ...
MOST_UNITS = 192
# ... and leaves each device at least this many rows of a batch.
FEWEST_ROWS = 32
# More cores are untried: training on several devices is tested with up to 8.
MOST_DEVICES = 8
FORCED = "xla_force_host_platform_device_count"

HELP = (
    "Number of devices that a CPU is divided into; each takes its part of a batch. auto: one, or "
    f"one per core for models of up to {MOST_UNITS} units that the native LSTM kernel does not "
    "run; a resumed run keeps its number. It changes the rounding of a run: give 1 for equal bits "
    "on machines with different numbers of cores. Ignored with --multihost."
)


def divide(choice: str, config: Config, folder: pathlib.Path) -> None:
    """Divide the CPU. Must be called before JAX is used; does nothing to accelerators.

    With `auto`, a number set in XLA_FLAGS stays, and so does what a JAX that runs already has.

    Args:
      choice: "auto" or a number.
      config: of the run.
      folder: of the run, which may not exist yet.

    Raises:
      InputError: the choice is neither, another one than the run's own, or comes too late.
    """
    count = number(choice, config, folder, len(os.sched_getaffinity(0)))
    if count is None:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        if choice != AUTO:
            raise InputError(f"cpu_devices: {choice} must be set before JAX is used") from error


def number(choice: str, config: Config, folder: pathlib.Path, cores: int) -> int | None:
    """Return the number of devices, None to leave what there is.

    Raises:
      InputError: see `divide`.
    """
    if choice != AUTO and not (choice.isdecimal() and int(choice) >= 1):
        raise InputError(f"cpu_devices: {choice!r} must be auto or a whole number from 1")
    recorded = _recorded(folder)
    if choice != AUTO:
        if recorded is not None and recorded != int(choice):
            raise InputError(
                f"cpu_devices: {folder} was trained with {recorded}; resume with "
                f"--cpu_devices={recorded}, or give another run_dir"
            )
        return int(choice)
    if FORCED in os.environ.get("XLA_FLAGS", ""):
        return None
    return recorded or suitable(config, cores)


def suitable(config: Config, cores: int) -> int:
    """Return the number that `auto` chooses for a new run."""
    model, run = config.model, config.run
    rows = config.train.batch_size // config.train.accumulation
    unused = find_architecture(model.architecture).unused_fields
    if "lstm_backend" in unused:
        return 1  # XLA divides large products over the cores of one device
    names = {"encoder_sizes", "decoder_sizes", "conductor_sizes"} - set(unused)
    sizes = [units for name in names for units in getattr(model, name)]
    may = run.lstm_backend in ("auto", "native") and native.suits(config.train.dtype)
    # Not compiled here: JAX may find a GPU, which does not use the kernel.
    lanes = native.lanes() if may else 0
    if lanes and all(units % lanes == 0 for units in sizes):
        return 1
    widest = max(sizes, default=0)
    fits = cores <= MOST_DEVICES and rows % cores == 0 and rows // cores >= FEWEST_ROWS
    small = widest <= MOST_UNITS and run.model_parallel == 1
    return cores if small and fits else 1


def _recorded(folder: pathlib.Path) -> int | None:
    """Return the number of CPU devices of a run's last start, None if it ran on others."""
    starts = read_starts(folder)
    kinds = starts[-1]["machine"]["devices"] if starts else []
    return len(kinds) if kinds and set(kinds) == {"cpu"} else None

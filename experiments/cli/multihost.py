"""Flags of a run on several machines, and how its processes start and end.

When a process is lost, a collective of the others fails, and each prints one line (`LOST`) and
exits with code 1. If process 0 is lost, which also runs the coordination service of
`jax.distributed`, the runtime prints its own report before that line, or aborts first with 134.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import traceback
from collections.abc import Iterator

import jax

from data_pipeline.cli import check_ranges, option
from musicvae_jax.config import InputError
from musicvae_jax.devices import processes

LOST = (
    "error: another process of this run has ended, so this one stops too; checkpoints are kept: "
    "restart all processes with the same command"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """Which processes train together."""

    multihost: bool = option(
        False,
        help="Train with several processes, one per machine: run the same command on each, with "
        "data_dir and run_dir on a shared file system.",
    )
    coordinator_address: str | None = option(
        None, help="host:port of process 0, for --multihost. Default: SLURM's or the TPU pod's."
    )
    num_processes: int | None = option(
        None, help="Number of processes, for --multihost. Default: SLURM's or the TPU pod's."
    )
    process_id: int | None = option(
        None,
        help="Index of this process, from 0, for --multihost. Default: SLURM's or the TPU pod's.",
    )

    def __post_init__(self) -> None:
        """Check that the numbers are in range and have a use."""
        for name in ("coordinator_address", "num_processes", "process_id"):
            if getattr(self, name) is not None and not self.multihost:
                raise InputError(f"--{name} is for --multihost")
        check_ranges(self, num_processes=(1, math.inf), process_id=(0, math.inf))


@contextlib.contextmanager
def joined(options: MachineOptions) -> Iterator[None]:
    """Join the other processes of a run while entered, if there are several.

    An error then ends this process at once, without shutting down the runtime, because the other
    processes must notice that it is gone. Exit code 2 for wrong input, 1 for other errors, also
    for a lost process.

    Raises:
      InputError: the processes did not find each other.
    """
    if not options.multihost:
        yield
        return
    # Collectives between CPU devices of several processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    processes.start(options.coordinator_address, options.num_processes, options.process_id)
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        _end(error)


def _end(error: BaseException) -> None:
    """Print the error, in one line if its cause is known, and end the process."""
    code = 2 if isinstance(error, InputError) else 1
    if isinstance(error, InputError):
        text = f"error: {error}"
    elif processes.is_lost_process(error):
        text = LOST
    elif isinstance(error, KeyboardInterrupt):
        text, code = "error: interrupted", 130
    else:
        text = "".join(traceback.format_exception(error)).rstrip()
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    os._exit(code)

"""Flags of a run on several machines, and how its processes start and end.

When a process is lost, a collective of the others fails, and each prints one line (`LOST`) and
exits with code 1. If process 0 is lost, which also runs the coordination service of
`jax.distributed`, the runtime prints its own report before that line, or aborts first with 134.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

import jax
from absl import flags

from musicvae_jax.config import InputError
from musicvae_jax.devices import processes

LOST = (
    "error: another process of this run has ended, so this one stops too; checkpoints are kept: "
    "restart all processes with the same command"
)


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of several processes."""
    text = (
        "Train with several processes, one per machine: run the same command on each, with "
        "data_dir and run_dir on a shared file system."
    )
    flags.DEFINE_bool("multihost", False, text, flag_values=values)
    text = "host:port of process 0, for --multihost. Default: SLURM's or the TPU pod's."
    flags.DEFINE_string("coordinator_address", None, text, flag_values=values)
    text = "Number of processes, for --multihost. Default: SLURM's or the TPU pod's."
    flags.DEFINE_integer("num_processes", None, text, lower_bound=1, flag_values=values)
    text = "Index of this process, from 0, for --multihost. Default: SLURM's or the TPU pod's."
    flags.DEFINE_integer("process_id", None, text, lower_bound=0, flag_values=values)


@contextlib.contextmanager
def joined(values: flags.FlagValues) -> Iterator[None]:
    """Join the other processes of a run while entered, if the flags say so.

    An error then ends this process at once, without shutting down the runtime, because the other
    processes must notice that it is gone. Exit code 2 for wrong input, 1 for other errors, also
    for a lost process.

    Raises:
      InputError: the flags do not fit, or the processes did not find each other.
    """
    given = {name: values[name].value for name in _NAMES}
    if not values.multihost:
        wrong = [name for name, value in given.items() if value is not None]
        if wrong:
            raise InputError(f"--{wrong[0]} is for --multihost")
        yield
        return
    # Collectives between CPU devices of several processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    processes.start(**given)
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        _end(error)


_NAMES = ("coordinator_address", "num_processes", "process_id")


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

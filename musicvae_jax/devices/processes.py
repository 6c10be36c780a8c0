"""Coordination of processes, on one machine or several, that train one model together.

Each process runs the same program on its own devices. Decisions that affect control flow (when to
stop, which checkpoint is good) must be the same in all processes, or they deadlock. This module
provides the means to agree on them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import zlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from musicvae_jax.config import InputError

# Seconds without a heartbeat after which a process counts as lost.
HEARTBEAT_SECONDS = 30
# Seconds that processes wait for each other at the start.
START_SECONDS = 300

# Errors of collectives and of the coordination service when another process has ended.
_LOST = re.compile(
    r"gloo|nccl|coordination service|connection (reset|closed|refused)|heartbeat|socket closed"
    r"|barrier|deadline_exceeded|unavailable",
    re.IGNORECASE,
)


def start(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connect to the other processes; must be called before any device is used.

    `jax.distributed` reads arguments that are None from the environment of SLURM, Open MPI,
    Kubernetes or a TPU pod.

    Args:
      coordinator_address: host:port of process 0, reachable from the others.
      num_processes: number of processes.
      process_id: number of this process, from 0.

    Raises:
      InputError: an argument is neither given nor in the environment, or a process is missing.
    """
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=START_SECONDS,
        )
        # Processes connect at their first collective, when gloo prints a line per peer.
        with _native_output_discarded():
            wait_for_all("start")
    except (ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"multihost: the processes did not find each other: {_first_line(error)} Start one on "
            "each machine under SLURM or on a TPU pod, or give each --coordinator_address="
            "HOST:PORT of process 0, --num_processes and its own --process_id"
        ) from error


def is_first() -> bool:
    """Return whether this is process 0, which reports and writes for all."""
    return jax.process_index() == 0


def broadcast_from_first(number: int) -> int:
    """Return the `number` of process 0; all processes must make this call."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def wait_for_all(name: str) -> None:
    """Wait until all processes have reached the barrier `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_same(text: str, what: str) -> None:
    """Check that all processes were given the same text.

    Raises:
      InputError: the texts differ; the message names `what`.
    """
    if jax.process_count() == 1:
        return
    sums = multihost_utils.process_allgather(np.uint32(zlib.crc32(text.encode())))
    if len(set(np.ravel(sums).tolist())) > 1:
        raise InputError(f"multihost: the processes were given different {what}")


class AnyProcess:
    """Logical OR of a flag over all processes, evaluated once per dispatch.

    With several processes, each call returns the result of the previous call, so that no process
    waits for its devices.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._several = jax.process_count() > 1
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(
            lambda flags: flags.any(), out_shardings=NamedSharding(mesh, PartitionSpec())
        )
        self._result: jax.Array | None = None

    def __call__(self, flag: bool) -> bool:
        """Contribute this process's flag and return the result."""
        if not self._several:
            return flag
        previous, size = self._result, self._sharding.mesh.size
        given = np.full(size, flag)
        # Each process provides the flag for its own devices only.
        flags = jax.make_array_from_callback((size,), self._sharding, given.__getitem__)
        self._result = self._any(flags)
        return previous is not None and bool(previous)


def agreed(mesh: Mesh, ask: Callable[[], bool]) -> Callable[[], bool]:
    """Wrap `ask` so that all processes get the same result: true if any of them returns true."""
    any_process = AnyProcess(mesh)
    return lambda: any_process(ask())


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error indicates that another process of the run has ended."""
    return jax.process_count() > 1 and bool(_LOST.search(str(error)))


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return line + "."


@contextlib.contextmanager
def _native_output_discarded() -> Iterator[None]:
    """Discard what native code prints on standard output inside the context."""
    kept, c_library = os.dup(1), ctypes.CDLL(None)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        yield
    finally:
        c_library.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)

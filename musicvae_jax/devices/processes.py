"""Several processes, on one machine or many, that train one model: how they start and agree.

Each process runs the same program on its own devices. What decides how a program goes on (when
to stop, which checkpoint is good) must be the same in all of them, or they wait for each other
for ever: such decisions are made here.
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

# A process that was not heard of for so long counts as lost, in seconds.
HEARTBEAT_SECONDS = 30
# How long processes wait for each other at the start, in seconds.
START_SECONDS = 300

# What collectives and the coordination service say when another process has ended.
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
    """Join the other processes; call it before anything else uses a device.

    Args:
      coordinator_address: host:port of process 0, which the others can reach.
      num_processes: how many there are.
      process_id: number of this one, from 0. What is not given is read from the environment, as
        `jax.distributed` finds it: SLURM, Open MPI, Kubernetes, or a TPU pod.

    Raises:
      InputError: something is neither given nor in the environment, or the others did not come.
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
        # The processes connect at their first collective; gloo then prints a line per peer.
        with _native_output_discarded():
            wait_for_all("start")
    except (ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"multihost: the processes did not find each other: {_first_line(error)} Start one on "
            "each machine under SLURM or on a TPU pod, or give each --coordinator_address="
            "HOST:PORT of process 0, --num_processes and its own --process_id"
        ) from error


def is_first() -> bool:
    """Return whether this process reports and writes for all: process 0, or the only one."""
    return jax.process_index() == 0


def broadcast_from_first(number: int) -> int:
    """Return the number that process 0 gives to this call; all processes must make it."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def wait_for_all(name: str) -> None:
    """Return when all processes are at the place of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_same(text: str, what: str) -> None:
    """Check that all processes were given the same text.

    Raises:
      InputError: they were not; the message says of `what`.
    """
    if jax.process_count() == 1:
        return
    sums = multihost_utils.process_allgather(np.uint32(zlib.crc32(text.encode())))
    if len(set(np.ravel(sums).tolist())) > 1:
        raise InputError(f"multihost: the processes were given different {what}")


class AnyProcess:
    """Whether any process says yes, asked once for each dispatch.

    With several processes the answer is that to the question before, so that none waits for its
    devices.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._several = jax.process_count() > 1
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(
            lambda flags: flags.any(), out_shardings=NamedSharding(mesh, PartitionSpec())
        )
        self._answer: jax.Array | None = None

    def __call__(self, flag: bool) -> bool:
        """Ask with this process's flag."""
        if not self._several:
            return flag
        before, size = self._answer, self._sharding.mesh.size
        given = np.full(size, flag)
        # Of the same flag for all devices, this process places those of its own.
        flags = jax.make_array_from_callback((size,), self._sharding, given.__getitem__)
        self._answer = self._any(flags)
        return before is not None and bool(before)


def agreed(mesh: Mesh, ask: Callable[[], bool]) -> Callable[[], bool]:
    """Return a question that all processes answer alike: yes once any of them would."""
    any_process = AnyProcess(mesh)
    return lambda: any_process(ask())


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error means that another process of the run has ended."""
    return jax.process_count() > 1 and bool(_LOST.search(str(error)))


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return line + "."


@contextlib.contextmanager
def _native_output_discarded() -> Iterator[None]:
    """Discard what native code prints on standard output while entered."""
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

"""Conversion on several machines with Ray (extra `cluster`).

A task is a batch of files. On its machine it runs them as the local executor does, in a child
process with limits, so that outcomes are the same. The work of a lost machine is repeated
elsewhere. The project must be installed on every machine.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import re
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Any

from data_pipeline.conversion.convert import Job
from data_pipeline.conversion.gather import Executor, Jobs, Outcomes, local_executor
from data_pipeline.conversion.workers import Outcome
from musicvae_jax.config import InputError

_BATCH_FILES = 32
_BATCH_BYTES = 2**23
# Tasks handed out for each processor: one runs, one waits, none piles up.
_TASKS_PER_PROCESSOR = 2
_REACH_SECONDS = 10.0


def run_batch(batch: list[tuple[int, Job]]) -> list[tuple[int, Outcome]]:
    """Convert some files on this machine, one after the other."""
    return list(local_executor(1)(batch))


def ray_executor(address: str | None, num_workers: int) -> Executor:
    """Return an executor on a Ray cluster.

    Args:
      address: of a running cluster, "auto" for this machine's; None starts one here.
      num_workers: processors of a cluster that is started.

    Raises:
      InputError: Ray is not installed, or there is no cluster at the address.
    """
    check_installed()

    def run(jobs: Jobs) -> Outcomes:
        ray = _connect(address, num_workers)
        try:
            yield from _distribute(ray, jobs)
        finally:
            ray.shutdown()

    return run


def check_installed() -> None:
    """Raise InputError unless Ray is installed."""
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "executor: 'ray' needs the package ray: pip install this project with its extra "
            "'cluster'"
        )


def call_on_cluster(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    address: str | None,
    num_workers: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[tuple[int, Any | Exception], None, None]:
    """Call a function once per argument, each call on its own processor.

    A call on a lost machine is repeated elsewhere. Where the cluster has GPUs, each call
    has one for itself.

    Args:
      function: of an installed module.
      arguments: of each call.
      address: as for `ray_executor`.
      num_workers: likewise.
      should_stop: called each second; once it returns True, running calls are cancelled.

    Yields:
      the number of a call and what it returned or raised, as they end.

    Raises:
      InputError: Ray is not installed, or there is no cluster at the address.
    """
    check_installed()
    ray = _connect(address, num_workers)
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(function).options(num_cpus=1, num_gpus=gpus, max_retries=-1)
        running = {remote.remote(*given): n for n, given in enumerate(arguments)}
        while running and not should_stop():
            done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for call in done:
                number = running.pop(call)
                try:
                    result = ray.get(call)
                except ray.exceptions.RayTaskError as error:
                    result = error
                yield number, result
    finally:
        ray.shutdown()


def _connect(address: str | None, num_workers: int) -> Any:
    """Connect to a cluster, or start one; return the module."""
    # Loaded here: it comes with an extra.
    import ray

    # "local" starts a cluster even where another one runs on this machine.
    own = {"address": "local", "num_cpus": num_workers}
    given = own if address is None else {"address": address}
    try:
        _check_reachable(address)
        ray.init(
            **given,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"ray_address: no Ray cluster at {address!r}: {reason}") from error
    return ray


def _check_reachable(address: str | None) -> None:
    """Raise OSError if nothing answers at host:port: Ray itself would try for minutes."""
    place = re.fullmatch(r"([^:/]+):(\d+)", address or "")
    if place is not None:
        socket.create_connection((place[1], int(place[2])), _REACH_SECONDS).close()


def _distribute(ray: Any, jobs: Jobs) -> Outcomes:
    """Submit batches as processors become free; yield outcomes as they finish."""
    # Again, without end, when a machine is lost; what fails in a child is an outcome.
    remote = ray.remote(run_batch).options(num_cpus=1, max_retries=-1)
    batches = _batches(jobs)
    running: dict[Any, None] = {}
    while True:
        room = _TASKS_PER_PROCESSOR * max(1, int(ray.cluster_resources().get("CPU", 1)))
        for batch in itertools.islice(batches, max(0, room - len(running))):
            running[remote.remote(batch)] = None
        if not running:
            return
        done, _ = ray.wait(list(running), num_returns=1)
        for task in done:
            del running[task]
            yield from ray.get(task)


def _batches(jobs: Jobs) -> Generator[list[tuple[int, Job]], None, None]:
    """Group jobs into batches of at most `_BATCH_FILES`, smaller if the files are large."""
    batch: list[tuple[int, Job]] = []
    size = 0
    for job in jobs:
        batch.append(job)
        size += len(job[1].data)
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

"""A pool of child processes for work that may hang, crash or eat memory.

Each child handles many jobs, one at a time. A child that passes its limits is ended and
replaced, and only the job it was on is lost: its outcome says why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

OUT_OF_TIME = "took too long"
OUT_OF_MEMORY = "needs too much memory"
CRASHED = "crashed the reader"
FAILED = "error in the reader"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one job may take.

    Attributes:
      cpu_seconds: processor time; counted by the kernel, so that a busy machine drops no file.
      wall_seconds: time on the clock, for a child that waits for ever.
      memory_bytes: address space of a child.
    """

    cpu_seconds: float = 10.0
    wall_seconds: float = 60.0
    memory_bytes: int = 2 * 2**30


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one job: `value`, or the `reason` why there is none and its `detail`."""

    value: Any = None
    reason: str | None = None
    detail: str = ""


class _Worker:
    """A child process, its pipe, and the job it is on."""

    def __init__(self, context: Any, function: Callable[[Any], Any], limits: Limits) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, limits), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.key: Any = None
        self.deadline = float("inf")

    def give(self, key: Any, payload: Any, limits: Limits) -> None:
        """Start a job."""
        self.key = key
        self.deadline = time.monotonic() + limits.wall_seconds
        self.connection.send(payload)

    def end(self, grace_seconds: float = 0.0) -> int | None:
        """End the child, if it does not end by itself; return its exit code, -n for signal n."""
        if grace_seconds:
            self.process.join(grace_seconds)
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


def run_isolated(
    function: Callable[[Any], Any],
    jobs: Iterable[tuple[Any, Any]],
    *,
    num_workers: int,
    limits: Limits | None = None,
    preload: Sequence[str] = (),
) -> Generator[tuple[Any, Outcome], None, None]:
    """Yield (key, outcome of `function(payload)`) for each (key, payload) of `jobs`.

    Outcomes come as they are done, in no fixed order: who needs an order sorts by key. `jobs`
    is drawn from only when a child is free, so that as many payloads as children are in memory.

    Args:
      function: a module's top-level function; children import that module.
      jobs: keys and picklable payloads.
      num_workers: child processes.
      limits: of one job.
      preload: modules to import once for all children, beside the function's own.

    Raises:
      RuntimeError: a child cannot start.
    """
    limits = limits or Limits()
    context = _context([function.__module__, *preload])
    queue = iter(jobs)
    pending = next(queue, None)
    workers: list[_Worker] = []
    try:
        while pending is not None or any(worker.key is not None for worker in workers):
            free = [w for w in workers if w.ready and w.key is None]
            while pending is not None and free:
                free.pop().give(*pending, limits)
                pending = next(queue, None)
            if pending is not None and len(workers) < num_workers:
                workers.append(_Worker(context, function, limits))
            for worker in _woken(workers):
                key = worker.key
                outcome, alive = _outcome(worker, limits)
                if not alive:
                    workers.remove(worker)
                if outcome is not None:
                    yield key, outcome
    finally:
        for worker in workers:
            worker.end()


def _woken(workers: list[_Worker]) -> list[_Worker]:
    """Wait for a message, an end or a deadline; return the children concerned."""
    waiting = [w for w in workers if w.key is not None or not w.ready]
    nearest = min((w.deadline for w in waiting), default=float("inf"))
    timeout = max(0.0, nearest - time.monotonic()) if nearest != float("inf") else None
    ready = multiprocessing.connection.wait([w.connection for w in waiting], timeout)
    now = time.monotonic()
    return [w for w in waiting if w.connection in ready or w.deadline <= now]


def _outcome(worker: _Worker, limits: Limits) -> tuple[Outcome | None, bool]:
    """Read what a child says; return its outcome, if it is one, and whether the child lives."""
    outcome = Outcome(reason=OUT_OF_TIME, detail=f"{limits.wall_seconds:g} s waiting")
    if worker.connection.poll():
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            code = worker.end(grace_seconds=5.0)
            if not worker.ready:
                raise RuntimeError(f"a worker process ended at its start, code {code}") from None
            return _death(code, limits), False
        if not worker.ready:
            worker.ready = True
            return None, True
        worker.key, worker.deadline = None, float("inf")
        outcome = message
        if outcome.reason != OUT_OF_MEMORY:
            return outcome, True
    # A child that ran out of memory may hold on to what it got: a new one is cheap.
    worker.end()
    return outcome, False


def _death(code: int | None, limits: Limits) -> Outcome:
    """Say why a child ended before it answered."""
    if code == -signal.SIGPROF:
        return Outcome(reason=OUT_OF_TIME, detail=f"{limits.cpu_seconds:g} s of processor time")
    if code == -signal.SIGKILL:
        return Outcome(reason=OUT_OF_MEMORY, detail="ended by the system")
    return Outcome(reason=CRASHED, detail=f"exit code {code}")


def _context(modules: list[str]) -> multiprocessing.context.BaseContext:
    """Return a fork server that has imported `modules`: a new child then starts in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(modules)
    # Thread pools of linear algebra reserve address space per core, which the limit counts.
    threads = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    given = dict.fromkeys(threads, "1") | {"PYTHONWARNINGS": "ignore"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return context


def _serve(connection: Connection, function: Callable[[Any], Any], limits: Limits) -> None:
    """Answer jobs until the parent closes the pipe or is gone."""
    # Ctrl-C reaches the whole process group: the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # not every system can limit address space
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    connection.send(None)
    while True:
        try:
            payload = connection.recv()
        except (EOFError, OSError):
            return
        # SIGPROF ends the process where it stands, also inside compiled code.
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
        outcome = _attempt(function, payload, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        try:
            connection.send(outcome)
        except MemoryError:
            connection.send(_too_much_memory(limits))


def _attempt(function: Callable[[Any], Any], payload: Any, limits: Limits) -> Outcome:
    """Run the function; any failure of it is that job's reason."""
    try:
        return Outcome(function(payload))
    except MemoryError:
        return _too_much_memory(limits)
    except Exception as error:
        return Outcome(reason=FAILED, detail=f"{type(error).__name__}: {error}"[:500])


def _too_much_memory(limits: Limits) -> Outcome:
    return Outcome(reason=OUT_OF_MEMORY, detail=f"more than {limits.memory_bytes / 2**30:g} GiB")

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
# A guard against waiting for ever; a start takes seconds, with `setup` a few minutes.
START_SECONDS = 1800.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one job.

    Attributes:
      cpu_seconds: processor time; it does not depend on the load of the machine.
      wall_seconds: elapsed time, for a child that waits forever.
      memory_bytes: memory of a child, without memory-mapped files.
    """

    cpu_seconds: float = 10.0
    wall_seconds: float = 60.0
    memory_bytes: int = 2**30


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one job: `value`, or the `reason` why there is none and its `detail`."""

    value: Any = None
    reason: str | None = None
    detail: str = ""


_KILLED = Outcome(reason=OUT_OF_MEMORY, detail="ended by the system")


class _Worker:
    """A child process, its pipe, and the job it is on."""

    def __init__(self, context: Any, *serve: Any) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *serve), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.job: tuple[Any, Any] | None = None
        self.deadline = time.monotonic() + START_SECONDS

    def give(self, job: tuple[Any, Any], limits: Limits) -> None:
        """Start a job (key, payload)."""
        self.job = job
        self.deadline = time.monotonic() + limits.wall_seconds
        self.connection.send(job[1])

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
    setup: Callable[[], None] | None = None,
) -> Generator[tuple[Any, Outcome], None, None]:
    """Yield (key, outcome of `function(payload)`) for each (key, payload) of `jobs`.

    Outcomes are yielded as jobs finish, in no fixed order. A job is taken from `jobs` only when a
    child is free, so that no more payloads than children are in memory. A job whose child was
    killed by the system is retried once, because another child may have used up the memory.

    Args:
      function: a module's top-level function; children import that module.
      jobs: keys and picklable payloads.
      num_workers: child processes.
      limits: of one job.
      preload: modules to import once for all children, beside the function's own.
      setup: called once in each child; no job's time.

    Raises:
      RuntimeError: a child cannot start, or not in `START_SECONDS`.
    """
    limits = limits or Limits()
    context = _context([function.__module__, *preload])
    queue = _Queue(jobs)
    workers: list[_Worker] = []
    try:
        while queue.next is not None or any(worker.job is not None for worker in workers):
            free = [w for w in workers if w.ready and w.job is None]
            while queue.next is not None and free:
                free.pop().give(queue.take(), limits)
            if queue.next is not None and len(workers) < num_workers:
                workers.append(_Worker(context, function, limits, setup))
            for worker in _woken(workers):
                job = worker.job
                outcome, alive = _outcome(worker, limits)
                if not alive:
                    workers.remove(worker)
                if outcome is None or job is None:
                    continue
                if outcome != _KILLED or not queue.again(job):
                    yield job[0], outcome
    finally:
        for worker in workers:
            worker.end()


class _Queue:
    """Jobs to come: `next` is the next one, None at the end."""

    def __init__(self, jobs: Iterable[tuple[Any, Any]]) -> None:
        self._jobs = iter(jobs)
        self._again: list[tuple[Any, Any]] = []
        self._retried: set[Any] = set()
        self.next = next(self._jobs, None)

    def take(self) -> tuple[Any, Any]:
        """Take the next job."""
        job = self.next
        if job is None:
            raise IndexError("no job is left")
        self.next = self._again.pop() if self._again else next(self._jobs, None)
        return job

    def again(self, job: tuple[Any, Any]) -> bool:
        """Put a job back, once; tell whether it was."""
        if job[0] in self._retried:
            return False
        self._retried.add(job[0])
        if self.next is None:
            self.next = job
        else:
            self._again.append(job)
        return True


def _woken(workers: list[_Worker]) -> list[_Worker]:
    """Wait for a message, an exit or a deadline; return the children concerned."""
    waiting = [w for w in workers if w.job is not None or not w.ready]
    nearest = min((w.deadline for w in waiting), default=float("inf"))
    timeout = max(0.0, nearest - time.monotonic()) if nearest != float("inf") else None
    ready = multiprocessing.connection.wait([w.connection for w in waiting], timeout)
    now = time.monotonic()
    return [w for w in waiting if w.connection in ready or w.deadline <= now]


def _outcome(worker: _Worker, limits: Limits) -> tuple[Outcome | None, bool]:
    """Read a child's message; return the outcome, if it is one, and whether the child is alive."""
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
            worker.ready, worker.deadline = True, float("inf")
            return None, True
        worker.job, worker.deadline = None, float("inf")
        outcome = message
        if outcome.reason != OUT_OF_MEMORY:
            return outcome, True
    elif not worker.ready:
        raise RuntimeError(f"a worker process did not start in {START_SECONDS:g} s")
    # A child that ran out of memory may not release it; starting a new one is cheap.
    worker.end()
    return outcome, False


def _death(code: int | None, limits: Limits) -> Outcome:
    """Return why a child ended before it answered."""
    if code == -signal.SIGPROF:
        return Outcome(reason=OUT_OF_TIME, detail=f"{limits.cpu_seconds:g} s of processor time")
    if code == -signal.SIGKILL:
        return _KILLED
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


def _serve(
    connection: Connection,
    function: Callable[[Any], Any],
    limits: Limits,
    setup: Callable[[], None] | None,
) -> None:
    """Limit this process, and answer jobs until the parent closes the pipe or ends."""
    # These reach the whole process group: the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # not every system has these limits
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    with contextlib.suppress(ValueError, OSError):
        # Above that: code and other files that are mapped, and room that is only reserved.
        resource.setrlimit(resource.RLIMIT_AS, (2 * limits.memory_bytes, 2 * limits.memory_bytes))
    if setup is not None:
        setup()
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        connection.send(None)
        while True:
            payload = connection.recv()
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

"""One thread for all calls of the models.

A call uses every core by itself, so that calls in parallel would only slow each other down, and
jax compiles a program once if nobody else asks for it meanwhile. Requests come before the
compilation of further programs, which waits in single steps.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_REQUEST, _BACKGROUND = 0, 1


class Worker:
    """A thread that runs functions one at a time, requests first."""

    def __init__(self) -> None:
        self._jobs: queue.PriorityQueue[tuple[int, int, Future[Any], Callable[[], Any]]]
        self._jobs = queue.PriorityQueue()
        self._numbers = itertools.count()
        # A daemon: the process must not wait for a program that compiles.
        threading.Thread(target=self._serve, name="models", daemon=True).start()

    def run(self, function: Callable[[], T]) -> T:
        """Run a function before all that waits in the background; return or raise as it does."""
        return self.soon(function).result()

    def soon(self, function: Callable[[], T]) -> Future[T]:
        """Run a function before all that waits in the background."""
        return self._put(_REQUEST, function)

    def later(self, function: Callable[[], T]) -> Future[T]:
        """Run a function when no request waits."""
        return self._put(_BACKGROUND, function)

    def _put(self, priority: int, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put((priority, next(self._numbers), future, function))
        return future

    def _serve(self) -> None:
        while True:
            _, _, future, function = self._jobs.get()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

"""Ctrl-C and SIGTERM: the first signal asks for an orderly stop, the second one exits at once."""

from __future__ import annotations

import contextlib
import os
import signal
import types


class StopSignal:
    """Context in which the first SIGINT or SIGTERM is recorded instead of raised.

    A second signal exits at once. It raises nothing, because an exception inside the threads and
    event loops that save a checkpoint would print their tracebacks; files are written under
    another name and renamed, so a process may be killed at any time.

    Attributes:
      received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if self.received is not None:
            _write(2, "error: interrupted\n")
            os._exit(128 + number)
        self.received = signal.Signals(number)
        _write(1, f"{self.received.name}: saving, then stopping; a second signal exits at once\n")

    @property
    def exit_code(self) -> int:
        """Return 128 + the signal's number, as shells do: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + int(self.received or 0)


def _write(descriptor: int, text: str) -> None:
    # Not `print`: the signal may have interrupted one, and buffered output is not reentrant.
    with contextlib.suppress(OSError):
        os.write(descriptor, text.encode())

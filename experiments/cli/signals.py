"""Ctrl-C and SIGTERM: finish the step, save, then leave."""

from __future__ import annotations

import contextlib
import os
import signal
import types


class StopSignal:
    """While entered, remembers the first SIGINT or SIGTERM instead of dying of it.

    A second signal acts at once.

    Attributes:
      received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self.received = signal.Signals(number)
        # Not `print`: the signal may interrupt one, and buffered output is not reentrant.
        text = f"{self.received.name}: saving; once more ends at once\n"
        with contextlib.suppress(OSError):
            os.write(1, text.encode())
        for other, handler in self._before.items():
            signal.signal(other, handler)

    @property
    def exit_code(self) -> int:
        """Return 128 + the signal's number, as shells do: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + int(self.received or 0)

"""End the studio at once on Ctrl-C and SIGTERM: there is nothing to save."""

from __future__ import annotations

import multiprocessing
import os
import signal
import types


def end_on_signals() -> None:
    """Let SIGINT and SIGTERM end the process, even if it was started with them ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def end(number: int, frame: types.FrameType | None = None) -> None:
    """End the process and the children that read uploads; the exit code is 128 + the signal."""
    del frame
    try:
        for child in multiprocessing.active_children():
            child.kill()
        os.write(2, b"studio: stopped\n")
    finally:  # whatever fails, such as writing to a terminal that was closed
        os._exit(128 + number)

"""The first signal is recorded, whatever the process is doing; the second exits at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from experiments.cli.signals import StopSignal

FIRST = "SIGINT: saving, then stopping; a second signal exits at once\n"


class BusyStream:
    """Standard output inside a write, which cannot be entered again."""

    def write(self, text: str) -> int:
        raise RuntimeError("reentrant call inside a buffered writer")

    def flush(self) -> None:
        raise RuntimeError("reentrant call inside a buffered writer")


def test_a_signal_inside_a_print_is_recorded(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with StopSignal() as stop:
        with monkeypatch.context() as patched:
            patched.setattr("sys.stdout", BusyStream())
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        assert stop.exit_code == 130
    assert (
        capfd.readouterr().out == "SIGINT: saving, then stopping; a second signal exits at once\n"
    )


def test_a_closed_output_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(descriptor: int, text: bytes) -> int:
        raise BrokenPipeError

    with StopSignal() as stop:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", closed)
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM


def test_a_second_signal_exits_in_one_line() -> None:
    program = (
        "import os, signal\n"
        "from experiments.cli.signals import StopSignal\n"
        "with StopSignal():\n"
        "    try:\n"
        "        for _ in range(2):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally:\n"
        "        print('an exception was raised', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stdout == FIRST
    assert done.stderr == "error: interrupted\n"

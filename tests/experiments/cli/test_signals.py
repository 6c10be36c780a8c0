"""The first signal is remembered, whatever the process is doing; the second acts at once."""

from __future__ import annotations

import os
import signal

import pytest

from experiments.cli.signals import StopSignal


class BusyStream:
    """Standard output inside a write, which cannot be entered again."""

    def write(self, text: str) -> int:
        raise RuntimeError("reentrant call inside a buffered writer")

    def flush(self) -> None:
        raise RuntimeError("reentrant call inside a buffered writer")


def test_a_signal_inside_a_print_is_remembered(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with StopSignal() as stop:
        with monkeypatch.context() as patched:
            patched.setattr("sys.stdout", BusyStream())
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        assert stop.exit_code == 130
    assert capfd.readouterr().out == "SIGINT: saving; once more ends at once\n"


def test_a_closed_output_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(descriptor: int, text: bytes) -> int:
        raise BrokenPipeError

    with StopSignal() as stop:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", closed)
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM

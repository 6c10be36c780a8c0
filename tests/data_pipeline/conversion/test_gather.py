from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from data_pipeline.conversion import gather, workers


def outcomes_after(event: threading.Event) -> Iterator[tuple[int, workers.Outcome]]:
    assert event.wait(60)
    yield 0, workers.Outcome()


def test_a_silent_start_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = threading.Event()
    say = gather._say_that_it_compiles

    def say_and_tell() -> None:
        say()
        said.set()

    monkeypatch.setattr(gather, "SILENT_SECONDS", 0)
    monkeypatch.setattr(gather, "_say_that_it_compiles", say_and_tell)
    monkeypatch.setattr(workers, "run_isolated", lambda *_, **__: outcomes_after(said))
    assert [index for index, _ in gather.local_executor(1)([])] == [0]
    assert "the first conversion on a machine compiles it" in capsys.readouterr().err


def test_a_quick_start_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = threading.Event()
    started.set()
    monkeypatch.setattr(gather, "SILENT_SECONDS", 3600)
    monkeypatch.setattr(workers, "run_isolated", lambda *_, **__: outcomes_after(started))
    before = set(threading.enumerate())
    assert len(list(gather.local_executor(1)([]))) == 1
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()
    assert capsys.readouterr().err == ""


def test_the_explanation_draws_no_progress_line_into_a_log_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with gather._progress(10):
        gather._say_that_it_compiles()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("starting the MIDI reader")

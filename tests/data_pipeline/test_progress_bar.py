from __future__ import annotations

import sys

import pytest

from data_pipeline import progress_bar


def test_a_log_file_gets_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_bar, "LOG_SECONDS", 0.0)
    with progress_bar.progress_bar(total=4, desc="encoding", miniters=1) as bar:
        for _ in range(4):
            bar.update()
    text = capsys.readouterr().err
    assert "\r" not in text
    lines = text.splitlines()
    assert [line.split("|")[0] for line in lines[-2:]] == ["encoding:  75%", "encoding: 100%"]
    assert all(line.strip() == line for line in lines)


def test_quick_work_writes_nothing_to_a_log_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar.progress_bar(range(1000))) == list(range(1000))
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_that_is_cleared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress_bar, "TERMINAL_SECONDS", 0.0)
    list(progress_bar.progress_bar(range(3), miniters=1))
    text = capsys.readouterr().err
    assert "\n" not in text
    assert text.count("\r") > 3
    assert text.rsplit("\r", 2)[1].strip() == ""

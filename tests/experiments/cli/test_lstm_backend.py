"""Which LSTM implementation `auto` means for a run."""

from __future__ import annotations

import json
import pathlib

import pytest

from experiments.cli import lstm_backend
from musicvae_jax.tasks import get_task


def _decide(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, *, can: bool, given: str = "auto"
) -> str:
    monkeypatch.setattr(lstm_backend, "uses_native", lambda config: can)
    config = get_task("mel_2bar").config.replace(lstm_backend=given)
    return lstm_backend.resolved(config, folder).run.lstm_backend


def test_a_new_run_takes_the_kernel_where_it_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _decide(tmp_path, monkeypatch, can=True) == "native"
    assert _decide(tmp_path, monkeypatch, can=False) == "xla"
    assert _decide(tmp_path, monkeypatch, can=True, given="xla") == "xla"


@pytest.mark.parametrize(
    ("record", "can", "expected"),
    [
        ({"lstm_backend": "xla"}, True, "xla"),
        ({"lstm_backend": "native"}, True, "native"),
        ({"lstm_backend": "native"}, False, "xla"),
        ({}, True, "xla"),  # written before the choice was recorded
    ],
)
def test_a_resumed_run_keeps_its_own(
    record: dict[str, str],
    can: bool,
    expected: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "starts.jsonl").write_text(json.dumps(record) + "\n")
    assert _decide(tmp_path, monkeypatch, can=can) == expected
    warned = "results differ by rounding" in capsys.readouterr().err
    assert warned == (record == {"lstm_backend": "native"} and not can)

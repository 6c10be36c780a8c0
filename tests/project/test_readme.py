"""The README's example runs, and what it names exists."""

from __future__ import annotations

import pathlib
import re

import jax
import numpy as np
import pytest

from data_pipeline.reading import notes
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import TASKS
from tests.support.synthetic_store import write_store

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert example.count("\n") <= 15
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "demo" / "tokens", "mel_2bar")
    sizes = {"z_size": 4, "encoder_sizes": (8,), "decoder_sizes": (8,)}
    config = TASKS["mel_2bar"].config.replace(**sizes)
    params = build_model(config).init(jax.random.key(0))
    with Checkpoints(tmp_path / "demo" / "run", create=True) as checkpoints:
        checkpoints.save(1, params, {"count": np.zeros(1)}, config)

    found: dict[str, np.ndarray] = {}
    exec(compile(example, "README.md", "exec"), found)
    shapes = {
        "mu": (4, 4),
        "sigma": (4, 4),
        "again": (4, 32),
        "logits": (4, 32, 90),
        "new": (8, 32),
        "path": (9, 32),
        "elbo": (4,),
        "bound": (4,),
    }
    assert {name: found[name].shape for name in shapes} == shapes
    assert capsys.readouterr().out.startswith("steps that are equal: ")
    (unit,) = notes.read_segments("path.mid", (tmp_path / "path.mid").read_bytes())
    assert unit.sequence is not None


def test_the_task_table_is_complete() -> None:
    section = README.split("## Tasks\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if re.match(r"\| `\w+_\d+bar` ", line)]
    assert [line.split("`")[1] for line in rows] == list(TASKS)
    flagfiles = {path.stem for path in (ROOT / "experiments" / "flagfiles").glob("*_*bar_*.flags")}
    named = {name for line in rows for name in re.findall(r"`(\w+_\d+bar_\w+)`", line)}
    assert named == flagfiles


def test_named_commands_exist() -> None:
    modules = set(re.findall(r"python -m ([\w.]+)", README))
    assert len(modules) >= 4
    for module in modules:
        path = ROOT / f"{module.replace('.', '/')}.py"
        assert '__name__ == "__main__"' in path.read_text(encoding="utf-8")

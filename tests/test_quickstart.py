"""The notebook of the documentation runs from its first cell to its last."""

from __future__ import annotations

import os
import pathlib
import sys

import nbclient
import nbformat
import pytest

from data_pipeline.reading import notes
from musicvae_jax.storage import run_folder

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = f"#!{sys.executable}\nfrom experiments.cli.main import main\nmain()\n"


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Give a folder to run in, with the command `musicvae` on the path."""
    script = tmp_path / "bin" / "musicvae"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Hundreds of steps: here optimised programs are faster in the end.
    for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(folder: pathlib.Path) -> None:
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # kept without outputs
    client = nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(folder)}})
    client.execute()

    made = folder / "quickstart"
    assert run_folder.read_config(made / "run").run.train_steps == 500
    assert (made / "path.png").read_bytes().startswith(b"\x89PNG")
    (unit,) = notes.read_units("new.mid", (made / "new.mid").read_bytes())
    assert unit.sequence is not None
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "done: 500 steps" in printed
    assert "error:" not in printed
    share = float(printed.split("share of equal tokens: ")[1].split()[0])
    assert share > 0.9

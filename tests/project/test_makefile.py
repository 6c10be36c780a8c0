"""How the environment is made; skipped where make is not installed."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDS_MAKE = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(
    tmp_path: pathlib.Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run make for a virtual environment in a folder of the test."""
    # What a make that runs these tests was given must not reach this one.
    ours = ("MAKE", "MFLAGS", "PYTHON")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    venv = tmp_path / "venv"
    command = ["make", f"VENV={venv}", *arguments, str(venv / "bin" / "python")]
    env = inherited | environment
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def shim(folder: pathlib.Path, name: str, script: str) -> None:
    """Put a program of that name into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.slow
@NEEDS_MAKE
def test_a_python_that_only_complains_is_passed_over(tmp_path: pathlib.Path) -> None:
    programs = tmp_path / "bin"
    shim(programs, "python3.12", "echo 'command not found' >&2; exit 127")
    shim(programs, "python3.11", f'exec "{sys.executable}" "$@"')
    done = make(tmp_path, PATH=f"{programs}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert "making " in done.stdout
    found = subprocess.run([tmp_path / "venv" / "bin" / "python", "-c", "import pip"], check=False)
    assert found.returncode == 0


@NEEDS_MAKE
def test_without_a_fitting_python_one_line_says_what_to_do(tmp_path: pathlib.Path) -> None:
    shim(tmp_path, "python2", "exit 1")
    done = make(tmp_path, f"PYTHON={tmp_path / 'python2'}")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert line.startswith("error: none of ")
    assert "make PYTHON=/path/to/python3.11" in line

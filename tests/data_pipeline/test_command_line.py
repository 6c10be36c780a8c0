from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys

import pytest

from data_pipeline.command_line import shell_line

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def interpreter(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Pretend that this process runs a Python of an environment in the current folder."""
    path = tmp_path / "an env" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.setattr(sys, "orig_argv", [str(path), "-m", "experiments.train"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return path


def test_the_python_of_an_entered_environment_is_called_by_its_name(
    interpreter: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{interpreter.parent}:/usr/bin:/bin")
    assert shell_line("experiments.train", ["--a=1"]) == "python -m experiments.train --a=1"


def test_a_python_that_is_not_on_the_path_is_called_by_its_path(
    interpreter: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell_line("experiments.train") == "'an env/bin/python' -m experiments.train"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shell_line("experiments.train") == f"'{interpreter}' -m experiments.train"


def test_the_console_command_is_shown_when_it_was_used(
    interpreter: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = interpreter.with_name("musicvae")
    script.write_text("")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "orig_argv", [str(interpreter), str(script), "train"])
    assert shell_line("data_pipeline.prepare") == "'an env/bin/musicvae' prepare"
    monkeypatch.setenv("PATH", f"{interpreter.parent}:/usr/bin:/bin")
    assert shell_line("data_pipeline.prepare") == "musicvae prepare"


def test_a_line_gives_the_shell_the_same_words_and_can_be_pasted(
    interpreter: pathlib.Path,
) -> None:
    words = ["--run_dir=my runs/a'b", "--note=$HOME *"]
    line = shell_line("json.tool", ["--help"])
    assert shlex.split(shell_line("experiments.evaluate", words))[-2:] == words
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "JSON" in done.stdout

"""The console command `musicvae`, as pip writes it, and as a wheel installs it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from experiments.cli import main, presets

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = (
    f"#!{sys.executable}\nimport sys\nfrom experiments.cli.main import main\nsys.exit(main())\n"
)


def run(
    script: pathlib.Path, *arguments: str, folder: pathlib.Path, packages: pathlib.Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run the console command in a folder."""
    env = os.environ | {"PYTHONPATH": str(packages)}
    return subprocess.run(
        [script, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def script(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "bin" / "musicvae"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Make a folder with packages named as ours."""
    for name in ("experiments", "data_pipeline", "musicvae_jax"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    return tmp_path / "work"


def test_the_commands_are_listed(script: pathlib.Path, folder: pathlib.Path) -> None:
    for arguments in ((), ("--help",)):
        done = run(script, *arguments, folder=folder)
        assert (done.returncode, done.stderr) == (0, "")
        listed = done.stdout.split("Commands:\n")[1].splitlines()
        names = [line.split()[0] for line in listed]
        assert names == list(main.commands())
        assert {"prepare", "presets", "train", "evaluate", "generate", "demo"} <= set(names)
        assert all(line.endswith((".", ":")) for line in listed)
        assert max(map(len, listed)) <= 100


def test_a_misspelt_command_ends_with_one_line(script: pathlib.Path, folder: pathlib.Path) -> None:
    done = run(script, "trian", folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no command 'trian': did you mean train?\n"
    assert "`musicvae --help` lists" in run(script, "xyz", folder=folder).stderr


@pytest.mark.slow
def test_a_sub_command_is_the_module_also_beside_a_folder_experiments(
    script: pathlib.Path, folder: pathlib.Path
) -> None:
    ours = run(script, "train", "--help", folder=folder)
    module = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ours.returncode, ours.stderr) == (0, "")
    assert ours.stdout == module.stdout
    wrong = run(script, "train", "--no_such_flag=1", folder=folder)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_commands_that_start_others_find_ours(script: pathlib.Path, folder: pathlib.Path) -> None:
    # Without the music of the package's models, which comes first and takes longer.
    no_models = "from musicvae_jax.pretrained import packaged\npackaged.names = list\n"
    script.write_text(SCRIPT.replace("sys.exit", f"{no_models}sys.exit"))
    done = run(script, "demo", "--input=no_such_folder", folder=folder)
    assert done.returncode == 2
    assert done.stderr == "error: input: there is no file or folder no_such_folder\n"
    shown = [line for line in done.stdout.splitlines() if line.startswith("$ ")][-1]
    assert shown.startswith(f"$ {script} prepare --input=no_such_folder --task=mel_2bar")


@pytest.mark.slow
def test_a_wheel_has_the_command_and_the_presets(
    tmp_path: pathlib.Path, folder: pathlib.Path
) -> None:
    source = tmp_path / "source"
    unwanted = shutil.ignore_patterns(".*", "tests", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=unwanted)
    quiet = ("-q", "--no-deps", "--no-index", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip")
    wheel = (*pip, "wheel", *quiet, "--no-build-isolation", "-w", str(tmp_path), str(source))
    subprocess.run(wheel, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.whl")
    target = tmp_path / "installed"
    subprocess.run((*pip, "install", *quiet, "--target", str(target), str(built)), check=True)
    script = target / "bin" / "musicvae"
    done = run(script, "presets", folder=folder, packages=target)
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split()[0] for line in done.stdout.splitlines()[1:-1]]
    assert listed == presets.names()
    (folder / "empty").mkdir()
    wrong = run(script, "train", "--preset=demo", "--data_dir=empty", "--run_dir=r",
                folder=folder, packages=target)  # fmt: skip
    assert wrong.stderr.startswith("error: ")
    assert "flagfile" not in wrong.stderr

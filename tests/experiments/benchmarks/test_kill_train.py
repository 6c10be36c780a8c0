"""Training killed at any moment resumes to the same bits; a full disk costs nothing saved.

`experiments.benchmarks.kill_train` does it more often.
"""

from __future__ import annotations

import pathlib
import shutil

import pytest

from experiments.benchmarks import kill_train
from experiments.benchmarks.kill_train import KINDS, MODEL
from musicvae_jax.storage import checkpoints
from tests.support.commands import run_python


@pytest.mark.slow
def test_kills_change_nothing_and_a_full_disk_costs_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    kill_train.write_rows(tmp_path / "rows")
    # One test: what comes after needs the run and the compiled programs of what comes before.
    _assert_kills_change_nothing(tmp_path)
    _assert_what_differs_is_seen(tmp_path)
    _assert_a_full_disk_ends_with_one_line_and_keeps_what_was_saved(tmp_path)


def _assert_kills_change_nothing(folder: pathlib.Path) -> None:
    trial = kill_train.kill_often(folder / "rows", folder, KINDS, seed=0)
    assert trial.differing == ()
    kills, last = trial.processes[:-1], trial.processes[-1]
    assert {kill.kind for kill in kills} == set(KINDS)
    assert kills[0].kind == KINDS[0]
    assert kills[0].first_step == kills[1].first_step == 0
    # Steps were made before and after each kill, and later ones resume from what was saved.
    assert all(process.last_step > process.first_step for process in trial.processes)
    assert last.first_step > 0
    assert all(kill.last_step * 16 % 70 for kill in kills)  # in the middle of an epoch


def _assert_what_differs_is_seen(folder: pathlib.Path) -> None:
    shutil.copytree(folder / "whole", folder / "other")
    lines = (folder / "other" / "metrics.jsonl").read_text()
    (folder / "other" / "metrics.jsonl").write_text(lines.replace('"step": 3,', '"step": 4,'))
    assert kill_train.differences(folder / "whole", folder / "other") == ["metrics.jsonl"]


def _assert_a_full_disk_ends_with_one_line_and_keeps_what_was_saved(folder: pathlib.Path) -> None:
    run_dir = folder / "full"
    shutil.copytree(folder / "whole", run_dir)
    step = checkpoints.restore_params(run_dir, "latest")[2]

    (run_dir / "metrics.jsonl").unlink()  # it is to be the checkpoint that does not fit
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    done = run_python(
        *("-c", limited, "-m", "experiments.train", *MODEL, f"--data_dir={folder / 'rows'}"),
        *(f"--run_dir={run_dir}", f"--train_steps={step + 3}"),
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: run_dir: no space left for the checkpoint of step {step + 3} in {run_dir}, that "
        f"of step {step} is kept; free some, then run the same command again\n"
    )
    assert checkpoints.restore_params(run_dir, "latest")[2] == step
    checkpoints.Checkpoints(run_dir, create=True).close()  # as the same command does
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == [str(step)]

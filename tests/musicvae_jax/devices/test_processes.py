"""Two processes that train one model over the loopback."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

import pytest

from experiments.cli import multihost
from musicvae_jax.config import InputError
from musicvae_jax.devices import processes
from tests.support.commands import HANGS_SECONDS, run_here
from tests.support.synthetic_store import write_store

MODEL = (
    "--encoder_sizes=8",
    "--decoder_sizes=8",
    "--z_size=4",
    "--batch_size=16",
    "--sampling_schedule=constant",
    "--sampling_rate=0.5",
    "--dtype=float32",
    "--init=default",
    "--log_every=1",
    "--eval_every=4",
    "--save_every=3",
    "--steps_per_dispatch=2",
)


def _arguments(run_dir: pathlib.Path, steps: int, *more: str) -> list[str]:
    store = f"--data_dir={run_dir.parent / 'store'}"
    return [*MODEL, store, *more, f"--run_dir={run_dir}", f"--train_steps={steps}"]


def _start(run_dir: pathlib.Path, steps: int, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *_arguments(run_dir, steps, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def _start_two(run_dir: pathlib.Path, steps: int, *more: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = ("--multihost", f"--coordinator_address=localhost:{port}", "--num_processes=2", *more)
    return [_start(run_dir, steps, *common, f"--process_id={number}") for number in range(2)]


def _records(run_dir: pathlib.Path) -> dict[tuple[int, str], float]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    records = map(json.loads, lines)
    return {(record["step"], record["split"]): record["loss"] for record in records}


@pytest.mark.slow
def test_two_processes_are_one_and_end_and_resume_together(tmp_path: pathlib.Path) -> None:
    write_store(tmp_path / "store", "mel_2bar", {"train": 40, "validation": 11, "test": 0})
    two, one = tmp_path / "two", tmp_path / "one"
    first, second = _start_two(two, 1_000_000, "--param_sharding=fsdp")
    assert first.stdout is not None
    for line in first.stdout:
        if line.endswith(" saved\n"):
            break
    second.kill()
    _, errors = first.communicate(timeout=HANGS_SECONDS)
    assert first.returncode != 0
    assert errors == multihost.LOST + "\n"
    second.communicate()

    steps = (
        max(
            int(path.name) for path in (two / "checkpoints").glob("[0-9]*") if path.name.isdecimal()
        )
        + 5
    )
    ended = [process.communicate(timeout=HANGS_SECONDS) for process in _start_two(two, steps)]
    assert "device: 2 x cpu" in ended[0][0]
    assert "(on the host)" in ended[0][0]
    assert "resuming after step" in ended[0][0]
    assert f"done: {steps:,} steps" in ended[0][0]
    assert ended[0][1] == ""
    assert ended[1] == ("", "")

    alone = run_here("experiments.train", *_arguments(one, steps))
    assert alone.returncode == 0, alone.stderr
    expected, found = _records(one), _records(two)
    assert found.keys() >= {(step, "train") for step in range(1, steps + 1)}
    assert {key: expected[key] for key in found} == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_processes": 2}, "num_processes is for --multihost"),
        ({"process_id": 0}, "process_id is for --multihost"),
        ({"multihost": True, "process_id": -1}, "process_id: -1 is out of range"),
        ({"multihost": True, "num_processes": 0}, "num_processes: 0 is out of range"),
    ],
)
def test_wrong_options_of_several_processes_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        multihost.MachineOptions(**fields)


def test_one_process_decides_by_itself() -> None:
    assert processes.broadcast_from_first(7) == 7
    assert processes.is_first()
    processes.wait_for_all("here")
    processes.check_same("text", "flags")
    assert not processes.is_lost_process(ValueError("Gloo all-reduce failed"))


def test_processes_that_cannot_meet_say_so(tmp_path: pathlib.Path) -> None:
    write_store(tmp_path / "store", "mel_2bar", {"train": 40, "validation": 0, "test": 0})
    process = _start(tmp_path / "run", 3, "--multihost")
    _, errors = process.communicate(timeout=HANGS_SECONDS)
    assert process.returncode == 2
    assert errors.startswith("error: multihost: the processes did not find each other: ")
    assert errors.count("\n") == 1
    assert "--coordinator_address=HOST:PORT" in errors
    assert not (tmp_path / "run").exists()

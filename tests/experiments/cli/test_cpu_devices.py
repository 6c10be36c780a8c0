"""The number of devices that a CPU is divided into."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from experiments.cli import cpu_devices
from musicvae_jax.config import Config, InputError
from musicvae_jax.models import native
from musicvae_jax.tasks import get_task
from tests.support.commands import run_command
from tests.support.synthetic_store import write_store


def _config(units: int = 64, batch_size: int = 64) -> Config:
    config = get_task("mel_2bar").config
    model = dataclasses.replace(config.model, encoder_sizes=(units,), decoder_sizes=(units,))
    train = dataclasses.replace(config.train, batch_size=batch_size)
    return dataclasses.replace(config, model=model, train=train)


@pytest.mark.parametrize(
    ("units", "batch_size", "cores", "count"),
    [(64, 64, 2, 2), (192, 64, 2, 2), (256, 64, 2, 1), (64, 64, 4, 1), (64, 63, 1, 1)],
)
def test_small_models_take_one_device_per_core(
    units: int, batch_size: int, cores: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "lanes", lambda: 0)
    assert cpu_devices.suitable(_config(units, batch_size), cores) == count


def _not_compiled() -> int:
    raise AssertionError("compiled before JAX is known to run on a CPU")


def test_models_of_the_native_kernel_take_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "lanes", lambda: 16)
    monkeypatch.setattr(native, "load", _not_compiled)
    config = _config(64, 64)
    assert cpu_devices.suitable(config, 2) == 1
    assert cpu_devices.suitable(config.replace(lstm_backend="xla"), 2) == 2
    for multiplies_fast, count in ((True, 2), (False, 1)):
        monkeypatch.setattr(native, "multiplies_bfloat16_fast", lambda fast=multiplies_fast: fast)
        assert cpu_devices.suitable(config.replace(dtype="bfloat16"), 2) == count
    assert cpu_devices.suitable(_config(40, 64), 2) == 2  # no multiple of 16


def _started(folder: pathlib.Path, kinds: list[str]) -> pathlib.Path:
    line = json.dumps({"machine": {"devices": kinds}})
    (folder / "starts.jsonl").write_text(line + "\n")
    return folder


def test_a_resumed_run_keeps_its_number(tmp_path: pathlib.Path) -> None:
    folder = _started(tmp_path, ["cpu", "cpu", "cpu"])
    assert cpu_devices.number("auto", _config(), folder, cores=2) == 3
    assert cpu_devices.number("3", _config(), folder, cores=2) == 3
    with pytest.raises(InputError, match="trained with 3"):
        cpu_devices.number("2", _config(), folder, cores=2)


def test_a_run_of_a_gpu_may_resume_on_any_number(tmp_path: pathlib.Path) -> None:
    folder = _started(tmp_path, ["NVIDIA H100"])
    assert cpu_devices.number("2", _config(), folder, cores=2) == 2


@pytest.mark.parametrize("choice", ["0", "-1", "two", ""])
def test_what_is_no_number_is_refused(choice: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="must be auto or a whole number"):
        cpu_devices.number(choice, _config(), tmp_path, cores=2)


def test_the_environment_has_precedence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=5")
    assert cpu_devices.number("auto", _config(), tmp_path, cores=2) is None


@pytest.mark.slow
def test_the_command_divides_the_cpu_and_resumes_so(tmp_path: pathlib.Path) -> None:
    store = write_store(tmp_path / "store", "mel_2bar", {"train": 40, "validation": 8, "test": 0})
    run = tmp_path / "run"
    flags = [f"--data_dir={store}", f"--run_dir={run}", "--encoder_sizes=4", "--decoder_sizes=4"]
    flags += ["--z_size=2", "--batch_size=16", "--save_every=1", "--eval_every=100"]
    # As in all tests, but without a number of devices that the caller may have set.
    fast = "--xla_cpu_use_fusion_emitters=false"
    for more in (["--cpu_devices=4", "--train_steps=1"], ["--train_steps=2"]):
        done = run_command("experiments.train", *flags, *more, XLA_FLAGS=fast, JAX_PLATFORMS="cpu")
        assert done.returncode == 0, done.stderr
    starts = [json.loads(line) for line in (run / "starts.jsonl").read_text().splitlines()]
    assert [start["machine"]["devices"] for start in starts] == [["cpu"] * 4] * 2

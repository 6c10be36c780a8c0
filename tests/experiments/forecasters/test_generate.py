"""Generating with a forecaster, and continuing what a user types."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from experiments import generate
from experiments.generate import Options
from musicvae_jax.config import InputError
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import TASKS

TASK = TASKS["mel_2bar"]
NOTES = "60 _ 62 _ 64 65 67 69 71 72"
ROW = [41, 0, 43, 0, 45, 46, 48, 50, 52, 53]


def _run(folder: pathlib.Path, architecture: str) -> str:
    """Write a run folder with one checkpoint of a tiny untrained model."""
    sizes = {"z_size": 4, "encoder_sizes": (8,), "decoder_sizes": (8,)}
    config = TASK.config.replace(architecture=architecture, **sizes, init="default")
    with Checkpoints(folder, create=True) as checkpoints:
        params = jax.jit(build_model(config).init)(jax.random.key(0))
        checkpoints.save(1, params, {"count": np.zeros(1)}, config)
    return str(folder)


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _run(tmp_path_factory.mktemp("run"), "lstm_forecaster")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _run(tmp_path_factory.mktemp("run"), "flat")


def _options(run_dir: str, output: Any = "music", **given: Any) -> Options:
    return Options(run_dir=run_dir, output=str(output), **given)


def _arrays(folder: pathlib.Path, mode: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{mode}.npz") as arrays:
        return dict(arrays)


def test_a_forecaster_continues_typed_notes(
    forecaster: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"mode": "continue", "notes": NOTES, "bars": 1, "temperature": 1.0}
    written = generate.generate(_options(forecaster, tmp_path, **asked))
    assert [path.name for path in written] == ["continue_1.mid", "continue.npz", "continue.png"]
    arrays = _arrays(tmp_path, "continue")
    assert sorted(arrays) == ["inputs", "tokens"]
    np.testing.assert_array_equal(arrays["inputs"], [ROW])
    assert arrays["tokens"].shape == (1, 16)
    assert "notes: 10 steps" in capsys.readouterr().out
    again = generate.generate(_options(forecaster, tmp_path / "again", **asked))
    assert again[0].read_bytes() == written[0].read_bytes()


def test_a_vae_continues_typed_notes(vae: str, tmp_path: pathlib.Path) -> None:
    asked = {"mode": "continue", "notes": NOTES, "bars": 3, "formats": ("midi",)}
    generate.generate(_options(vae, tmp_path, **asked))
    arrays = _arrays(tmp_path, "continue")
    np.testing.assert_array_equal(arrays["inputs"], [ROW])
    assert arrays["tokens"].shape == (1, 48)
    assert arrays["z"].shape == (1, 4)


def test_without_a_seed_a_forecaster_samples_rows(forecaster: str, tmp_path: pathlib.Path) -> None:
    generate.generate(
        _options(forecaster, tmp_path, mode="sample", num=3, temperature=1.0, formats=("midi",))
    )
    tokens = _arrays(tmp_path, "sample")["tokens"]
    assert tokens.shape == (3, 32)
    assert len({row.tobytes() for row in tokens}) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"mode": "reconstruct", "inputs": ("a.mid",)},
            "mode: lstm_forecaster has no latent space: use --mode=continue or --mode=sample",
        ),
        (
            {"mode": "sample", "prior": "standard"},
            "prior: not used by lstm_forecaster, which has no latent space",
        ),
        (
            {"mode": "continue", "notes": NOTES, "drift": 0.1},
            "drift: not used by lstm_forecaster, which has no latent space",
        ),
        ({"mode": "continue", "notes": "60 x"}, "notes: word 2, 'x', must be a pitch"),
    ],
)
def test_what_a_forecaster_cannot_do_is_refused(
    forecaster: str, tmp_path: pathlib.Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generate.generate(_options(forecaster, tmp_path / "music", **given))
    assert not (tmp_path / "music").exists()


def test_notes_are_only_continued() -> None:
    with pytest.raises(InputError, match="notes: not used by --mode=sample"):
        _options("run", mode="sample", notes=NOTES)
    with pytest.raises(InputError, match="notes: give only one of --notes, --input and --data_dir"):
        _options("run", mode="continue", notes=NOTES, inputs=("a.mid",))

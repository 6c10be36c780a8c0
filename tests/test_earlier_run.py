"""Run folders, checkpoints and token stores written at commit 419b028 keep working.

`golden/earlier_run.tar.gz` holds a store, a run of six steps on it, and what that commit computed:
posterior, logits and greedy tokens of the test rows, and the posterior after resuming to step 9.
"""

from __future__ import annotations

import json
import pathlib
import tarfile

import numpy as np
import pytest

from musicvae_jax import MusicVAE
from tests.support.commands import ROOT, run_here

ARCHIVE = ROOT / "tests" / "golden" / "earlier_run.tar.gz"
# The flags that the run was started with, but for --train_steps, which was 6.
FLAGS = (
    "--task=mel_2bar",
    "--data_dir=store",
    "--run_dir=run",
    "--encoder_sizes=8",
    "--decoder_sizes=8",
    "--z_size=4",
    "--batch_size=8",
    "--sampling_schedule=constant",
    "--sampling_rate=0",
    "--dtype=float32",
    "--log_every=1",
    "--eval_every=3",
    "--save_every=3",
    "--train_steps=9",
)


@pytest.fixture
def earlier(tmp_path: pathlib.Path) -> pathlib.Path:
    """Unpack the folder with `store`, `run` and `expected.npz`."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "earlier_run"


@pytest.fixture
def expected(earlier: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(earlier / "expected.npz") as arrays:
        return dict(arrays)


def test_a_run_written_earlier_is_restored(
    earlier: pathlib.Path, expected: dict[str, np.ndarray]
) -> None:
    vae = MusicVAE.restore(earlier / "run")
    rows = np.asarray(np.load(earlier / "store" / "test.npy"))
    mu, sigma = map(np.asarray, vae.encode(rows))
    np.testing.assert_allclose(mu, expected["mu"], atol=1e-5)
    np.testing.assert_allclose(sigma, expected["sigma"], atol=1e-5)
    np.testing.assert_allclose(
        np.asarray(vae.logits(mu, rows))[:, ::8], expected["logits"], atol=1e-5
    )
    np.testing.assert_array_equal(vae.decode(mu), expected["greedy"])


@pytest.mark.slow
def test_a_run_written_earlier_resumes(
    earlier: pathlib.Path, expected: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(earlier)
    done = run_here("experiments.train", *FLAGS)
    assert done.returncode == 0, done.stderr
    records = map(json.loads, (earlier / "run" / "metrics.jsonl").read_text().splitlines())
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, 10))
    vae = MusicVAE.restore(earlier / "run", checkpoint="latest")
    mu, sigma = vae.encode(np.load(earlier / "store" / "test.npy"))
    # Adam's first steps enlarge the rounding of another processor's sums.
    np.testing.assert_allclose(mu, expected["mu_step9"], atol=2e-3)
    np.testing.assert_allclose(sigma, expected["sigma_step9"], atol=2e-3)

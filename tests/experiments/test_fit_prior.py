"""Fitting a prior: at the end of training, and by its own command."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from experiments import fit_prior, train
from experiments.cli.run_options import choose_prior
from experiments.encoding import prior
from experiments.generation.options import Options
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.latent import fitted_prior
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.priors import Flow
from musicvae_jax.storage import checkpoints
from tests.support.commands import run_here
from tests.support.synthetic_store import write_store

SIZES = ("--encoder_sizes=4", "--decoder_sizes=4", "--z_size=2", "--batch_size=16")


def _run(*arguments: str, code: int = 0) -> str:
    done = run_here(*arguments)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    folder = tmp_path_factory.mktemp("prior")
    counts = {"train": 1_000, "validation": 60, "test": 0}
    store = write_store(folder / "store", "mel_2bar", counts)
    folders = (f"--data_dir={store}", f"--run_dir={folder / 'run'}")
    text = _run("experiments.train", *folders, *SIZES, "--train_steps=2", "--eval_every=2")
    return folder, text


def test_training_ends_with_a_fitted_prior(trained: tuple[pathlib.Path, str]) -> None:
    folder, text = trained
    record = fitted_prior.load(folder / "run")
    assert record is not None
    assert record.step == 2
    assert f"fitting a prior to the latent vectors of 1,000 rows\n{prior.describe(record)}" in text
    assert (record.about["rows"], record.about["held_out_rows"]) == (1_000, 60)


def test_a_finished_run_keeps_its_prior_without_reading_parameters(
    trained: tuple[pathlib.Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = trained
    before = (folder / "run" / fitted_prior.FILE).read_bytes()
    monkeypatch.delattr(checkpoints, "restore_params")
    train._fit_prior(folder / "run", data.open_store(folder / "store"))
    assert (folder / "run" / fitted_prior.FILE).read_bytes() == before


def test_the_command_makes_the_same_prior(trained: tuple[pathlib.Path, str]) -> None:
    folder, _ = trained
    before = fitted_prior.load(folder / "run")
    (folder / "run" / fitted_prior.FILE).unlink()
    text = _run("experiments.fit_prior", f"--run_dir={folder / 'run'}")
    after = fitted_prior.load(folder / "run")
    assert before is not None
    assert after is not None
    assert [a.tolist() for a in after.prior] == [b.tolist() for b in before.prior]
    assert "N(0, I)" in text


def test_the_command_fits_a_flow(trained: tuple[pathlib.Path, str], tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0] / "run", run)
    arguments = (f"--run_dir={run}", "--family=flow", "--steps=3")
    text = _run("experiments.fit_prior", *arguments, f"--data_dir={trained[0] / 'store'}")
    record = fitted_prior.load(run)
    assert record is not None
    assert set(record.about["held_out_log_likelihood"]) == {"standard", "flow"}
    assert isinstance(record.prior, Flow)
    assert "prior: a flow fitted to the latent vectors of 1,000 rows" in text
    assert f"{'flow':>12}{record.about['held_out_log_likelihood']['flow']:24.2f}" in text
    assert MusicVAE.restore(run).sample(2, key=0).shape == (2, 32)
    text = _run("experiments.fit_prior", f"--run_dir={run}", "--family=copula", code=2)
    assert "family: 'copula' is not one of mixture, flow" in text
    text = _run("experiments.fit_prior", f"--run_dir={run}", "--steps=3", code=2)
    assert text == "error: steps: has no effect with --family=mixture; leave it out\n"


def test_too_few_rows_are_refused(trained: tuple[pathlib.Path, str]) -> None:
    folder, _ = trained
    store = data.open_store(
        write_store(folder / "few", "mel_2bar", {"train": 999, "validation": 9, "test": 0})
    )
    vae = MusicVAE.restore(folder / "run")
    with pytest.raises(InputError, match="999 training rows, at least 1,000 are needed"):
        prior.fit_run(folder, vae, 2, store)
    text = _run("experiments.fit_prior", f"--run_dir={folder / 'run'}", "--rows=10", code=2)
    assert text == "error: rows: 10 is out of range, it must be 1000 or more\n"


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed: -1 is out of range"):
        fit_prior.Options(run_dir="run", seed=-1)


def test_samples_come_from_the_fitted_prior(trained: tuple[pathlib.Path, str]) -> None:
    folder, _ = trained
    record = fitted_prior.load(folder / "run")
    assert record is not None
    place = [f"--run_dir={folder / 'run'}", "--mode=sample", "--num=3", "--format=midi"]
    texts, points = {}, {}
    for name in ("default", "fitted", "standard"):
        given = [] if name == "default" else [f"--prior={name}"]
        output = folder / name
        texts[name] = _run("experiments.generate", *place, *given, f"--output={output}")
        points[name] = np.load(output / "sample.npz")["z"]
    z_key, _ = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(points["default"], points["fitted"])
    np.testing.assert_array_equal(points["fitted"], fitted_prior.sample(record.prior, z_key, 3))
    np.testing.assert_array_equal(points["standard"], jax.random.normal(z_key, (3, 2)))
    assert "fitted prior" in texts["default"]
    assert "fitted prior" not in texts["standard"]


def test_a_prior_of_another_checkpoint_is_not_used(
    trained: tuple[pathlib.Path, str],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0] / "run", run)
    options = Options(run_dir=str(run), mode="sample", output="-")
    assert choose_prior(options, MusicVAE.restore(run)) == "fitted"
    record = fitted_prior.load(run)
    assert record is not None
    fitted_prior.save(run, record._replace(step=3))
    vae = MusicVAE.restore(run)
    assert vae.prior is None
    assert choose_prior(options, vae) == "standard"
    assert "the fitted prior is of step 3, so N(0, I) is used" in capsys.readouterr().out
    with pytest.raises(InputError, match="has no fitted prior of step 2; make it with"):
        choose_prior(dataclasses.replace(options, prior="fitted"), vae)


def test_only_modes_that_draw_take_a_prior() -> None:
    given: dict[str, Any] = {"run_dir": "run", "output": "-", "mode": "long"}
    assert Options(**given).draws_from_prior
    assert not Options(**given, data_dir="store").draws_from_prior  # through its rows
    with pytest.raises(InputError, match="--mode=reconstruct does not draw from the prior"):
        Options(**given | {"mode": "reconstruct"}, prior="fitted", data_dir="-")


@pytest.mark.slow
def test_every_command_that_samples_takes_the_fitted_prior(
    trained: tuple[pathlib.Path, str], tmp_path: pathlib.Path
) -> None:
    folder, _ = trained
    place = [f"--run_dir={folder / 'run'}", f"--output={tmp_path}"]
    commands = {
        "analyze": ("--split=validation", "--num=32"),
        "attributes": ("--num=8",),
    }
    for name, more in commands.items():
        assert "samples from the fitted prior" in _run(f"experiments.{name}", *place, *more)
        standard = _run(f"experiments.{name}", *place, *more, "--prior=standard")
        assert "samples from N(0, I)" in standard
    continued = [f"--data_dir={folder / 'store'}", "--split=validation", "--mode=continue"]
    continued += ["--num=1", "--bars=2", "--drift=1", "--format=midi", "--overwrite"]
    for prior_name in ("fitted", "standard"):
        text = _run("experiments.generate", *place, *continued, f"--prior={prior_name}")
        assert ("prior: the fitted prior" in text) == (prior_name == "fitted")

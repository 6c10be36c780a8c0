"""Dense models in the one training loop and the commands."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import export, generate
from musicvae_jax import data, evaluation, objectives
from musicvae_jax.config import Config, InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.storage import run_folder
from musicvae_jax.sweep.runs import Point, fit_points
from musicvae_jax.tasks import get_task
from musicvae_jax.training import loop
from tests.musicvae_jax.models.dense.test_dense_vae import SIZES
from tests.support.listener import Listener
from tests.support.synthetic_store import write_store

NAMES = ("dense_vae", "stacked_vae")
RUN: dict[str, Any] = {
    "batch_size": 8,
    "dropout": 0.5,
    "train_steps": 7,
    "log_every": 2,
    "eval_every": 4,
    "save_every": 3,
    "steps_per_dispatch": 2,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> data.Store:
    return data.open_store(write_store(tmp_path_factory.mktemp("data") / "store", "mel_2bar"))


@pytest.fixture(scope="module", params=NAMES)
def run(
    request: pytest.FixtureRequest, store: data.Store, tmp_path_factory: pytest.TempPathFactory
) -> str:
    folder = tmp_path_factory.mktemp("trained") / "run"
    _fit(_config(architecture=request.param), store, folder)
    return str(folder)


def _config(**fields: Any) -> Config:
    return get_task("mel_2bar").config.replace(**(SIZES | RUN | fields))


def _fit(
    config: Config, store: data.Store, folder: pathlib.Path, stop_after: int = 1000
) -> loop.Outcome:
    asked = iter(range(stop_after))
    run = run_folder.open_run_folder(folder, config, store)
    return loop.fit(
        config, store, str(run), Listener(), should_stop=lambda: next(asked, None) is None
    )


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal(store: data.Store, tmp_path: pathlib.Path) -> None:
    config = _config(architecture="dense_vae")
    whole = _fit(config, store, tmp_path / "whole")
    assert _fit(config, store, tmp_path / "run", stop_after=2).stopped
    resumed = _fit(config, store, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)


@pytest.mark.slow
def test_a_sweep_equals_single_runs(store: data.Store, tmp_path: pathlib.Path) -> None:
    configs = [
        _config(learning_rate=rate, beta=beta) for rate in (1e-3, 1e-2) for beta in (0.1, 1.0)
    ]
    points = []
    for number, config in enumerate(configs):
        folder = run_folder.open_run_folder(tmp_path / str(number), config, store)
        points.append(Point(config, str(folder), Listener()))
    found = fit_points(points, store, side_by_side=0)
    single = _fit(configs[3], store, tmp_path / "single")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        found[3].state.params,
        single.state.params,
    )


def test_teacher_forcing_is_greedy_decoding(store: data.Store, run: str) -> None:
    vae, rows = MusicVAE.restore(run), np.array(store.splits["test"])
    found = evaluation.evaluate(vae.config, vae.params, rows)
    assert found.teacher_forced == found.greedy
    assert found.z_size == 4
    assert found.elbo_nats == pytest.approx(vae.log_likelihood(rows, 0, 20).elbo.mean(), rel=0.01)
    # The likelihood is that of cells, which is lower than that of tokens.
    z = np.asarray(vae.encode(rows).mu)
    as_tokens = objectives.reconstruction_nats(
        [jnp.asarray(vae.logits(z, rows))], jnp.asarray(rows)
    )
    assert found.elbo_nats < -float(as_tokens.mean()) - 1


def test_it_generates(run: str, tmp_path: pathlib.Path) -> None:
    asked: dict[str, Any] = {"mode": "sample", "num": 2, "temperature": 1.0}
    written = generate.generate(generate.Options(run_dir=run, output=str(tmp_path), **asked))
    assert [path.name for path in written][:2] == ["sample_1.mid", "sample_2.mid"]
    asked = {"mode": "continue", "notes": "60 _ 62 _ 64 65", "bars": 2}
    written = generate.generate(generate.Options(run_dir=run, output=str(tmp_path), **asked))
    assert written[0].name == "continue_1.mid"


def test_a_safetensors_file_holds_it_and_magentas_formats_do_not(
    run: str, tmp_path: pathlib.Path
) -> None:
    path = export.export(
        export.Options(
            run_dir=run, format="safetensors", output=str(tmp_path / "model.safetensors")
        )
    )
    z = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(
        MusicVAE.from_file(path).decode(z), MusicVAE.restore(run).decode(z)
    )
    for name in ("tensorflow", "magentajs"):
        with pytest.raises(InputError, match=r"format: Magenta has no (dense|stacked)_vae models"):
            export.export(export.Options(run_dir=run, format=name, output=str(tmp_path / name)))
        assert not (tmp_path / name).exists()

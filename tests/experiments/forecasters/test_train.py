"""Forecasters in the one training loop: resume, sweeps, evaluation."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from experiments import evaluate
from experiments.cli.progress import METRICS
from experiments.sweep import axes, report
from experiments.sweep.points import PointRun
from musicvae_jax import data, evaluation
from musicvae_jax.config import Config, InputError
from musicvae_jax.storage import run_folder
from musicvae_jax.sweep.runs import Point, fit_points
from musicvae_jax.tasks import get_task
from musicvae_jax.training import loop
from tests.musicvae_jax.models.test_forecasters import SIZES
from tests.support.listener import Listener
from tests.support.synthetic_store import write_store

RUN: dict[str, Any] = {
    "batch_size": 8,
    "train_steps": 7,
    "log_every": 2,
    "eval_every": 4,
    "save_every": 3,
    "steps_per_dispatch": 2,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> data.Store:
    return data.open_store(write_store(tmp_path_factory.mktemp("data") / "store", "mel_2bar"))


def _config(name: str, **fields: Any) -> Config:
    return get_task("mel_2bar").config.replace(architecture=name, **SIZES, **RUN, **fields)


def _fit(
    config: Config, store: data.Store, folder: pathlib.Path, stop_after: int = 1000
) -> tuple[loop.Outcome, Listener]:
    asked, listener = iter(range(stop_after)), Listener()
    run = run_folder.open_run_folder(folder, config, store)
    outcome = loop.fit(
        config, store, str(run), listener, should_stop=lambda: next(asked, None) is None
    )
    return outcome, listener


# The loop treats all forecasters alike: one without and one with a carried state stand for them.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv_forecaster", "gru_attention"])
def test_a_resumed_run_is_bit_equal(name: str, store: data.Store, tmp_path: pathlib.Path) -> None:
    config = _config(name)
    whole, listener = _fit(config, store, tmp_path / "whole")
    names = {"loss", "loss_reference", "reconstruction_nats", "accuracy"}
    assert listener.validations[-1].keys() >= names
    assert not {"kl_bits", "kl_nats", "beta"} & {k for r in listener.records for k in r}
    assert _fit(config, store, tmp_path / "run", stop_after=2)[0].stopped
    resumed, _ = _fit(config, store, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)


@pytest.mark.slow
def test_a_sweep_equals_single_runs(store: data.Store, tmp_path: pathlib.Path) -> None:
    configs = [
        _config("conv_forecaster", learning_rate=rate, adam_b2=b2)
        for rate in (1e-3, 1e-2)
        for b2 in (0.9, 0.99)
    ]
    points = []
    for number, config in enumerate(configs):
        run = run_folder.open_run_folder(tmp_path / str(number), config, store)
        points.append(Point(config, str(run), Listener()))
    found = fit_points(points, store, side_by_side=0)
    single, _ = _fit(configs[3], store, tmp_path / "single")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        found[3].state.params,
        single.state.params,
    )
    assert [outcome.step for outcome in found] == [7] * 4


def test_the_page_of_a_sweep_has_no_curve_of_a_kl_that_there_is_not(tmp_path: pathlib.Path) -> None:
    points = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        record = {"split": "validation", "step": 4, "loss": 3.0, "accuracy": 0.5}
        (tmp_path / name / METRICS).write_text(json.dumps(record) + "\n")
        points.append(PointRun(axes.Point(name, {}, _config("lstm_forecaster")), tmp_path / name))
    curves = report._curves(points)
    assert [name in "".join(curves) for name in ("validation loss", "KL")] == [True, False]


def test_only_the_steps_after_the_seed_are_scored(store: data.Store) -> None:
    config, rows = _config("lstm_forecaster"), np.array(store.splits["test"])
    shapes = jax.eval_shape(evaluation.build_model(config).init, jax.random.key(0))
    silent = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    silent["output_0"]["bias"][0] = 20.0  # always "no event"
    found = evaluation.evaluate(config, silent, rows)
    assert (found.seed_bars, found.kl_bits, found.active_units, found.z_size) == (1, *[None] * 3)
    after = np.mean(rows[:, 16:] == 0)
    for kind in (found.greedy, found.sampled):
        assert kind["accuracy"]["overall"] == pytest.approx(after)
    assert found.teacher_forced["accuracy"]["overall"] == pytest.approx(np.mean(rows == 0))
    about = {"task": "mel_2bar", "split": "test", "step": 3, "checkpoint": "best"}
    text = evaluate.table(found, about)
    assert "KL             not defined: no latent space" in text
    assert "greedy and sampled: steps after the first bar." in text
    assert json.loads(json.dumps(found._asdict()))["kl_bits"] is None


@pytest.mark.parametrize(("name", "seed_bars"), [("lstm_forecaster", 0), ("flat", 2)])
def test_a_seed_must_leave_something(name: str, seed_bars: int, store: data.Store) -> None:
    config = _config(name, z_size=4, encoder_sizes=(8,))
    with pytest.raises(InputError, match=f"seed_bars: {seed_bars} is out of range"):
        evaluation.Evaluator(config, np.array(store.splits["test"]), seed_bars=seed_bars)

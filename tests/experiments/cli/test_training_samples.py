"""Samples that a run writes while it trains."""

from __future__ import annotations

import contextlib
import errno
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from experiments import train
from experiments.cli import progress
from experiments.generation import training_samples
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.storage import run_folder
from musicvae_jax.sweep.runs import Point, fit_points
from musicvae_jax.tasks import STEPS_PER_BAR, get_task
from musicvae_jax.training import loop, samples
from tests.support.listener import Listener
from tests.support.synthetic_store import write_store

SMALL: dict[str, Any] = {
    "encoder_sizes": (8,),
    "decoder_sizes": (8,),
    "z_size": 4,
    "batch_size": 16,
    "dtype": "float32",
    "train_steps": 7,
    "log_every": 4,
    "eval_every": 6,
    "save_every": 5,
    "steps_per_dispatch": 3,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> data.Store:
    return data.open_store(write_store(tmp_path_factory.mktemp("data") / "store", "drums_2bar"))


def _config(**fields: Any) -> Config:
    return get_task("drums_2bar").config.replace(**SMALL | fields)


def _fit(
    config: Config, store: data.Store, run_dir: pathlib.Path, stop_after: int = 1000
) -> loop.Outcome:
    folder = run_folder.open_run_folder(run_dir, config, store)
    asked = iter(range(stop_after))
    with contextlib.closing(progress.Recorder(folder, config.run.train_steps)) as recorder:
        return loop.fit(
            config, store, str(folder), recorder, should_stop=lambda: next(asked, None) is None
        )


def _figures(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "examples_per_second"} for r in records]


def _contents(run_dir: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run_dir / "samples").iterdir()}


@pytest.mark.slow
def test_samples_do_not_change_training_and_a_resumed_run_writes_the_same(
    store: data.Store, tmp_path: pathlib.Path
) -> None:
    config = _config(sample_every=2)
    plain = _fit(_config(), store, tmp_path / "plain")
    whole = _fit(config, store, tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, whole.state, plain.state)
    assert _figures(tmp_path / "whole") == _figures(tmp_path / "plain")
    assert not (tmp_path / "plain" / "samples").exists()

    written = _contents(tmp_path / "whole")
    names = {f"step_0000000{n}{end}" for n in (2, 4, 6, 7) for end in (".mid", ".npz", ".png")}
    assert set(written) == names
    with np.load(tmp_path / "whole" / "samples" / "step_00000002.npz") as arrays:
        first = arrays["tokens"], arrays["z"]
    with np.load(tmp_path / "whole" / "samples" / "step_00000007.npz") as arrays:
        last = arrays["tokens"], arrays["z"]
    assert (first[0].shape, first[0].dtype) == ((4, 32), store.splits["train"].dtype)
    np.testing.assert_array_equal(first[1], last[1])
    assert (first[0] != last[0]).any()
    events = b"".join(p.read_bytes() for p in (tmp_path / "whole" / "tensorboard").iterdir())
    assert events.count(b"\x89PNG") == 4
    assert events.count(b"audio/wav") == 4

    assert _fit(config, store, tmp_path / "run", stop_after=2).stopped
    _fit(config, store, tmp_path / "run")
    assert _contents(tmp_path / "run") == written


def test_a_forecaster_continues_the_first_bar_of_held_out_rows(
    store: data.Store, tmp_path: pathlib.Path
) -> None:
    config = _config(architecture="lstm_forecaster", sample_every=5)
    listener = Listener()
    folder = run_folder.open_run_folder(tmp_path / "run", config, store)
    loop.fit(config, store, str(folder), listener)
    assert list(listener.samples) == [5, 7]
    rows = store.splits["validation"]
    seeds = rows[data.spread_rows(len(rows), samples.NUM_SAMPLES), :STEPS_PER_BAR]
    for found in listener.samples.values():
        np.testing.assert_array_equal(found.rows[:, :STEPS_PER_BAR], seeds)
        assert (found.rows.shape, found.z.shape) == ((4, 32), (4, 0))


@pytest.mark.slow
def test_each_point_of_a_sweep_has_the_samples_of_a_single_run(
    store: data.Store, tmp_path: pathlib.Path
) -> None:
    points, listeners = [], [Listener(), Listener()]
    for rate, listener in zip((1e-3, 1e-1), listeners, strict=True):
        config = _config(learning_rate=rate, sample_every=3)
        run = run_folder.open_run_folder(tmp_path / str(rate), config, store)
        points.append(Point(config, str(run), listener))
    fit_points(points, store)
    single = Listener()
    run = run_folder.open_run_folder(tmp_path / "single", points[1].config, store)
    loop.fit(points[1].config, store, str(run), single)
    assert list(listeners[0].samples) == list(listeners[1].samples) == [3, 6, 7]
    for step, found in single.samples.items():
        np.testing.assert_array_equal(listeners[1].samples[step].rows, found.rows)
    assert (listeners[0].samples[7].rows != listeners[1].samples[7].rows).any()


def test_a_full_disk_ends_the_run_in_one_line(
    store: data.Store, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: pathlib.Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(training_samples, "write_whole", full)
    with (
        pytest.raises(InputError, match=r"run_dir: no space left in .*run"),
        train._full_disk_reported(tmp_path / "run"),
    ):
        _fit(_config(sample_every=2), store, tmp_path / "run")


def test_a_negative_period_is_refused() -> None:
    with pytest.raises(InputError, match="sample_every: -1 is out of range, it must be 0 or more"):
        _config(sample_every=-1)

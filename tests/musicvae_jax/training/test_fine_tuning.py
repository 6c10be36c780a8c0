from __future__ import annotations

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from absl import flags

from data_pipeline import cli
from experiments import grid_search, train
from experiments.cli import config_flags
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.interop import safetensors_file
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage import run_folder
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import get_task
from musicvae_jax.training import fine_tuning
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import Batch, make_train_step
from tests.support.commands import run_here
from tests.support.synthetic_store import random_rows, write_store


@pytest.fixture(scope="module")
def config() -> Config:
    return get_task("mel_2bar").config.replace(
        encoder_sizes=(8,),
        decoder_sizes=(8,),
        z_size=4,
        batch_size=8,
        sampling_schedule="constant",
        sampling_rate=0.0,
        init="default",
        dtype="float32",
    )


def test_what_fits_is_taken_and_the_rest_is_told() -> None:
    old = {
        "a": {"x": np.ones((2, 3)), "y": np.arange(4.0), "w": np.ones((3, 4)), "z": np.ones(5)},
        "b": np.ones(1),
    }
    new = {
        "a": {
            "x": np.zeros((2, 3)),
            "y": np.zeros((1, 4)),
            "w": np.zeros((2, 6)),
            "z": np.zeros(6),
        },
        "c": np.zeros(2),
    }
    found, report = fine_tuning.take_over(new, old)
    assert found["a"]["x"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert found["a"]["y"].tolist() == [[0, 1, 2, 3]]
    assert not found["a"]["w"].any()
    assert found["a"]["z"].tolist() == [0] * 6
    assert report.taken == ("a/x",)
    assert report.reshaped == {"a/y": "(4,) -> (1, 4)"}
    assert report.new == {
        "a/w": "of another shape, (3, 4) -> (2, 6)",
        "a/z": "of another shape, (5,) -> (6,)",
        "c": "the old model has none",
    }
    assert report.left == ("b",)
    assert report.lines()[0] == "taken 1 arrays, reshaped 1, new 3, left 1"
    assert len(report.lines()) == 6
    with pytest.raises(InputError, match="none of its arrays has a shape of this model"):
        fine_tuning.take_over({"a": np.ones(2)}, {"a": np.ones(3)})


@pytest.mark.parametrize(("part", "other"), [("encoder", "decoder"), ("decoder", "encoder")])
def test_a_frozen_part_stays_bit_equal(config: Config, part: str, other: str) -> None:
    config = config.replace(freeze=part, weight_decay=0.1)
    model = build_model(config)
    first = init_state(model, config)
    step = jax.jit(make_train_step(model, config))
    rows = random_rows(np.random.default_rng(0), get_task(config.task), 8)
    state = first
    for _ in range(2):
        state, _ = step(state, Batch(jax.numpy.asarray(rows)))
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    same(state.params[part], first.params[part])
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), state.params[other], first.params[other]
    )
    assert all(jax.tree.leaves(moved))


@pytest.fixture(scope="module")
def old_run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("old") / "run"
    params = jax.jit(build_model(config).init)(jax.random.key(7))
    with Checkpoints(folder, create=True) as checkpoints:
        checkpoints.save(3, params, {"count": np.zeros(1)}, config)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> data.Store:
    return data.open_store(write_store(tmp_path_factory.mktemp("data") / "store", "mel_2bar"))


def test_a_run_begins_with_the_parameters_of_another(
    config: Config,
    old_run: pathlib.Path,
    store: data.Store,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, old, _ = fine_tuning.read_start(old_run)
    wider = config.replace(encoder_sizes=(9,))
    folder = run_folder.open_run_folder(tmp_path / "run", wider, store)
    place = str(old_run / "checkpoints" / "3")
    start = train.read_start(wider, str(folder), place)
    assert start is not None
    train.record_start(folder, start)
    jax.tree.map(np.testing.assert_array_equal, start.params["decoder"], old["decoder"])
    text = capsys.readouterr().out
    assert "step 3:" in text
    assert "new encoder/cell_0/fw/kernel: of another shape, (98, 32) -> (99, 36)" in text
    assert json.loads((folder / run_folder.INIT_FROM).read_text())["left"] == []
    # Stopped before its first checkpoint, it must not begin elsewhere.
    with pytest.raises(InputError, match=r"started from .*checkpoints/3; give that again"):
        train.read_start(wider, str(folder), None)
    # After its first checkpoint, it resumes from that one.
    (folder / "checkpoints" / "1").mkdir(parents=True)
    assert train.read_start(wider, str(folder), place) is None
    other = run_folder.open_run_folder(tmp_path / "other", wider, store)
    (other / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(InputError, match="started from random parameters"):
        train.read_start(wider, str(other), str(old_run))
    assert train.read_start(wider, str(other), None) is None


def test_a_start_that_is_none_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"init_from: .*nowhere: run_dir: .* no checkpoints"):
        fine_tuning.read_start(tmp_path / "nowhere")


def test_a_run_begins_with_the_parameters_of_a_safetensors_file(
    config: Config, old_run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    _, old, _ = fine_tuning.read_start(old_run)
    file = tmp_path / "old.safetensors"
    safetensors_file.write(file, config, old, step=3)
    start = train.read_start(config, str(tmp_path / "run"), str(file))
    assert start is not None
    assert (start.place, start.step) == (str(file.resolve()), 3)
    jax.tree.map(np.testing.assert_array_equal, start.params, old)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["run", "file"])
def test_a_damaged_start_is_refused_before_anything_is_written(
    damage: str, store: data.Store, tmp_path: pathlib.Path
) -> None:
    start = tmp_path / ("start.safetensors" if damage == "file" else "start")
    if damage == "file":
        start.write_bytes(b"no tensors")
    else:
        (start / "checkpoints" / "3").mkdir(parents=True)
        (start / "checkpoints" / "3" / "config.json").write_text("{")
    new = tmp_path / "new"
    ended = run_here(
        "experiments.train",
        f"--data_dir={store.path}",
        f"--run_dir={new}",
        f"--init_from={start}",
        "--batch_size=8",
    )
    assert ended.returncode == 2, ended
    assert ended.stderr.count("\n") == 1
    assert not new.exists()


def test_freeze_is_a_flag_and_init_from_one_of_training_alone() -> None:
    for options, has_start in ((train.Options, True), (grid_search.Options, False)):
        values = flags.FlagValues()
        cli.define_flags(options, values)
        config_flags.define(values)
        assert "freeze" in values
        assert ("init_from" in values) == has_start

"""Vectors that do what they say, their table, and where both are stored."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.reporting.charts import percent_heatmaps_png
from experiments import attributes as experiment
from experiments.attributes import Matrix, Options
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.latent import attributes
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage import run_folder
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import TASKS
from tests.support.synthetic_store import write_store

TASK = TASKS["drums_2bar"]
SIZES = {"z_size": 4, "encoder_sizes": (8,), "decoder_sizes": (8,)}


class Knobs(MusicVAE):
    """A model by hand: z is how many steps are hit by hat, kick and snare, and nothing else."""

    def __init__(self) -> None:
        self.task, self.prior = TASK, None

    @property
    def z_size(self) -> int:
        return 3

    def encode(self, tokens: Any) -> Posterior:
        rows = np.asarray(tokens)
        mu = np.stack([(rows & bit > 0).sum(axis=1) for bit in (4, 1, 2)], axis=1) - 16.0
        return Posterior(jnp.asarray(mu, jnp.float32), jnp.ones(mu.shape))

    def decode(self, z: Any, key: Any = None, temperature: float = 0.0) -> np.ndarray:
        # Even steps first: nothing is syncopated before all beats are full.
        order = np.concatenate([np.arange(0, 32, 2), np.arange(1, 32, 2)])
        rank = np.argsort(order)
        counts = np.clip(np.round(np.asarray(z)) + 16, 0, 32)
        hit = rank[None, :, None] < counts[:, None, :]
        return (hit * np.array([4, 1, 2])).sum(axis=-1)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return Knobs().decode(rng.normal(0.0, 6.0, (400, 3)))


def test_vectors_turn_the_right_knob(rows: np.ndarray) -> None:
    found = experiment.find_vectors(Knobs(), 1, rows)
    assert (found.task, found.step, found.about["rows"]) == ("drums_2bar", 1, 400)
    for knob, name in enumerate(("hat_density", "kick_density", "snare_density")):
        vector = found.vectors[name]
        # The means of the outer quartiles of a normal distribution lie 2.54 deviations apart.
        assert vector[knob] == pytest.approx(2.54 * 6.0, rel=0.1)
        assert np.abs(np.delete(vector, knob)).max() < 3.0
    matrix = experiment.change_matrix(Knobs(), found, Options("run", num=64))
    assert matrix.names[:3] == ["hat_density", "kick_density", "snare_density"]
    for sign, factor in (("added", 1.0), ("subtracted", -1.0)):
        assert experiment.largest_on_diagonal(matrix.percent[sign][:3, :3]) == [True] * 3
        diagonal = np.diag(matrix.percent[sign])[:3]
        # 16 hits before, about 15 more or fewer after.
        np.testing.assert_allclose(diagonal, factor * 95, atol=12)
    assert 0 < matrix.error["added"][0, 0] < 5


def test_an_attribute_that_never_differs_is_named() -> None:
    rows = np.zeros((8, 32), np.uint16)
    rows[:, 0] = 1
    rows[:4, 8] = 1
    found = experiment.find_vectors(Knobs(), 1, rows)
    assert list(found.vectors) == ["kick_density"]
    assert list(found.about["missing"]) == ["hat_density", "snare_density", "syncopation"]
    assert "all rows have the same value" in found.about["missing"]["hat_density"]
    with pytest.raises(InputError, match="no attribute differs among 4 training rows"):
        experiment.find_vectors(Knobs(), 1, rows[:4])


def test_the_table_marks_the_largest_change_of_a_row() -> None:
    percent = np.array([[50.0, -80.0], [np.nan, 7.0]])
    matrix = Matrix(
        ["a", "b"],
        {"a": 0.5, "b": 0.0},
        {"subtracted": percent, "added": -percent},
        {"subtracted": np.ones((2, 2)), "added": np.ones((2, 2))},
    )
    assert experiment.largest_on_diagonal(percent) == [False, True]
    assert experiment.largest_on_diagonal(np.full((2, 2), np.nan)) == [False, False]
    lines = experiment.table(matrix, Options("run")).splitlines()
    assert lines[3].split() == ["a", "+50.0", "±", "1.0", "-80.0", "±", "1.0*"]
    assert lines[4].split() == ["b", "-", "+7.0", "±", "1.0*"]
    assert lines[5] == "largest change on the diagonal in 1 of 2 rows"


@pytest.mark.parametrize("task_name", TASKS)
def test_the_table_fits_100_columns(task_name: str) -> None:
    names = list(attributes.names(TASKS[task_name]))
    size = (len(names), len(names))
    matrix = Matrix(
        names,
        dict.fromkeys(names, 0.125),
        {sign: np.full(size, -1234.5) for sign in experiment.SIGNS},
        {sign: np.full(size, 10.5) for sign in experiment.SIGNS},
    )
    text = experiment.table(matrix, Options("run"))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("-1234.5 ± 10.5") == 2 * len(names) ** 2
    assert text.count("0.125") == len(names)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run folder of a tiny untrained model with its data."""
    folder = tmp_path_factory.mktemp("experiment")
    store = data.open_store(write_store(folder / "tokens", "drums_2bar"))
    config = TASK.config.replace(**SIZES, init="default")
    run = run_folder.open_run_folder(folder / "run", config, store)
    params = jax.tree.map(
        lambda leaf: 3.0 * leaf, jax.jit(build_model(config).init)(jax.random.key(0))
    )
    with Checkpoints(run, create=True) as checkpoints:
        checkpoints.save(5, params, {"count": np.zeros(1)}, config)
    return run


def test_a_run_gets_vectors_a_table_and_a_picture(run_dir: pathlib.Path) -> None:
    text = experiment.run(Options(str(run_dir), num=8, rows=40, match="kick_density"))
    assert "8 samples from N(0, I), temperature 1" in text
    found = attributes.load_vectors(run_dir)
    assert (found.task, found.step, found.about["rows"]) == ("drums_2bar", 5, 40)
    rows = np.load(run_dir.parent / "tokens" / "train.npy")[data.spread_rows(64, 40)]
    values = attributes.measure(rows, TASK)
    expected = attributes.vectors(
        np.asarray(MusicVAE.restore(run_dir).encode(rows).mu),
        {"kick_density": values["kick_density"]},
    )
    np.testing.assert_allclose(found.vectors["kick_density"], expected["kick_density"], atol=1e-6)
    record = json.loads((run_dir / "attribute_matrix.json").read_text())
    assert record["attributes"] == list(found.vectors)
    shape = (len(found.vectors),) * 2
    assert np.shape(record["added"]["percent"]) == shape
    assert np.shape(record["subtracted"]["standard_error"]) == shape
    assert (run_dir / "attribute_matrix.png").read_bytes().startswith(b"\x89PNG")


def test_rows_without_the_matched_attribute_are_counted(
    run_dir: pathlib.Path, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    store = write_store(tmp_path / "tokens", "drums_2bar")
    rows = np.load(store / "train.npy")
    rows[:5] = 0  # neither kick nor snare: no syncopation
    np.save(store / "train.npy", rows)
    options = Options(str(run_dir), data_dir=str(store), num=2, match="syncopation")
    experiment.run(dataclasses.replace(options, allow_changed_data=True))
    undefined = np.isnan(attributes.measure(rows, TASK)["syncopation"]).sum()
    text = capsys.readouterr().out
    assert undefined >= 5
    assert f"match: {undefined} rows for which syncopation is undefined are left out" in text


def test_a_picture_of_what_is_not_known(tmp_path: pathlib.Path) -> None:
    values = np.array([[np.nan, np.nan], [120.0, -5.0]])
    for name in ("one.png", "two.png"):
        percent_heatmaps_png(
            tmp_path / name,
            {"added": values},
            ["a_b", "c"],
            ["d", "e"],
            row_label="vector",
            column_label="measured",
        )
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_what_does_not_fit_is_refused(run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    melodies = write_store(tmp_path / "melodies", "mel_2bar")
    with pytest.raises(InputError, match="holds rows of mel_2bar, the model is of drums_2bar"):
        experiment.run(Options(str(run_dir), data_dir=str(melodies)))
    empty = write_store(tmp_path / "empty", "drums_2bar", {"train": 0, "validation": 1, "test": 1})
    with pytest.raises(InputError, match="has no training rows"):
        experiment.run(Options(str(run_dir), data_dir=str(empty)))
    with pytest.raises(InputError, match="holds no checkpoints; train first"):
        experiment.run(Options(str(tmp_path)))
    with pytest.raises(InputError, match="match: drums_2bar has no 'swing'; it has hat_density"):
        experiment.run(Options(str(run_dir), match="swing"))
    for wrong in ({"rows": -1}, {"num": 1}, {"temperature": -1.0}):
        given: dict[str, Any] = wrong
        with pytest.raises(InputError, match=r"(rows|num|temperature): \S+ is out of range"):
            experiment.run(Options(str(run_dir), **given))

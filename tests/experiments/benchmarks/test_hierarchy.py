"""Flat and hierarchical models of equal size: sizes, the results file, the tables made from it."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks import hierarchy
from experiments.benchmarks.support import hierarchy_tables
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.tasks import get_task
from tests.support.synthetic_store import write_store

TINY: dict[str, Any] = {
    "units": 4,
    "optimiser": "muon",
    "batch_size": 8,
    "minutes": 1e-3,
    "examples": 16,
    "rows": 16,
    "eval_every": 1,
}


def point(sampled: float, step: int) -> dict[str, Any]:
    """Make up the scores of a budget."""
    return {
        "step": step,
        "examples": 8 * step,
        "seconds": 60.0 * step,
        "teacher_forced": 0.9,
        "sampled": sampled,
        "greedy": 0.8,
        "elbo_nats": -300.0,
        "kl_bits": 40.0,
        "no_event": 0.5,
        "unigram": 0.25,
        "sampled_by_bar": [sampled + 0.1] * 4 + [sampled] * 8 + [sampled - 0.2] * 4,
        "no_event_by_bar": [0.5] * 12 + [0.75] * 4,
        "overlap": {"structure": {"samples": sampled, "real": 0.875}},
    }


def entry(model: str, seed: int, sampled: float, init: str = "default") -> dict[str, Any]:
    """Make up a training."""
    points = {"minutes": point(sampled, 20), "examples": point(sampled + 0.05, 40)}
    return {
        "task": "mel_16bar",
        "store": "f",
        "model": model,
        "init": init,
        "seed": seed,
        "decoder_units": 64,
        "parameters": 12345,
        "machine": "one machine",
        "zeroed": 0.0,
        "curve": [[10, 500.0], [20, 400.0], [30, 350.0]],
        "points": points,
    }


SETTINGS: dict[str, Any] = {
    "minutes": 20.0,
    "examples": 320,
    "units": 64,
    "batch_size": 8,
    "optimiser": "adam",
    "learning_rate": 0.0025,
    "beta": 0.2,
    "free_bits": 48.0,
    "rows": 100,
}
RESULTS: dict[str, Any] = {
    "settings": {"mel_16bar": SETTINGS},
    "trainings": [
        entry("flat", 0, 0.5),
        entry("hierdec", 0, 0.7),
        entry("hierdec", 1, 0.8),
        entry("hierdec", 0, 0.6, "reference"),
    ],
}


def test_the_papers_columns_average_seeds_and_keep_starts_apart() -> None:
    lines = hierarchy_tables.paper_table(hierarchy_tables.by_series(RESULTS["trainings"]))
    assert lines[0] == [
        "task",
        "budget",
        "teacher forced: flat",
        "teacher forced: hierdec",
        "teacher forced: hierdec, reference start",
        "sampled: flat",
        "sampled: hierdec",
        "sampled: hierdec, reference start",
        "no event",
        "unigram",
    ]
    forced = ["0.900", "0.900 (0.900 to 0.900)", "0.900"]
    sampled = ["0.500", "0.750 (0.700 to 0.800)", "0.600"]
    assert lines[1] == ["mel_16bar", "equal minutes", *forced, *sampled, "0.500", "0.250"]
    assert lines[2][1] == "equal examples"
    assert lines[2][6] == "0.800 (0.750 to 0.850)"


def test_the_change_over_the_bars_is_beside_that_of_no_event() -> None:
    lines = hierarchy_tables.by_bar_table(hierarchy_tables.by_series(RESULTS["trainings"]))
    assert lines[0][3:] == [*(f"bar {n}" for n in (1, 2, 4, 8, 12, 16)), "last 4 - first 4"]
    flat = ["0.600", "0.600", "0.600", "0.500", "0.500", "0.300"]
    assert lines[1] == ["mel_16bar", "flat", "equal minutes", *flat, "-0.300"]
    assert lines[-1][1:] == ["no event", "", *["0.500"] * 5, "0.750", "0.250"]


def test_overlaps_and_trainings_have_their_lines() -> None:
    groups = hierarchy_tables.by_series(RESULTS["trainings"])
    overlaps = hierarchy_tables.overlap_table(groups)
    assert overlaps[0] == ["task", "overlap", "budget", "structure"]
    assert overlaps[3] == ["mel_16bar", "hierdec", "equal minutes", "0.750 (0.700 to 0.800)"]
    assert overlaps[-1] == ["mel_16bar", "held-out rows", "", "0.875"]
    trainings = hierarchy_tables.training_table(groups)
    assert len(trainings) == 1 + 2 * 4
    assert trainings[1][:4] == ["mel_16bar", "flat", "0", "equal minutes"]
    assert trainings[1][4:10] == ["12,345", "64", "160", "20.0", "400.0", "-300.0"]
    assert trainings[2][6:9] == ["320", "40.0", "350.0"]


def test_a_series_has_a_line_of_means_over_seeds() -> None:
    lines = hierarchy_tables.series_table(hierarchy_tables.by_series(RESULTS["trainings"]))
    assert lines[0][:4] == ["task", "model", "seeds", "validation loss"]
    assert lines[1][:4] == ["mel_16bar", "flat", "1", "400.0"]
    assert lines[2][2:4] == ["2", "400.0 (400.0 to 400.0)"]
    assert lines[2][-1] == "0.750 (0.700 to 0.800)"


def test_the_loss_of_a_point_is_that_of_the_validation_before_it() -> None:
    curve = [[10, 5.0], [20, 4.0]]
    assert hierarchy_tables.last_loss(curve, 9) is None
    assert hierarchy_tables.last_loss(curve, 10) == 5.0
    assert hierarchy_tables.last_loss(curve, 25) == 4.0


def test_tables_and_pictures_are_made_from_the_results_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS))
    options = hierarchy.Options(results=str(path), output=str(tmp_path / "out"))
    text = hierarchy.run(options)
    assert text == hierarchy.run(hierarchy.Options(results=str(path)))
    assert text.startswith(
        "one machine\nmel_16bar: 64 units, batch 8, adam, learning rate 0.0025, beta 0.2, "
        "free bits 48, 20 minutes, 320 examples, up to 100 test rows\n"
    )
    files = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}
    assert files["hierarchy.txt"] == text
    assert files["hierarchy.md"].splitlines()[1].startswith("| --- | --- | ---: |")
    assert "sampled accuracy, mel_16bar" in files["hierarchy_by_bar.svg"]
    assert "hierdec, seed 1" in files["hierarchy_curves.svg"]


@pytest.mark.parametrize("task", ["mel_16bar", "drums_16bar", "trio_16bar"])
def test_flat_models_have_as_many_parameters(tmp_path: pathlib.Path, task: str) -> None:
    store = data.Store(tmp_path, get_task(task), {}, {}, "")
    options = hierarchy.Options(data_dirs=("a",), output="b")
    flat, hierarchical = (
        hierarchy.config_of(hierarchy.Job(store, model, "default", 0), options)
        for model in hierarchy.MODELS
    )
    counts = [hierarchy.parameters(config) for config in (flat, hierarchical)]
    assert counts[0] == pytest.approx(counts[1], rel=0.03)
    # Worked out by hand for melodies: encoder 841,984, conductor 921,600, decoder 1,429,082.
    assert counts[1] == {"mel_16bar": 3_192_666}.get(task, counts[1])
    assert flat.model.decoder_sizes[0] % 16 == 0
    assert flat.model.encoder_sizes == hierarchical.model.encoder_sizes == (256,)
    assert flat.train == hierarchical.train


def test_accuracy_by_bar_averages_rows_steps_and_tracks() -> None:
    task = get_task("trio_16bar")
    right = np.zeros((2, 256, 3), bool)
    right[0, :16] = True
    right[1, 16:32, 0] = True
    assert hierarchy.by_bar(right, task) == pytest.approx([1 / 2, 1 / 6, *[0.0] * 14])


@pytest.mark.slow
def test_a_training_is_made_once_and_kept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"train": 1000, "validation": 16, "test": 40}
    store = str(write_store(tmp_path / "store", "mel_16bar", counts))
    options = hierarchy.Options(
        data_dirs=(store,), output=str(tmp_path / "out"), models=("hierdec",), **TINY
    )
    text = hierarchy.run(options)
    (training,) = json.loads((tmp_path / "out" / "results.json").read_text())["trainings"]
    scores = training["points"]["examples"]
    assert scores["examples"] == 16
    assert [step for step, _ in training["curve"]][:2] == [1, 2]
    # Synthetic rows have an event on every fourth step.
    assert scores["no_event_by_bar"] == [0.75] * 16
    assert scores["no_event"] == 0.75
    assert np.mean(scores["sampled_by_bar"]) == pytest.approx(scores["sampled"], abs=0.05)
    monkeypatch.delattr(hierarchy, "train")
    assert hierarchy.run(options) == text
    (tmp_path / "out" / "results.json").rename(tmp_path / "kept.json")
    assert hierarchy.run(hierarchy.Options(results=str(tmp_path / "kept.json"))) == text


def test_results_of_other_settings_or_rows_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS))
    found = hierarchy.read_results(path)
    hierarchy.set_settings(found, "mel_16bar", SETTINGS)
    with pytest.raises(
        InputError, match="units: the trainings of mel_16bar so far have 64, not 32"
    ):
        hierarchy.set_settings(found, "mel_16bar", {**SETTINGS, "units": 32})
    hierarchy.set_settings(found, "drums_16bar", {**SETTINGS, "units": 32})
    assert found["settings"]["drums_16bar"]["units"] == 32
    store = data.Store(tmp_path, get_task("mel_16bar"), {}, {}, "g")
    with pytest.raises(InputError, match="differs from the results' mel_16bar rows"):
        hierarchy.check_store(store, RESULTS["trainings"])
    short = data.Store(tmp_path, get_task("mel_2bar"), {}, {}, "g")
    with pytest.raises(InputError, match="has rows of mel_2bar, not of 16 bars"):
        hierarchy.check_store(short, [])
    # The last one has a training of a task whose settings are missing.
    for damaged in ("[1]", "{", json.dumps({**RESULTS, "settings": {}})):
        path.write_text(damaged)
        with pytest.raises(InputError, match="is not a results file"):
            hierarchy.read_results(path)
    with pytest.raises(InputError, match="there is no file"):
        hierarchy.read_results(tmp_path / "none.json")


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError, match="model: 'hier' is not one of flat, hierdec"):
        hierarchy.Options(results="a", models=("hier",))
    with pytest.raises(InputError, match="init: 'random' is not one of reference, default"):
        hierarchy.Options(results="a", inits=("random",))
    with pytest.raises(InputError, match="--output is needed to train"):
        hierarchy.Options(data_dirs=("a",), results="b")
    with pytest.raises(InputError, match="--results, or --output and --data_dir"):
        hierarchy.Options()

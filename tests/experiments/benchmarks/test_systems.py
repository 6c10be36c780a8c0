"""The tables of all models: their layout, configurations, refusals."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from experiments.benchmarks import systems
from experiments.benchmarks.support import tables
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.models.registry import build_model
from tests.support.synthetic_store import write_store


def scores(value: float) -> dict[str, Any]:
    """Make up what a training is scored with."""
    both = {"samples": value, "real": 0.9}
    return {
        "examples": 1000,
        "seconds": 90.0,
        "teacher_forced": value,
        "after_seed": {n: {"sampled": value / 2, "greedy": value} for n in ("1", "4")},
        "overlap": {"rhythm": both, "melody": {"samples": None, "real": 0.8}},
        "originality": both,
        "variety": both,
    }


def test_tables_have_a_line_for_each_training() -> None:
    found = {("flat", "minutes"): scores(0.5), ("flat", "examples"): scores(0.25)}
    first = systems.accuracy_table("mel_16bar", found)
    assert first[0][-4:] == [
        "sampled after 1",
        "sampled after 4",
        "greedy after 1",
        "greedy after 4",
    ]
    assert first[1][:5] == ["flat", "equal minutes", "1,000", "1.5", "0.5000"]
    assert first[2][-4:] == ["0.1250", "0.1250", "0.2500", "0.2500"]
    second = systems.sample_table("mel_16bar", found)
    assert second[0][2:4] == ["overlap: rhythm", "overlap: melody"]
    assert second[1][2:4] == ["0.500", "-"]
    assert second[-1] == ["held-out rows", "", "0.900", "0.800", "0.900", "0.900"]
    assert tables.as_text(second).splitlines()[1].startswith("flat")
    assert "flat, equal minutes" in systems.picture("mel_16bar", found)
    assert tables.as_markdown(second).splitlines()[1].startswith("| --- | --- | ---: |")


def test_every_model_has_a_configuration(tmp_path: pathlib.Path) -> None:
    store = data.open_store(write_store(tmp_path / "store", "mel_2bar"))
    options = systems.Options(data_dirs=("a",), output="b", width=8)
    for name in systems.SYSTEMS:
        config = systems.config_of(systems.Job(store, name, tmp_path), options)
        assert config.model.architecture == name
        build_model(config)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError, match="system: 'lstm' is not one of lstm_forecaster"):
        systems.Options(data_dirs=("a",), output="b", systems=("lstm",))
    with pytest.raises(InputError, match="--output are needed"):
        systems.Options(data_dirs=("a",))

"""Configurations that describe equal models share one model."""

from __future__ import annotations

from typing import Any

import jax
import pytest

from musicvae_jax.config import Config, InputError, differing_fields
from musicvae_jax.models.registry import ARCHITECTURES, build_model
from musicvae_jax.tasks import get_task
from musicvae_jax.training.optimiser import muon_gates

SIZES: dict[str, Any] = {"encoder_sizes": (8,), "decoder_sizes": (8,), "z_size": 4}
TASKS = {"tokens": "mel_2bar", "note starts": "pianoroll_16bar", "sound": "sound_3000hz_2s"}
CASES = [(name, TASKS[content]) for name, found in ARCHITECTURES.items() for content in found.reads]


def config_of(name: str, task: str) -> Config:
    return get_task(task).config.replace(architecture=name, **SIZES)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_equal_sizes_share_a_model_and_other_sizes_do_not(name: str, task: str) -> None:
    config = config_of(name, task)
    model = build_model(config)
    others = {"learning_rate": 0.5, "beta": 0.5, "seed": 3, "train_steps": 7, "batch_size": 4}
    assert build_model(config.replace(**others)) is model
    for fields in ({"decoder_sizes": (12,)}, {"dtype": "bfloat16"}, {"init": "reference"}):
        if not set(fields) & set(ARCHITECTURES[name].unused_fields):
            assert build_model(config.replace(**fields)) is not model, fields


@pytest.mark.parametrize(("name", "task"), CASES)
def test_muon_is_refused_without_lstms(name: str, task: str) -> None:
    config = config_of(name, task).replace(optimiser="muon")
    if name in {"flat", "hierdec", "hier", "lstm_forecaster", "lstm_attention"}:
        params = jax.eval_shape(build_model(config).init, jax.random.key(0))
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        assert any(muon_gates(path) for path in paths)
    else:
        with pytest.raises(InputError, match=f"optimiser: muon is for LSTMs, and {name} has none"):
            build_model(config)


@pytest.mark.parametrize(
    "name", [n for n, found in ARCHITECTURES.items() if "tokens" in found.reads]
)
def test_16_bars_train_with_muon_where_it_was_measured(name: str) -> None:
    config = config_of(name, "mel_16bar")
    assert config.train.optimiser == "auto"
    chosen = "muon" if name in {"flat", "hierdec", "hier"} else "adam"
    assert config.optimiser == chosen
    build_model(config)  # is not refused
    # A run that was started when the task's default was Adam may be resumed if nothing changed.
    stored = config.replace(optimiser="adam")
    differing = {"optimiser": ("adam", "muon")} if chosen == "muon" else {}
    assert differing_fields(stored, config) == differing
    assert config_of(name, "mel_2bar").optimiser == "adam"


def test_piano_rolls_with_another_threshold_are_another_model() -> None:
    config = config_of("stacked_vae", "pianoroll_16bar")
    assert build_model(config.replace(threshold=0.3)) is not build_model(config)

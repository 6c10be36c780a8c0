"""The benchmark of models of bars: what it trains, what it counts, the line it prints."""

from __future__ import annotations

import pathlib

import pytest

from experiments.benchmarks import stacked
from musicvae_jax.config import InputError
from musicvae_jax.tasks import get_task
from tests.support.synthetic_store import write_store


def test_stores_of_tokens_are_trained_with_the_layers_of_piano_rolls(
    tmp_path: pathlib.Path,
) -> None:
    config = stacked.config_of(str(write_store(tmp_path / "store", "mel_2bar")), 8, "bfloat16")
    assert (config.task, config.model.architecture) == ("mel_2bar", "stacked_vae")
    assert config.model == get_task("pianoroll_16bar").config.model
    assert (config.train.batch_size, config.train.dtype) == (8, "bfloat16")
    # Forward and two gradients, a multiply-add is two: 2 bars of 16 x 90 cells, 2,000 units.
    assert stacked.first_layer(config) == 3 * 2 * 2 * 16 * 90 * 2000


def test_stores_with_fewer_rows_than_a_batch_are_refused(tmp_path: pathlib.Path) -> None:
    store = str(
        write_store(tmp_path / "store", "mel_2bar", {"train": 7, "validation": 1, "test": 1})
    )
    assert stacked.config_of(store, 7, "float32").train.batch_size == 7
    with pytest.raises(InputError, match="7 training rows are fewer than one batch of 8"):
        stacked.config_of(store, 8, "float32")


def test_layers_that_multiply_are_counted_in_full() -> None:
    for name in ("drums_16bar", "sound_3000hz_30s"):
        assert stacked.first_layer(get_task(name).config) == 0


def test_a_line_by_hand() -> None:
    row = stacked.Row(
        task="mel_2bar",
        dtype="float32",
        batch_size=64,
        parameters=2_000_000,
        operations=3 * 10**9,
        operations_left=10**9,
        seconds=[4.0, 2.0, 1.0],
        processor_seconds=[1.0, 1.6, 2.0],
        gigabytes=1.5,
    )
    words = " ".join(stacked.line(row, cores=2).split())
    assert words == "mel_2bar float32 64 2.0 3.00 1.00 2.00 1.60 32.0 80.0 1.50"

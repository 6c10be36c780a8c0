"""The token store that a command reads."""

from __future__ import annotations

import pathlib

import pytest

from experiments.cli.run_data import split_rows
from musicvae_jax import data
from musicvae_jax.config import InputError
from tests.support.synthetic_store import write_store


def test_an_empty_split_is_refused_with_the_others_named(tmp_path: pathlib.Path) -> None:
    counts = {"train": 3, "validation": 2, "test": 0}
    store = data.open_store(write_store(tmp_path / "store", "mel_2bar", counts))
    assert len(split_rows(store, "validation")) == 2
    with pytest.raises(InputError, match="has no test rows; splits with rows: train, validation"):
        split_rows(store, "test")

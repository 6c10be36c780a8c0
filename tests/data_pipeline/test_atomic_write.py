"""Files are written whole or not at all, and an error names the file."""

from __future__ import annotations

import pathlib
import resource
from collections.abc import Callable

import numpy as np
import pytest

from data_pipeline.atomic_write import write_arrays, write_whole
from experiments.encoding import shards
from experiments.encoding.inputs import Place
from experiments.generation.files import _write_arrays
from experiments.generation.modes import Music
from musicvae_jax.storage import run_folder

LARGE = np.zeros((1000, 200), np.uint8)


def _whole(path: pathlib.Path) -> None:
    write_whole(path, LARGE.tobytes())


def _arrays(path: pathlib.Path) -> None:
    write_arrays(path, {"large": LARGE})


def _text(path: pathlib.Path) -> None:
    run_folder.write_text(path, "a" * LARGE.size)


def _shard(path: pathlib.Path) -> None:
    names, numbers = ["a.mid"] * len(LARGE), np.arange(len(LARGE))
    shard = shards.Shard(LARGE, names, numbers, numbers, [], Place(0, 0))
    shards.write_shard(path, shard, shards.Latents(LARGE, LARGE))


def _music(path: pathlib.Path) -> None:
    _write_arrays(path, Music(LARGE, LARGE, [], []))


def test_a_file_is_replaced_as_a_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"two"):
        write_whole(path, data)
        assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [
            ("file", data)
        ]


@pytest.mark.parametrize("write", [_whole, _arrays, _text, _shard, _music])
def test_a_file_that_does_not_fit_is_named_and_not_begun(
    write: Callable[[pathlib.Path], object], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "file.npz"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(OSError, match=r"File too large: '.*/file.npz'"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []

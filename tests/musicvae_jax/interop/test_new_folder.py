"""A folder appears complete or not at all."""

from __future__ import annotations

import pathlib

import pytest

from musicvae_jax.interop.new_folder import new_folder


def test_the_folder_appears_at_the_end(tmp_path: pathlib.Path) -> None:
    with new_folder(tmp_path / "a") as partial:
        (partial / "file").write_text("x")
        assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "x"


def write_half(path: pathlib.Path) -> None:
    with new_folder(path) as partial:
        (partial / "file").write_text("x")
        raise OSError("the disk is full")


def test_an_error_leaves_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="full"):
        write_half(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []

"""Damaged files of a run folder are named in one line."""

from __future__ import annotations

import pathlib

import pytest

from musicvae_jax.config import InputError
from musicvae_jax.storage import run_folder


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe{}"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: pathlib.Path) -> None:
    for name in (run_folder.CONFIG, run_folder.DATA):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json is damaged and cannot be read"):
        run_folder.read_config(tmp_path)
    with pytest.raises(InputError, match=r"data\.json is damaged and cannot be read"):
        run_folder.read_data(tmp_path)

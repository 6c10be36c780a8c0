"""An output that cannot be written is refused before anything is computed."""

from __future__ import annotations

import os
import pathlib

import pytest

from experiments.cli.outputs import check_writable
from musicvae_jax.config import InputError


def test_a_folder_that_does_not_exist_yet_is_fine(tmp_path: pathlib.Path) -> None:
    assert check_writable(tmp_path / "new" / "er", "output") == tmp_path / "new" / "er"
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"output: .*file is a file, it must be a folder"):
        check_writable(tmp_path / "file", "output")


def test_the_read_only_folder_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not bind the administrator, who may run the tests.
    monkeypatch.setattr(os, "access", lambda path, mode: pathlib.Path(path) != tmp_path)
    with pytest.raises(InputError, match=rf"run_dir: .*cannot be written, {tmp_path} is read-only"):
        check_writable(tmp_path / "run" / "deep", "run_dir")

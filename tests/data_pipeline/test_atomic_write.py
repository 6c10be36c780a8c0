from __future__ import annotations

import pathlib
import resource

import pytest

from data_pipeline.atomic_write import write_whole


def test_a_file_is_replaced_as_a_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"two"):
        write_whole(path, data)
        assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [
            ("file", data)
        ]


def test_a_file_that_does_not_fit_is_named_and_not_begun(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(OSError, match=r"File too large: '.*/file'"):
            write_whole(path, bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []

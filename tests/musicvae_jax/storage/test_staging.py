"""Staged checkpoints: read like others, with the digests of what was in memory."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import pathlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.storage import checksums, staging
from musicvae_jax.storage.checkpoints import Checkpoints, restore_params
from musicvae_jax.storage.full_disk import DiskFullError
from musicvae_jax.storage.staging import Staging
from musicvae_jax.tasks import get_task

CONFIG = get_task("mel_2bar").config


class InPieces:
    """A source of an array's bytes that uses one buffer for all parts."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield three bytes at a time."""
        content = np.frombuffer(self.array.tobytes(), np.uint8)
        buffer = np.empty(3, np.uint8)
        for start in range(0, content.size, 3):
            part = buffer[: content.size - start]
            part[:] = content[start : start + 3]
            yield part


def _trees() -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    params = {"cell": {"kernel": rng.normal(size=(5, 7)).astype("f4"), "bias": jnp.arange(7.0)}}
    moments = jax.tree.map(lambda leaf: np.asarray(leaf) * 2, params)
    return params, {
        "step": jnp.int32(4),
        "optimiser": ((), moments),
        "one": np.ones((1, 2), "f4"),
    }


def _save_staged(run: pathlib.Path) -> pathlib.Path:
    """Stage one array in pieces and the others from memory, and save them; return their folder."""
    params, state = _trees()
    params = {"cell": params["cell"] | {"kernel": InPieces(params["cell"]["kernel"])}}
    with Staging(run / "arrays") as staged:
        params, state = staged.stage((params, state))
        with Checkpoints(run, create=True, staging=staged) as saved:
            saved.save(4, params, state, CONFIG)
    return run / "checkpoints" / "4"


def test_they_are_read_like_others(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _save_staged(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    params, state = _trees()
    jax.tree.map(np.testing.assert_array_equal, restore_params(tmp_path)[1], params)
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    with Checkpoints(tmp_path, create=True) as saved:
        assert saved.last_good_step() == 4
        assert saved.state_names(4).keys() == state.keys()
        found = saved.restore(4, *jax.tree.map(shape, (params, state)))
        jax.tree.map(np.testing.assert_array_equal, found, (params, state))
        saved.save(5, *found, CONFIG)  # as training does
        assert saved.latest_step() == 5
    assert capsys.readouterr().err == ""


def test_the_digests_are_those_of_the_files(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[pathlib.Path] = []
    digest = checksums._digest

    def watched(path: pathlib.Path) -> str:
        read.append(path)
        return digest(path)

    monkeypatch.setattr(checksums, "_digest", watched)
    folder = _save_staged(tmp_path)
    arrays = {path for path in folder.rglob("*") if path.name.replace(".", "").strip("0") == ""}
    assert len(arrays) == 6
    assert arrays.isdisjoint(read)
    listed = json.loads((folder / checksums.CHECKSUMS).read_text())["sha256"]
    files = {p for p in folder.rglob("*") if p.is_file() and p.name != checksums.CHECKSUMS}
    assert listed == {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_a_change_in_any_file_is_found(tmp_path: pathlib.Path) -> None:
    folder = _save_staged(tmp_path)
    for path in [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]:
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert checksums.fault(folder) is not None, path
        path.write_bytes(content)
    assert checksums.fault(folder) is None


class Failing(InPieces):
    """A source that is damaged at its end."""

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield some bytes, then fail."""
        yield from super().pieces()
        raise InputError("the bytes have a wrong checksum")


def test_a_damaged_source_ends_it(tmp_path: pathlib.Path) -> None:
    arrays = [np.arange(9.0)] * 50
    with (
        pytest.raises(InputError, match="wrong checksum"),
        Staging(tmp_path / "arrays") as staged,
    ):
        staged.stage([Failing(arrays[0]), *arrays])
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_a_full_disk_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: io.FileIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    usage = shutil.disk_usage(tmp_path)
    with Staging(tmp_path / "arrays") as staged:
        with monkeypatch.context() as patched:
            patched.setattr(staging.os, "fsync", full)
            with pytest.raises(DiskFullError, match="no space left in"):
                staged.stage([np.zeros(3)])
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=23))
        with pytest.raises(DiskFullError, match="no space left in"):
            staged.stage([np.zeros(3)])
    assert list(tmp_path.iterdir()) == []

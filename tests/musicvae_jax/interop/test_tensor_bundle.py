"""TensorFlow checkpoints: recorded values, damaged and hostile files, and the writer."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import lzma
import pathlib
import shutil
import struct
import sys
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks.interop.fuzz_index import example_tensors, fuzz
from musicvae_jax.config import InputError
from musicvae_jax.interop.bundle_index import slice_key
from musicvae_jax.interop.bundle_writer import table_bytes, write_bundle
from musicvae_jax.interop.crc32c import crc32c, masked
from musicvae_jax.interop.tensor_bundle import TensorBundle

VALID = (
    "cat-drums_2bar",
    "cat-mel_2bar",
    "cat-mel_2bar_sharded",
    "cat-mel_2bar_tar/cat-mel_2bar.tar",
    "cat-mel_2bar_tar/cat-mel_2bar_flat.tar",
    "cat-mel_2bar_tar/cat-mel_2bar_meta.tar.gz",
    "flat-trio_16bar",
    "hier-mel_16bar",
    "hierdec-mel_16bar",
    "hierdec-trio_16bar",
    "odd_dtypes_and_slices",
    "own_writer",
)
# Files that were opened while a test watched: audit hooks cannot be removed.
_WATCHED: list[list[str]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _WATCHED and event == "open" and isinstance(arguments[0], str):
        _WATCHED[-1].append(arguments[0])


sys.addaudithook(_audit)


@contextlib.contextmanager
def opened_files() -> Iterator[list[str]]:
    """Collect the paths of files that are opened."""
    _WATCHED.append([])
    try:
        yield _WATCHED[-1]
    finally:
        _WATCHED.pop()


def _bytes(array: np.ndarray) -> bytes:
    return b"\n".join(array.ravel().tolist()) if array.dtype == object else array.tobytes()


def _read_all(path: pathlib.Path) -> dict[str, np.ndarray]:
    with TensorBundle(path) as bundle:
        return {name: bundle.read(name) for name in bundle.entries}


@pytest.mark.parametrize("name", VALID)
def test_every_value_is_the_recorded_one(name: str, shared: pathlib.Path) -> None:
    path = shared / "golden" / "tf_checkpoints" / name
    folder = path if path.is_dir() else path.parent
    with np.load(folder / "expected.npz") as expected:
        entries = json.loads(str(expected["entries"]))
    with TensorBundle(path) as bundle:
        assert list(bundle.entries) == sorted(entries, key=str.encode)
        for entry_name, entry in entries.items():
            array = bundle.read(entry_name)
            assert hashlib.md5(_bytes(array)).hexdigest() == entry["md5"], entry_name
            assert list(array.shape) == entry["shape"]
            stored = bundle.entries[entry_name].dtype
            assert stored == entry["dtype"] or entry["dtype"] not in ("float32", "int64")


def test_an_index_of_two_blocks(shared: pathlib.Path) -> None:
    folder = shared / "golden" / "tf_checkpoints" / "many_small"
    with np.load(folder / "expected.npz") as expected, TensorBundle(folder) as bundle:
        assert "\n".join(bundle.entries).encode() == expected["names"].tobytes()
        found = [bundle.read(name) for name in bundle.entries]
        np.testing.assert_array_equal(found, expected["values"])


def _hostile(shared: pathlib.Path) -> list[pathlib.Path]:
    folder = shared / "golden" / "tf_checkpoints"
    tars = [p for p in (folder / "bad_tars").iterdir() if p.name != "two_checkpoints.tar"]
    return [*tars, *(p for p in folder.glob("bad_*") if p.name != "bad_tars")]


def test_damaged_and_hostile_checkpoints_are_refused(shared: pathlib.Path) -> None:
    places = _hostile(shared)
    assert len(places) == 39
    for place in places:
        with opened_files() as opened, pytest.raises(InputError) as caught:
            _read_all(place)
        message = str(caught.value)
        assert message.startswith(f"checkpoint: {place}"), message
        assert "\n" not in message
        folder = place if place.is_dir() else place.parent
        assert [p for p in opened if pathlib.Path(p).resolve().parent != folder.resolve()] == []


def test_the_first_checkpoint_of_a_tar_counts(shared: pathlib.Path) -> None:
    path = shared / "golden" / "tf_checkpoints" / "bad_tars" / "two_checkpoints.tar"
    with TensorBundle(path) as bundle:
        assert bundle.name == f"{path}: a.ckpt.index"
        assert bundle.read("a").shape == (3, 4)


def test_a_damaged_index_is_refused_or_gives_equal_values(tmp_path: pathlib.Path) -> None:
    found = fuzz(tmp_path, 400, seed=1)
    assert found["refused"] > 300
    assert found.total() == 400


def test_what_is_written_is_read(tmp_path: pathlib.Path) -> None:
    tensors = example_tensors() | {"ä": np.zeros((2, 0)), "flags": np.array([True, False])}
    write_bundle(tmp_path / "model.ckpt-7", tensors)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == ["", ".data-00000-of-00001", ".index"]
    for place in (tmp_path, tmp_path / "model.ckpt-7", tmp_path / "model.ckpt-7.index"):
        with TensorBundle(place) as bundle:
            assert sorted(bundle.entries) == sorted(tensors)
            for name, array in tensors.items():
                found = bundle.read(name)
                np.testing.assert_array_equal(found, array)
                assert found.dtype == array.dtype
                assert found.flags.writeable


def test_an_index_of_several_blocks_is_written(tmp_path: pathlib.Path) -> None:
    tensors = {f"{'x' * 200}/{n:05d}": np.float32(n) for n in range(3000)}
    write_bundle(tmp_path / "m", tensors)
    assert (tmp_path / "m.index").stat().st_size < 2 * 200 * 3000 // 5  # keys share their starts
    with TensorBundle(tmp_path / "m") as bundle:
        assert [bundle.read(name) for name in bundle.entries] == list(range(3000))


def test_the_newest_checkpoint_of_a_folder(tmp_path: pathlib.Path) -> None:
    for step in (9, 10):
        write_bundle(tmp_path / f"model.ckpt-{step}", {"step": np.array(step)})
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/model.ckpt-9"\n')
    with TensorBundle(tmp_path) as bundle:
        assert bundle.read("step") == 9
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt\\05510"\n')
    with TensorBundle(tmp_path) as bundle:
        assert bundle.read("step") == 10
    strange = 'model "a"\n\\b'
    write_bundle(tmp_path / strange, {"x": np.zeros(2)})  # it writes the file `checkpoint`
    with TensorBundle(tmp_path) as bundle:
        assert bundle.name == str(tmp_path / f"{strange}.index")
    (tmp_path / f"{strange}.index").unlink()
    (tmp_path / "checkpoint").unlink()
    with TensorBundle(tmp_path) as bundle:
        assert bundle.read("step") == 10


def test_a_name_with_escaped_letters_is_found(tmp_path: pathlib.Path) -> None:
    write_bundle(tmp_path / "modèle", {"step": np.array(3)})
    with TensorBundle(tmp_path) as bundle:
        assert bundle.read("step") == 3
    # As TensorFlow writes it: each byte of UTF-8 in octal.
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "mod\\303\\250le"\n')
    with TensorBundle(tmp_path) as bundle:
        assert bundle.read("step") == 3


def test_a_data_file_that_cannot_be_opened_is_reported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "m", {"step": np.array(3)})

    opened = pathlib.Path.open

    def fail(path: pathlib.Path, *arguments: Any, **options: Any) -> Any:
        if ".data-" in path.name:
            raise OSError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "open", fail)
    with pytest.raises(InputError, match=r"m\.index: a data file: .*Permission denied"):
        TensorBundle(tmp_path / "m")


def test_a_data_file_that_shrinks_while_it_is_open_is_reported(tmp_path: pathlib.Path) -> None:
    write_bundle(tmp_path / "m", {"step": np.array(3)})
    with TensorBundle(tmp_path / "m") as bundle:
        (tmp_path / "m.data-00000-of-00001").write_bytes(b"\3\0")
        with pytest.raises(InputError, match=r"m\.data-00000-of-00001 was truncated"):
            bundle.read("step")


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
def test_tar_files_are_read_without_unpacking(
    compress: Callable[[bytes], bytes], tmp_path: pathlib.Path
) -> None:
    tensors = example_tensors()
    write_bundle(tmp_path / "m", tensors)
    path = tmp_path / "a" / "packed"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for file in sorted(tmp_path.glob("m.*")):
            tar.add(file, f"./run/{file.name}")
    path.write_bytes(compress(path.read_bytes()))
    found = _read_all(path)
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)
    assert list(path.parent.iterdir()) == [path]
    path.write_bytes(path.read_bytes()[: 700 if compress is bytes else 300])
    with pytest.raises(InputError, match=r"^checkpoint: .*packed"):
        TensorBundle(path)


def test_slices_that_overlap_are_refused(tmp_path: pathlib.Path) -> None:
    parts = [((0, 2),), ((1, 2),)]
    part = struct.pack("<2f", 1, 2)
    entries = {b"": b"\x08\x01\x1a\x02\x08\x01"}
    stored = b"\x08\x01\x12\x04\x12\x02\x08\x02\x28\x08\x35" + struct.pack(
        "<I", masked(crc32c(part))
    )
    entries |= {slice_key("w", p): stored for p in parts}
    extents = b"\x3a\x04\x0a\x02\x10\x02" + b"\x3a\x06\x0a\x04\x08\x01\x10\x02"
    entries[b"w"] = b"\x08\x01\x12\x04\x12\x02\x08\x04" + extents
    (tmp_path / "m.index").write_bytes(table_bytes(entries))
    (tmp_path / "m.data-00000-of-00001").write_bytes(part)
    with pytest.raises(InputError, match="'w': its slices overlap"):
        TensorBundle(tmp_path / "m")


def test_keys_of_slices() -> None:
    rows = slice_key("rows", ((4, 3), (0, -1)))
    assert rows == bytes.fromhex("00726f777300010102848380" + "7f")
    assert slice_key("a", ((70, 270),))[-4:] == bytes.fromhex("c046c10e")
    assert slice_key("a", ((2**62, 1),))[-11:-1] == bytes.fromhex("ffc0") + (2**62).to_bytes(
        8, "big"
    )


def test_missing_files_are_named(tmp_path: pathlib.Path) -> None:
    write_bundle(tmp_path / "m", {"a": np.zeros(3)})
    with pytest.raises(InputError, match=r"nothing is not there, and there is no nothing\.index"):
        TensorBundle(tmp_path / "nothing")
    (tmp_path / "m.data-00000-of-00001").unlink()
    with pytest.raises(InputError, match=r"m\.data-00000-of-00001 is missing"):
        TensorBundle(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(InputError, match=r"has no \.index file"):
        TensorBundle(tmp_path)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    (tmp_path / "old.ckpt").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="neither a readable tar file nor a prefix"):
        TensorBundle(tmp_path / "old.ckpt")

"""TensorFlow V2 checkpoints ("tensor bundles") without TensorFlow: NumPy and the standard library.

    <prefix>.index                  sorted table: tensor name -> dtype, shape, where its bytes are
    <prefix>.data-00000-of-00001    the bytes of the tensors

The index is read completely and checked: its checksums, that every tensor lies within its data
file, and that sizes agree. A tensor's bytes are read, and their checksum verified, when the tensor
is asked for.

Reference: tensorflow/core/util/tensor_bundle.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import sys
from collections.abc import Iterator

import numpy as np

from musicvae_jax.config import InputError
from musicvae_jax.interop import checkpoint_files
from musicvae_jax.interop.bundle_index import (
    Entry,
    IndexFaultError,
    Slice,
    item_size,
    read_index,
    read_varint,
    slice_key,
)
from musicvae_jax.interop.crc32c import crc32c, masked

_PIECE = 1 << 20  # bytes read and checked at a time: still in the processor's cache


class TensorBundle:
    """The tensors of one checkpoint; use it in a `with` statement, or close it.

    Args:
      path: a prefix, an index file, a folder (its newest checkpoint) or a tar file.

    Attributes:
      name: of the index file, for messages.
      entries: index entry of each tensor by its name, sorted by the bytes of the names.

    Raises:
      InputError: there is no such checkpoint, its index is damaged, or a data file is missing,
        truncated or cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._stack = contextlib.ExitStack()
        try:
            files = self._stack.enter_context(checkpoint_files.open_files(path))
            self.name = files.name
            num_shards, found = read_index(files.table)
            self._data = [
                files.data(f".data-{shard:05d}-of-{num_shards:05d}") for shard in range(num_shards)
            ]
            self._slices = {key: entry for key, entry in found.items() if key.startswith(b"\0")}
            self.entries = {
                _decoded(key): entry for key, entry in found.items() if key not in self._slices
            }
            for key, entry in found.items():
                self._check_place(key, entry)
        except IndexFaultError as fault:
            self.close()
            raise InputError(f"checkpoint: {files.name}: {fault}") from fault
        except OSError as error:
            self.close()
            raise InputError(f"checkpoint: {files.name}: a data file: {error}") from error
        except InputError:
            self.close()
            raise

    def __enter__(self) -> TensorBundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the files."""
        self._stack.close()

    def read(self, name: str) -> np.ndarray:
        """Read a tensor and verify its checksum.

        Args:
          name: one of `entries`.

        Returns:
          a new array of native byte order; bfloat16 becomes float32, strings become an array of
          `bytes` objects.

        Raises:
          InputError: the bytes cannot be read, or their checksum is not that of the index.
        """
        entry = self.entries[name]
        if not entry.slices:
            return self._read(name, entry)
        whole = np.zeros(entry.shape, _numpy_dtype(entry.dtype))
        for part in entry.slices:
            region = _region(part, entry.shape)
            key = slice_key(name, part)
            whole[region] = self._read(name, self._slices[key])
        return whole

    @property
    def is_seekable(self) -> bool:
        """Whether tensors may be read in any order, and from several threads, at no extra cost."""
        return all(file.is_seekable for file in self._data)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield the bytes of a tensor of numbers in parts, uint8, and verify its checksum.

        Each part is overwritten by the next one. They are those of what `read` returns.

        Raises:
          InputError: as in `read`; a wrong checksum after the last part.
        """
        entry = self.entries[name]
        if entry.slices or entry.dtype in ("string", "bfloat16") or sys.byteorder != "little":
            yield np.ascontiguousarray(self.read(name)).reshape(-1).view(np.uint8)
            return
        crc = 0
        buffer = aligned_empty(min(entry.size, _PIECE))
        for start in range(0, entry.size, _PIECE):
            piece = buffer[: entry.size - start]
            crc = self._read_piece(entry, start, piece, crc)
            yield piece
        if masked(crc) != entry.crc:
            raise self._wrong_checksum(name, entry)

    def _read_piece(self, entry: Entry, start: int, piece: np.ndarray, crc: int) -> int:
        """Fill an array with a tensor's bytes from `start` on, and return the checksum so far."""
        self._data[entry.shard].read_into(entry.offset + start, piece)
        return crc32c(piece, crc)

    def _wrong_checksum(self, name: str, entry: Entry) -> InputError:
        file = self._data[entry.shard].name
        return InputError(f"checkpoint: {file}: the bytes of {name!r} have a wrong checksum")

    def _read(self, name: str, entry: Entry) -> np.ndarray:
        """Read one contiguous tensor."""
        content = aligned_empty(entry.size)
        crc = 0
        for start in range(0, entry.size, _PIECE):
            crc = self._read_piece(entry, start, content[start : start + _PIECE], crc)
        if entry.dtype == "string" and entry.size:
            strings, crc = _strings(content.tobytes(), math.prod(entry.shape))
            if strings is not None and masked(crc) == entry.crc:
                return np.array([*strings, None], object)[:-1].reshape(entry.shape)
        elif masked(crc) == entry.crc:
            if entry.dtype == "bfloat16":
                upper = content.view("<u2").astype(np.uint32) << 16
                return upper.view(np.float32).reshape(entry.shape)
            array = content.view(np.dtype(entry.dtype).newbyteorder("<")).reshape(entry.shape)
            return array.astype(array.dtype.newbyteorder("="), copy=False)
        raise self._wrong_checksum(name, entry)

    def _check_place(self, key: bytes, entry: Entry) -> None:
        """Check that an entry's bytes exist and are as many as its shape says."""
        name = key.decode("utf-8", "replace")
        if entry.slices:
            if key in self._slices:
                raise IndexFaultError(f"the slice {name!r} has slices")
            self._check_slices(name, entry)
            return
        if entry.shard >= len(self._data):
            raise IndexFaultError(f"{name!r} is in data file {entry.shard} of {len(self._data)}")
        file = self._data[entry.shard]
        count = math.prod(entry.shape)
        expected = count * item_size(entry.dtype)
        is_right = entry.size == expected
        if entry.dtype == "string":  # a length each and the lengths' checksum, at least
            is_right = entry.size >= count + 4 or (count == 0 and entry.size == 0)
        if not is_right:
            raise IndexFaultError(
                f"{name!r} has {entry.size} bytes; its shape {list(entry.shape)} of "
                f"{entry.dtype} does not"
            )
        if entry.offset + entry.size > file.size:
            raise InputError(
                f"checkpoint: {file.name} has {file.size:,} bytes, but {name!r} ends at "
                f"{entry.offset + entry.size:,}; it is truncated"
            )

    def _check_slices(self, name: str, entry: Entry) -> None:
        """Check that the parts of a tensor exist and together are the tensor, each element once."""
        volume = 0
        for part in entry.slices:
            found = self._slices.get(slice_key(name, part))
            lengths = tuple(
                size if length < 0 else length
                for (_, length), size in zip(part, entry.shape, strict=True)
            )
            if found is None or found.shape != lengths or found.dtype != entry.dtype:
                raise IndexFaultError(
                    f"{name!r}: the slice {list(part)} is missing or of another shape"
                )
            volume += math.prod(lengths)
        if volume != math.prod(entry.shape) or entry.dtype == "string":
            raise IndexFaultError(
                f"{name!r}: its slices do not add up to its shape {list(entry.shape)}"
            )
        # Bounded by the data files: the slices' sizes were just compared with them.
        covered = np.zeros(entry.shape, bool)
        for part in entry.slices:
            covered[_region(part, entry.shape)] = True
        if not covered.all():
            raise IndexFaultError(f"{name!r}: its slices overlap")


def aligned_empty(size: int) -> np.ndarray:
    """Return `size` bytes, uint8, at an address that JAX takes over without a copy."""
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size]


def _numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype("float32" if dtype == "bfloat16" else dtype)


def _region(part: Slice, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Turn a slice into what indexes the whole array."""
    lengths = [
        size if length < 0 else length for (_, length), size in zip(part, shape, strict=True)
    ]
    return tuple(
        slice(start, start + length) for (start, _), length in zip(part, lengths, strict=True)
    )


def _strings(content: bytes, count: int) -> tuple[list[bytes] | None, int]:
    """Split the bytes of a string tensor: (elements or None if malformed, checksum so far)."""
    try:
        lengths, at = [], 0
        for _ in range(count):
            length, at = read_varint(content, at)
            lengths.append(length)
        packed = struct.pack(f"<{count}I", *lengths)
    except (IndexFaultError, struct.error):
        return None, 0
    crc = crc32c(packed)
    stored, at = content[at : at + 4], at + 4
    if stored != struct.pack("<I", masked(crc)) or at + sum(lengths) != len(content):
        return None, 0
    crc = crc32c(content[at:], crc32c(stored, crc))
    strings = []
    for length in lengths:
        strings.append(content[at : at + length])
        at += length
    return strings, crc


def _decoded(key: bytes) -> str:
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IndexFaultError(f"the name {key!r} is not UTF-8") from error

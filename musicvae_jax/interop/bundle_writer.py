"""Writes TensorFlow V2 checkpoints that TensorFlow itself reads: one data file and its index."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from musicvae_jax.interop.bundle_index import DTYPES, FOOTER_SIZE, MAGIC
from musicvae_jax.interop.crc32c import crc32c, masked

_CODES = {name: code for code, name in DTYPES.items() if name not in ("string", "bfloat16")}
_BLOCK_BYTES = 262_144
_RESTART_INTERVAL = 16
_PIECE = 1 << 23  # bytes written at a time


def write_bundle(prefix: str | os.PathLike[str], tensors: Mapping[str, Any]) -> None:
    """Write tensors as `<prefix>.index` and `<prefix>.data-00000-of-00001`.

    A file named `checkpoint` beside them names the prefix, so that TensorFlow finds it as the
    folder's latest. The index appears last: without it there is no checkpoint.

    Args:
      prefix: path and beginning of the files' names; existing files are replaced.
      tensors: name to array of a numeric type.
    """
    prefix = pathlib.Path(prefix)
    header = _varint_field(1, 1) + _bytes_field(3, _varint_field(1, 1))
    entries = {b"": header}
    data = prefix.with_name(prefix.name + ".data-00000-of-00001")
    partial = data.with_name(data.name + ".partial")
    try:
        with partial.open("wb") as file:
            for name in sorted(tensors, key=str.encode):
                array = np.asarray(tensors[name])
                offset, crc = file.tell(), 0
                content = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
                content = content.reshape(-1).view(np.uint8)
                for start in range(0, content.size, _PIECE):
                    piece = content[start : start + _PIECE]
                    crc = crc32c(piece, crc)
                    file.write(piece.tobytes())
                entries[name.encode()] = _entry(array, offset, content.size, crc)
        partial.replace(data)
    finally:
        partial.unlink(missing_ok=True)
    quoted = prefix.name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    state = f'model_checkpoint_path: "{quoted}"\nall_model_checkpoint_paths: "{quoted}"\n'
    _write_whole(prefix.with_name("checkpoint"), state.encode())
    _write_whole(prefix.with_name(prefix.name + ".index"), table_bytes(entries))


def _write_whole(path: pathlib.Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _entry(array: np.ndarray, offset: int, size: int, crc: int) -> bytes:
    """Write the protocol buffer that says where a tensor is; fields of value 0 are left out."""
    dims = b"".join(_bytes_field(2, _varint_field(1, n)) for n in array.shape)
    return (
        _varint_field(1, _CODES[array.dtype.name])
        + _bytes_field(2, dims)
        + _varint_field(4, offset)
        + _varint_field(5, size)
        + bytes([6 << 3 | 5])
        + struct.pack("<I", masked(crc))
    )


def table_bytes(entries: Mapping[bytes, bytes]) -> bytes:
    """Write a LevelDB table of sorted keys."""
    table = bytearray()
    handles: list[tuple[bytes, bytes]] = []
    block: list[tuple[bytes, bytes]] = []
    size = 0
    for key in sorted(entries):
        block.append((key, entries[key]))
        size += len(key) + len(entries[key])
        if size >= _BLOCK_BYTES:
            handles.append((key, _append_block(table, block, _RESTART_INTERVAL)))
            block, size = [], 0
    if block:
        handles.append((block[-1][0], _append_block(table, block, _RESTART_INTERVAL)))
    footer = _append_block(table, [], 1) + _append_block(table, handles, 1)
    return bytes(table) + footer.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def _append_block(table: bytearray, pairs: list[tuple[bytes, bytes]], interval: int) -> bytes:
    """Append a block with its type and checksum, and return its handle."""
    content, restarts, last = bytearray(), [0], b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number % interval:
            shared = _common_length(key, last)
        elif number:
            restarts.append(len(content))
        content += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
        content += key[shared:] + value
        last = key
    content += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    handle = _varint(len(table)) + _varint(len(content))
    content.append(0)  # stored, not compressed
    table += content + struct.pack("<I", masked(crc32c(content)))
    return handle


def _common_length(a: bytes, b: bytes) -> int:
    """Return how many first bytes two keys have in common."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _varint(value: int) -> bytes:
    """Write an unsigned variable-length integer."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _varint_field(number: int, value: int) -> bytes:
    return bytes([number << 3]) + _varint(value) if value else b""


def _bytes_field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content

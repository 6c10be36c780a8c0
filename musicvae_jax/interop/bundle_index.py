"""The index of a TensorFlow V2 checkpoint: a LevelDB table whose values are protocol buffers.

    data blocks | metaindex block | index block | footer (two block handles, magic)

Each block has a checksum. The first key is empty; its value is the header. Every other value says
where a tensor's bytes are.

Reference: tensorflow/core/lib/io/table and tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from musicvae_jax.interop.crc32c import crc32c, masked

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE = 48
# Number of a type in the file -> name of the NumPy type.
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
_VARINT, _BYTES, _FIXED32 = 0, 2, 5  # wire types of protocol buffers
_HEADER = {1: _VARINT, 2: _VARINT, 3: _BYTES}
_ENTRY = {1: _VARINT, 2: _BYTES, 3: _VARINT, 4: _VARINT, 5: _VARINT, 6: _FIXED32, 7: _BYTES}

Slice = tuple[tuple[int, int], ...]  # (start, length) per dimension; length -1: all of it
Message = dict[int, list[int | bytes]]


class Entry(NamedTuple):
    """Index entry of one tensor.

    Attributes:
      dtype: name of its type: a NumPy type, "string" or "bfloat16".
      shape: its dimensions.
      shard: number of its data file.
      offset: first byte in that file.
      size: bytes.
      crc: masked CRC-32C of these bytes.
      slices: parts that a partitioned tensor is stored in; empty for others.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[Slice, ...]


class IndexFaultError(Exception):
    """A fault of an index; the caller turns it into an InputError that names the file."""


def item_size(dtype: str) -> int:
    """Return the bytes of one element; of a string, the least."""
    return {"string": 1, "bfloat16": 2}.get(dtype) or np.dtype(dtype).itemsize


def read_index(data: bytes) -> tuple[int, dict[bytes, Entry]]:
    """Read an index file: (number of data files, entries by their keys)."""
    if len(data) < FOOTER_SIZE or data[-len(MAGIC) :] != MAGIC:
        raise IndexFaultError(
            "not an index file of a V2 checkpoint, or truncated (no table footer)"
        )
    at = len(data) - FOOTER_SIZE
    _, at = _handle(data, at)
    index, _ = _handle(data, at)
    table: dict[bytes, bytes] = {}
    last = None
    for _, value in _block(data, *index):
        handle, _ = _handle(value, 0)
        for key, content in _block(data, *handle):
            if last is not None and key <= last:
                raise IndexFaultError(f"the keys {last!r} and {key!r} are out of order")
            table[key] = content
            last = key
    if b"" not in table:
        raise IndexFaultError("it has no header")
    num_shards = _num_shards(table.pop(b""))
    return num_shards, {key: _entry(key, content) for key, content in table.items()}


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Read a block's (offset, size), and where the next value begins."""
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block, after its checksum was verified."""
    end = offset + size
    if end + 5 > len(data) - FOOTER_SIZE:
        raise IndexFaultError(f"a block ends at byte {end + 5:,}, beyond the table")
    (stored,) = struct.unpack_from("<I", data, end + 1)
    if masked(crc32c(data[offset : end + 1])) != stored:
        raise IndexFaultError(f"the block at byte {offset:,} has a wrong checksum")
    if data[end] != 0:
        raise IndexFaultError(f"the block at byte {offset:,} is compressed, which is not supported")
    content = data[offset:end]
    if size < 4:
        raise IndexFaultError("a block is too short")
    (restarts,) = struct.unpack_from("<I", content, size - 4)
    limit = size - 4 - 4 * restarts
    if limit < 0:
        raise IndexFaultError("a block has more restart points than bytes")
    key, at = b"", 0
    while at < limit:
        shared, at = read_varint(content, at)
        unshared, at = read_varint(content, at)
        length, at = read_varint(content, at)
        if shared > len(key) or at + unshared + length > limit:
            raise IndexFaultError("an entry of a block reaches beyond it")
        key = key[:shared] + content[at : at + unshared]
        at += unshared
        yield key, content[at : at + length]
        at += length


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read an unsigned variable-length integer: (value, where the next begins)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise IndexFaultError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise IndexFaultError("a number has more than 10 bytes")


# The values: protocol buffers.


def _message(data: bytes, kinds: dict[int, int]) -> Message:
    """Read a protocol buffer; `kinds` are the wire types of the fields to keep."""
    found: Message = {}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = read_varint(data, at)
        else:
            size = {1: 8, _FIXED32: 4}.get(kind)
            if kind == _BYTES:
                size, at = read_varint(data, at)
            if size is None or at + size > len(data):
                raise IndexFaultError("a protocol buffer is malformed")
            value, at = data[at : at + size], at + size
        if number in kinds:
            if kind != kinds[number]:
                raise IndexFaultError("a field of a protocol buffer has the wrong type")
            found.setdefault(number, []).append(value)
    return found


def _number(message: Message, field: int) -> int:
    """Return a field's last value as a signed number, 0 if it is absent."""
    value = message.get(field, [0])[-1]
    if isinstance(value, bytes):
        return int.from_bytes(value, "little")
    return value - (1 << 64) if value >= 1 << 63 else value


def _parts(message: Message, field: int) -> list[bytes]:
    """Return the values of a repeated field of messages."""
    return [value for value in message.get(field, []) if isinstance(value, bytes)]


def _num_shards(data: bytes) -> int:
    """Check the header and return the number of data files."""
    header = _message(data, _HEADER)
    num_shards = _number(header, 1)
    if not 1 <= num_shards <= 10_000:
        raise IndexFaultError(f"the header names {num_shards:,} data files")
    if _number(header, 2) != 0:
        raise IndexFaultError("its data is big endian, which is not supported")
    for version in _parts(header, 3):
        if _number(_message(version, {1: _VARINT, 2: _VARINT}), 2) > 1:
            raise IndexFaultError("it needs a newer version of the format")
    return num_shards


def _entry(key: bytes, data: bytes) -> Entry:
    """Read the entry of one tensor, and check what can be checked without the data files."""
    name = key.decode("utf-8", "replace")
    message = _message(data, _ENTRY)
    code = _number(message, 1)
    if code not in DTYPES:
        raise IndexFaultError(f"{name!r} has the unknown or unsupported type {code}")
    shape: tuple[int, ...] = ()
    for content in _parts(message, 2)[-1:]:
        fields = _message(content, {2: _BYTES, 3: _VARINT})
        if _number(fields, 3):
            raise IndexFaultError(f"{name!r} has no shape")
        shape = tuple(_number(_message(dim, {1: _VARINT}), 1) for dim in _parts(fields, 2))
    item = item_size(DTYPES[code])
    # NumPy multiplies the dimensions even where one is 0.
    if min(shape, default=0) < 0 or math.prod(max(n, 1) for n in shape) * item >= 1 << 62:
        raise IndexFaultError(f"{name!r} has the impossible shape {list(shape)}")
    if len(shape) > 32:
        raise IndexFaultError(f"{name!r} has {len(shape)} dimensions")
    slices = tuple(_slice(content, shape, name) for content in _parts(message, 7))
    shard, offset, size = (_number(message, field) for field in (3, 4, 5))
    if min(shard, offset, size) < 0:
        raise IndexFaultError(f"{name!r} has a negative offset, size or data file")
    return Entry(DTYPES[code], shape, shard, offset, size, _number(message, 6), slices)


def _slice(data: bytes, shape: tuple[int, ...], name: str) -> Slice:
    """Read one slice of a partitioned tensor."""
    part = []
    for extent in _parts(_message(data, {1: _BYTES}), 1):
        message = _message(extent, {1: _VARINT, 2: _VARINT})
        has_length = 2 in message
        part.append((_number(message, 1), _number(message, 2) if has_length else -1))
    ok = len(part) == len(shape) and all(
        (start == 0 if length == -1 else min(start, length) >= 0 and start + length <= size)
        for (start, length), size in zip(part, shape, strict=False)
    )
    if not ok:
        raise IndexFaultError(
            f"{name!r} has a slice {part} that does not fit its shape {list(shape)}"
        )
    return tuple(part)


def slice_key(name: str, part: Slice) -> bytes:
    """Return the key under which a slice is stored (TensorFlow's "ordered code")."""
    text = name.encode("utf-8")
    text = text.replace(b"\xff", b"\xff\x00").replace(b"\x00", b"\x00\xff")
    rank = len(part).to_bytes((len(part).bit_length() + 7) // 8, "big")
    extents = b"".join(_signed_code(v) for extent in part for v in extent)
    return b"\0" + text + b"\x00\x01" + bytes([len(rank)]) + rank + extents


def _signed_code(value: int) -> bytes:
    """Write a signed number so that the order of the bytes is that of the numbers."""
    length = (value if value >= 0 else ~value).bit_length() // 7 + 1
    code = bytearray(value.to_bytes(length, "big", signed=True))
    # Ones to count the bytes; with 9 or 10 they run into the second byte.
    mask = ((1 << length) - 1) << 16 - length
    code[0] ^= mask >> 8
    if length > 8:
        code[1] ^= mask & 0xFF
    return bytes(code)

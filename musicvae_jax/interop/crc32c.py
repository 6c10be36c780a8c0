"""CRC-32C (Castagnoli), the checksum of TensorFlow's files.

`google-crc32c` computes it where it is installed. The code here needs NumPy only. It shortens the
data with XORs of whole blocks before it takes single bytes:

The generator polynomial divides 1 + x^426 + x^1362 + x^5685. So it also divides that polynomial's
2^k-th powers, which over GF(2) are 1 + x^(426 s) + x^(1362 s) + x^(5685 s) with s = 2^k. Modulo the
generator, x^(5685 s) equals the sum of the others: a block of bytes may be added (XORed) at three
later positions and then dropped. With s a multiple of 8, these are positions of whole bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

_REFLECTED_POLYNOMIAL = 0x82F63B78
# A dropped block is added so many times s / 8 bytes later: 5685, 5685 - 426 and 5685 - 1362.
_DISTANCES = (5685, 5259, 4323)
_SCALES = (64, 8, 1)  # s / 8
_PIECE = 1 << 23  # bytes shortened at a time


def crc32c(data: Any, crc: int = 0) -> int:
    """Return the CRC-32C of bytes-like data that follows data of checksum `crc`."""
    return _implementation()(crc, data)


def masked(crc: int) -> int:
    """Return a checksum as TensorFlow stores it, so that files may hold checksums of checksums."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _implementation() -> Callable[[int, Any], int]:
    try:
        import google_crc32c
    except ImportError:
        return numpy_crc32c
    if google_crc32c.implementation == "python":
        return numpy_crc32c
    # The package takes an array as it is; a memoryview would have to be copied.
    return lambda crc, data: google_crc32c.extend(crc, np.frombuffer(data, np.uint8))


def numpy_crc32c(crc: int, data: Any) -> int:
    """Extend a checksum by bytes-like data, with NumPy."""
    source = np.frombuffer(data, np.uint8)
    state = crc ^ 0xFFFFFFFF
    for start in range(0, len(source), _PIECE):
        state = _extend(state, source[start : start + _PIECE])
    return state ^ 0xFFFFFFFF


def _extend(state: int, source: np.ndarray) -> int:
    """Extend the inner state of a checksum by at most `_PIECE` bytes [N] uint8."""
    if len(source) > 2 * _DISTANCES[0]:
        source = source.copy()
        source[:4] ^= np.frombuffer(state.to_bytes(4, "little"), np.uint8)
        source, state = _shortened(source), 0
    table = _byte_table()
    for byte in source.tobytes():
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state


def _shortened(data: np.ndarray) -> np.ndarray:
    """Return the end of the data, changed so that its checksum is that of all; overwrites it."""
    start = 0
    for scale in _SCALES:
        while len(data) - start > scale * _DISTANCES[0]:
            size = min(len(data) - start - scale * _DISTANCES[0], scale * _DISTANCES[-1])
            block = data[start : start + size]
            for distance in _DISTANCES:
                data[start + scale * distance : start + scale * distance + size] ^= block
            start += size
    return data[start:]


@functools.cache
def _byte_table() -> tuple[int, ...]:
    """Return the state after one byte, for each byte."""
    states = list(range(256))
    for _ in range(8):
        states = [(s >> 1) ^ _REFLECTED_POLYNOMIAL * (s & 1) for s in states]
    return tuple(states)

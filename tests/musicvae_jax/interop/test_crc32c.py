"""CRC-32C against published values and against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from musicvae_jax.interop.crc32c import crc32c, masked, numpy_crc32c


def bit_by_bit(data: bytes, crc: int = 0) -> int:
    """Divide by the polynomial, one bit at a time."""
    state = crc ^ 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, B.4, and the usual check value
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_published_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == numpy_crc32c(0, data) == bit_by_bit(data) == expected


@pytest.mark.parametrize("size", [1, 11_370, 11_371, 50_001, 8 * 5685 + 3, 64 * 5685 + 17])
def test_long_data(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    assert numpy_crc32c(0, data) == bit_by_bit(data)
    assert numpy_crc32c(0x12345678, data) == bit_by_bit(data, 0x12345678)


def test_data_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
    whole = numpy_crc32c(0, data)
    assert numpy_crc32c(numpy_crc32c(0, data[:777]), data[777:]) == whole
    monkeypatch.setattr("musicvae_jax.interop.crc32c._PIECE", 30_000)
    assert numpy_crc32c(0, data) == whole
    assert crc32c(data) == whole


def test_the_data_is_not_changed() -> None:
    data = np.arange(50_000, dtype=np.uint8)
    kept = data.copy()
    numpy_crc32c(5, data)
    np.testing.assert_array_equal(data, kept)


def test_masking() -> None:
    assert masked(0) == 0xA282EAD8
    assert masked(0xE3069283) == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32

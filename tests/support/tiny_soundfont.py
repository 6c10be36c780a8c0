"""A SoundFont of one preset that plays one looped sample, a sine."""

from __future__ import annotations

import struct

import numpy as np

SAMPLE_RATE = 44_100
PERIOD = 100  # samples, a pitch of 441 Hz
SILENCE = 46  # samples that the format wants after each sample
INSTRUMENT, SAMPLE_MODES, SAMPLE_ID = 41, 54, 53  # generators
LOOPED, MONO = 1, 1


def tiny_soundfont() -> bytes:
    """Write the SoundFont, 700 bytes, as of the SoundFont specification 2.01."""
    wave = np.sin(2 * np.pi * np.arange(PERIOD) / PERIOD)
    samples = np.concatenate([20_000 * wave, np.zeros(SILENCE)]).astype("<i2").tobytes()
    sample = (0, PERIOD, 0, PERIOD, SAMPLE_RATE, 69, 0, 0, MONO)
    presets = {
        "phdr": _preset("sine", 0) + _preset("EOP", 1),
        "pbag": struct.pack("<4H", 0, 0, 1, 0),
        "pmod": bytes(10),
        "pgen": struct.pack("<4H", INSTRUMENT, 0, 0, 0),
        "inst": struct.pack("<20sH20sH", b"sine", 0, b"EOI", 1),
        "ibag": struct.pack("<4H", 0, 0, 2, 0),
        "imod": bytes(10),
        "igen": struct.pack("<6H", SAMPLE_MODES, LOOPED, SAMPLE_ID, 0, 0, 0),
        "shdr": struct.pack("<20s5I2B2H", b"sine", *sample) + struct.pack("<20s26x", b"EOS"),
    }
    info = {"ifil": struct.pack("<2H", 2, 1), "isng": b"EMU8000\0", "INAM": b"tiny\0\0"}
    lists = _list("INFO", info) + _list("sdta", {"smpl": samples}) + _list("pdta", presets)
    return _chunk("RIFF", b"sfbk" + lists)


def _preset(name: str, bag: int) -> bytes:
    return struct.pack("<20s3H3I", name.encode(), 0, 0, bag, 0, 0, 0)


def _list(name: str, chunks: dict[str, bytes]) -> bytes:
    parts = [_chunk(key, content) for key, content in chunks.items()]
    return _chunk("LIST", name.encode() + b"".join(parts))


def _chunk(name: str, content: bytes) -> bytes:
    return name.encode() + struct.pack("<I", len(content)) + content

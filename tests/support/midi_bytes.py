"""Write MIDI files byte by byte, right and wrong ones, and make up random songs."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

from data_pipeline.fast.midi import read_table
from data_pipeline.fast.tempo import QPM, SECONDS, to_seconds
from data_pipeline.reading.segments import NOTE_DTYPE, NoteArrays

END = "00 FF 2F 00"


def midi(
    *tracks: str | bytes, division: int = 4, num_tracks: int | None = None, kind: int = 1
) -> bytes:
    """A file of tracks given in hexadecimal, each event as wait and message."""
    count = len(tracks) if num_tracks is None else num_tracks
    return struct.pack(">4sLhhh", b"MThd", 6, kind, count, division) + b"".join(map(chunk, tracks))


def chunk(track: str | bytes) -> bytes:
    """One track with its header."""
    events = bytes.fromhex(track) if isinstance(track, str) else track
    return struct.pack(">4sL", b"MTrk", len(events)) + events


def variable_int(value: int) -> bytes:
    """A number in groups of 7 bits."""
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127 | 128)
    return bytes(reversed(groups))


def track(events: Iterable[tuple[int, bytes]]) -> bytes:
    """Events at absolute ticks, in any order but kept in order within a tick, as one track."""
    out, now = b"", 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        out += variable_int(tick - now) + message
        now = tick
    return out + bytes.fromhex(END)


def tempo(microseconds: int) -> bytes:
    """A tempo in microseconds per quarter."""
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def meter(numerator: int, exponent: int) -> bytes:
    """A time signature; the denominator is 2**exponent."""
    return bytes([0xFF, 0x58, 4, numerator, exponent, 24, 8])


def random_song(rng: np.random.Generator, num_tracks: int = 6, num_bars: int = 40) -> bytes:
    """A song with all that rows depend on: overlaps, gaps, drums, changes of time and program."""
    division = int(rng.choice([4, 7, 24, 96, 480]))
    bar = 4 * division
    changes = [(0, tempo(int(rng.integers(200_000, 900_000))))]
    for _ in range(int(rng.integers(0, 3))):
        tick = int(rng.integers(0, num_bars)) * bar + int(rng.integers(0, 2))
        changes.append((tick, tempo(int(rng.integers(200_000, 900_000)))))
    for _ in range(int(rng.integers(0, 2))):
        tick = int(rng.integers(0, num_bars)) * bar
        fraction = [(4, 2), (4, 2), (2, 1), (3, 2), (7, 3)][int(rng.integers(0, 5))]
        changes.append((tick, meter(*fraction)))
    tracks = [track(changes)]
    tracks += [track(_part(rng, number, num_bars, division)) for number in range(num_tracks)]
    return midi(*tracks, division=division)


def _part(
    rng: np.random.Generator, number: int, num_bars: int, division: int
) -> list[tuple[int, bytes]]:
    """One track: drums, bass or anything else, denser and thinner by chance."""
    channel = 9 if number == 0 else int(rng.integers(0, 16))
    programs = [range(32, 40), range(0, 32), range(0, 128)][min(number, 2)]
    low, high = (20, 110) if rng.random() < 0.5 else (35, 60)
    events = [(0, bytes([0xC0 | channel, int(rng.choice(programs))]))]
    num_notes = int(rng.integers(4, 12)) * num_bars
    grid = max(division // int(rng.choice([1, 2, 4])), 1)
    for _ in range(num_notes):
        start = int(rng.integers(0, num_bars * 4 * division // grid)) * grid
        start += int(rng.integers(0, 2)) * (division // 8)
        length = int(rng.integers(1, 2 + division * int(rng.choice([1, 1, 1, 16]))))
        pitch, velocity = int(rng.integers(low, high)), int(rng.integers(1, 128))
        off = [0x80, 0x90][int(rng.integers(0, 2))]
        events.append((start, bytes([0x90 | channel, pitch, velocity])))
        events.append((start + length, bytes([off | channel, pitch, 0])))
    if rng.random() < 0.3:
        tick = int(rng.integers(0, num_bars * 4 * division))
        events.append((tick, bytes([0xC0 | channel, int(rng.choice(programs))])))
    if rng.random() < 0.3:  # silence, which ends melodies
        first = int(rng.integers(0, num_bars)) * 4 * division
        events = [event for event in events if not first < event[0] < first + 12 * division]
    return events


def read_midi(data: bytes) -> NoteArrays:
    """Read a MIDI file to arrays in note-seq's order, times in seconds."""
    table = read_table(data)
    notes = np.empty(len(table.notes), NOTE_DTYPE)
    seconds = to_seconds(table.notes, 2, table.tempos)
    notes["start"], notes["end"] = seconds[:, 0], seconds[:, 1]
    notes["pitch"], notes["instrument"] = table.notes[:, 2], table.notes[:, 3]
    notes["program"] = table.instruments[table.notes[:, 3], 0]
    notes["is_drum"] = table.instruments[table.notes[:, 3], 1]
    meter_seconds = to_seconds(table.meters, 1, table.tempos)[:, 0]
    return NoteArrays(
        notes=notes,
        tempos=tuple((row[SECONDS], row[QPM]) for row in table.tempos.tolist()),
        meters=tuple(
            (time, numerator, denominator)
            for time, (_, numerator, denominator) in zip(
                meter_seconds.tolist(), table.meters.tolist(), strict=True
            )
        ),
        total_seconds=float(seconds[:, 1].max(initial=0.0)),
    )

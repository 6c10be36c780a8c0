"""Read the notes of a MIDI file, compiled, exactly as note-seq reads them.

`read_table` gives the same notes, in the same order and with the same float64 seconds, as
note_seq.midi_to_note_sequence does through pretty_midi 0.2.11 and mido 1.3.3, for every
file that it reads. What those refuse is refused here with a short reason.

Reference: mido/midifiles/midifiles.py and meta.py (bytes to events),
pretty_midi/pretty_midi.py (events to notes), note_seq/midi_io.py.

Rules of those three that other readers do not share:
- Tempo, meter and key count in the first track only, but must be well formed in all.
- The wait before a meta event of unknown type is lost.
- A note off closes all notes of its channel and pitch that began at an earlier tick. Those
  begun on its own tick stay open if it closed an earlier one, and are deleted otherwise.
- A note's program is its channel's at the note off, within the track. Instruments are
  numbered by (track, channel, program) in the order of their first note off.
- An empty track makes the whole file unreadable; so does a track count of 0.

Differences from the reference:
- It needs memory for every tick up to the last, so it fails on files with rests of days.
  They are read here.
- SMPTE divisions are refused here; note-seq reads those without notes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from data_pipeline.fast.events import OK, REASONS, pair_notes, read_events, time_changes
from data_pipeline.fast.tempo import tempo_map


class FastReadError(Exception):
    """The compiled reader refuses the file; `reason` is a short, fixed text."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MidiTable(NamedTuple):
    """A file's notes as a table, in note-seq's order: by instrument, then by note off.

    Attributes:
      notes: start tick, end tick, MIDI pitch and instrument, int64 [N, 4].
      instruments: program and whether it is drums, int64 [I, 2].
      tempos: tempo map of `midi_time`, float64 [C, 4].
      meters: tick, numerator, denominator of each time signature, int64 [M, 3].
    """

    notes: np.ndarray
    instruments: np.ndarray
    tempos: np.ndarray
    meters: np.ndarray


def read_table(data: bytes) -> MidiTable:
    """Read a MIDI file's notes and time changes, times in ticks.

    Raises:
      FastReadError: the compiled reader refuses the file.
    """
    first_track, num_tracks, ticks_per_quarter = _read_header(data)
    code, events = read_events(np.frombuffer(data, np.uint8), first_track, num_tracks)
    if code != OK:
        raise FastReadError(REASONS[int(code)])
    notes, instruments = pair_notes(events)
    tempos, meters = time_changes(events)
    return MidiTable(notes, instruments, tempo_map(tempos, ticks_per_quarter), meters)


def _read_header(data: bytes) -> tuple[int, int, int]:
    """Return where the first track starts, how many there are, and ticks per quarter."""
    if data[:4] != b"MThd":
        raise FastReadError("no MThd header")
    if len(data) < 14 or int.from_bytes(data[4:8], "big") < 6:
        raise FastReadError("header cut short")
    size, _, num_tracks, division = struct.unpack(">Lhhh", data[4:14])
    if num_tracks <= 0:
        raise FastReadError("no tracks")
    if division <= 0:
        raise FastReadError("division of 0" if division == 0 else "SMPTE division")
    return 8 + size, num_tracks, division

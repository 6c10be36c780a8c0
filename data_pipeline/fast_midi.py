"""Read the notes of a MIDI file, compiled, exactly as note-seq reads them.

`read_midi` gives the same notes, in the same order and with the same float64 seconds, as
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

from data_pipeline.midi_events import OK, REASONS, TEMPO, pair_notes, read_events
from data_pipeline.pieces import NOTE_DTYPE, NoteArrays


class FastReadError(Exception):
    """The file is not read here; `reason` is short and stable."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MidiColumns(NamedTuple):
    """A file's notes as a table, in note-seq's order: by instrument, then by note off.

    Attributes:
      notes: start tick, end tick, MIDI pitch and instrument, int64 [N, 4].
      instruments: program and whether it is drums, int64 [I, 2].
      scales: tempo map: tick, seconds at that tick, seconds per tick, quarters per
        minute, float64 [C, 4]; the first tick is 0.
      meters: tick, numerator, denominator of each time signature, int64 [M, 3].
    """

    notes: np.ndarray
    instruments: np.ndarray
    scales: np.ndarray
    meters: np.ndarray


def read_midi(data: bytes) -> NoteArrays:
    """Read a MIDI file's notes and time changes.

    Returns:
      Notes in note-seq's order, times in seconds.

    Raises:
      FastReadError: what is wrong with the file, in a few words.
    """
    columns = read_columns(data)
    notes = np.empty(len(columns.notes), NOTE_DTYPE)
    seconds = ticks_to_seconds(columns.notes[:, :2], columns.scales)
    notes["start"], notes["end"] = seconds[:, 0], seconds[:, 1]
    notes["pitch"], notes["instrument"] = columns.notes[:, 2], columns.notes[:, 3]
    notes["program"] = columns.instruments[columns.notes[:, 3], 0]
    notes["is_drum"] = columns.instruments[columns.notes[:, 3], 1]
    meter_seconds = ticks_to_seconds(columns.meters[:, 0], columns.scales)
    return NoteArrays(
        notes=notes,
        tempos=tuple(
            zip(columns.scales[:, 1].tolist(), columns.scales[:, 3].tolist(), strict=True)
        ),
        meters=tuple(
            (time, numerator, denominator)
            for time, (_, numerator, denominator) in zip(
                meter_seconds.tolist(), columns.meters.tolist(), strict=True
            )
        ),
        total_seconds=float(seconds[:, 1].max(initial=0.0)),
    )


def read_columns(data: bytes) -> MidiColumns:
    """Read a MIDI file's notes and time changes, times in ticks.

    Raises:
      FastReadError: what is wrong with the file, in a few words.
    """
    first_track, num_tracks, ticks_per_quarter = _read_header(data)
    code, events = read_events(np.frombuffer(data, np.uint8), first_track, num_tracks)
    if code != OK:
        raise FastReadError(REASONS[int(code)])
    notes, instruments = pair_notes(events)
    changes = events[events[:, 1] >= TEMPO]
    is_tempo = changes[:, 1] == TEMPO
    return MidiColumns(
        notes=notes[np.argsort(notes[:, 3], kind="stable")],
        instruments=instruments,
        scales=_tempo_map(changes[is_tempo][:, [0, 2]], ticks_per_quarter),
        meters=changes[~is_tempo][:, [0, 2, 3]],
    )


def ticks_to_seconds(ticks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Seconds of absolute ticks, with pretty_midi's roundings.

    Args:
      ticks: int64, any shape.
      scales: tempo map of `MidiColumns`.

    Returns:
      float64, shape of `ticks`.
    """
    if len(scales) == 1:
        return scales[0, 2] * ticks
    segment = np.searchsorted(scales[:, 0], ticks, side="right") - 1
    since = ticks - scales[segment, 0].astype(np.int64)
    return scales[segment, 1] + scales[segment, 2] * since


def _read_header(data: bytes) -> tuple[int, int, int]:
    """Where the first track starts, how many there are, and ticks per quarter."""
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


def _tempo_map(tempos: np.ndarray, ticks_per_quarter: int) -> np.ndarray:
    """Segments of constant tempo from (tick, microseconds per quarter) [C, 2]."""
    scales = [(0, 60.0 / (120.0 * ticks_per_quarter))]
    for tick, microseconds in tempos.tolist():
        scale = 60.0 / ((6e7 / microseconds) * ticks_per_quarter)
        if tick == 0:
            scales = [(0, scale)]
        elif scale != scales[-1][1]:
            scales.append((tick, scale))
    rows = []
    seconds, last_tick, last_scale = 0.0, 0, 0.0
    for tick, scale in scales:
        seconds = seconds + last_scale * (tick - last_tick)
        rows.append((tick, seconds, scale, 60.0 / (scale * ticks_per_quarter)))
        last_tick, last_scale = tick, scale
    return np.array(rows, np.float64)

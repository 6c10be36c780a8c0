"""Decode the bytes of a MIDI file to events, and pair its notes: compiled.

Every rule here is what mido 1.3.3 (bytes to events) and pretty_midi 0.2.11 (notes) do with
the same bytes; `data_pipeline.fast.midi` lists those that other readers do not share.

Reference: mido/midifiles/midifiles.py, mido/midifiles/meta.py, pretty_midi/pretty_midi.py.
"""

from __future__ import annotations

import math

import numpy as np

from data_pipeline.compiled import Int, compiled

_MAX_TICK = 10**10  # note-seq's setting of pretty_midi's guard
_MAX_MESSAGE_BYTES = 1_000_000
_MAX_VARIABLE_INT = 1 << 40  # larger values change nothing: both limits are passed

OK = 0
REASONS = {
    1: "no MTrk header",
    2: "track ends inside an event",
    3: "empty track",
    4: "running status without status",
    5: "undefined status byte",
    6: "data byte over 127",
    7: "message over 1,000,000 bytes",
    8: "last tick over 1e10",
    9: "short or impossible meta event",
    10: "impossible key signature",
    11: "impossible time signature",
    12: "tempo of 0",
}
_NO_TRACK, _PAST_END, _EMPTY, _NO_STATUS, _UNDEFINED, _DATA_BYTE = range(1, 7)
_TOO_LONG, _MAX_TICKS, _BAD_META, _BAD_KEY, _BAD_METER, _TEMPO_0 = range(7, 13)

_TRACK, _ON, _OFF, _PROGRAM, _TEMPO, _METER = range(6)  # kinds of event
_TRACK_NAME = np.frombuffer(b"MTrk", np.uint8)
_META_TEMPO, _META_SMPTE, _META_METER, _META_KEY = 0x51, 0x54, 0x58, 0x59

# Data bytes that follow each status from 0xF0; -1: undefined; sysex and meta never look here.
_SYSTEM_BYTES = np.array([-1, 1, 2, 1, -1, -1, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1], np.int64)
# mido takes the logarithm of the denominator to see that it is a power of 2; in float64
# that fails for some powers.
_METER_EXPONENTS = np.array([math.log(2**k, 2).is_integer() for k in range(256)])
_MAX_METER_EXPONENT = 30  # the protocol buffer's int32
_META_BYTES = np.zeros(256, np.int64)  # data bytes that each type of meta event needs
_META_BYTES[[0x20, _META_TEMPO, _META_SMPTE, _META_METER, _META_KEY]] = [1, 3, 5, 4, 2]
_META_KNOWN = np.zeros(256, np.bool_)
_META_KNOWN[[*range(8), 9, 0x20, 0x21, 0x2F, 0x51, 0x54, 0x58, 0x59, 0x7F]] = True


@compiled
def read_events(data: np.ndarray, position: Int, num_tracks: int) -> tuple[Int, np.ndarray]:
    """Read every track's notes and programs, and the first one's tempos and time signatures.

    Args:
      data: the file, uint8.
      position: where its first track begins.
      num_tracks: how many tracks follow.

    Returns:
      OK or a key of `REASONS`; events int64 [E, 4]: tick, kind and two numbers: for
      notes channel * 128 + pitch and velocity, for programs channel and program, for tempos
      microseconds per quarter, for meters numerator and denominator.
    """
    # An event takes at least 2 bytes: a wait and a program.
    events = np.empty((len(data) // 2 + 2, 4), np.int64)
    count: Int = 0
    for track in range(num_tracks):
        events[count, 1] = _TRACK
        end, code = _track_end(data, position)
        if code != OK:
            return code, events[:0]
        code, count = _read_track(data, position + 8, end, track == 0, events, count + 1)
        if code != OK:
            return code, events[:0]
        position = end
    return OK, events[:count]


@compiled
def _track_end(data: np.ndarray, position: Int) -> tuple[Int, Int]:
    """Return where the track ends whose header is at `position`, and the code of a fault."""
    if position + 8 > len(data):
        return position, _NO_TRACK
    length = np.int64(0)
    for i in range(4):
        if data[position + i] != _TRACK_NAME[i]:
            return position, _NO_TRACK
        length = (length << 8) | data[position + 4 + i]
    if length == 0:
        return position, _EMPTY
    end = position + 8 + length
    return end, OK if end <= len(data) else _PAST_END


@compiled
def _read_track(
    data: np.ndarray,
    position: Int,
    end: Int,
    is_first: bool | np.bool_,
    events: np.ndarray,
    count: Int,
) -> tuple[Int, Int]:
    """Read one track; the code of what is wrong, and the number of events so far."""
    tick: Int = 0
    status: Int = 0
    code: Int = OK
    while position < end:
        delta, position = _variable_int(data, position, end)
        if position >= end:
            return _PAST_END, count
        byte = np.int64(data[position])
        running = byte < 0x80
        if running and status == 0:
            return _NO_STATUS, count
        if not running:
            position += 1
            status = byte if byte != 0xFF else status
        if byte == 0xFF:
            if position < end and _META_KNOWN[data[position]]:  # otherwise the wait is lost
                tick += delta
            start, position, code = _read_meta(data, position, end)
            if is_first and code == OK:
                count, code = _keep_change(data, start, tick, events, count)
        else:
            tick += delta
            if status < 0xF0:
                length = 1 if 0xC0 <= status < 0xE0 else 2
                start = position
                position, code = _skip(data, position, length, end)
                if code == OK:
                    count = _keep_message(data, start, tick, status, events, count)
            elif status == 0xF0 or status == 0xF7:
                # The byte that stands for a running status is dropped.
                position, code = _read_sysex(data, position + running, end)
            else:
                position, code = _read_system(data, position, end, status, running)
        if code != OK:
            return code, count
        if tick >= _MAX_TICK:
            return _MAX_TICKS, count
    return code, count


@compiled
def _variable_int(data: np.ndarray, position: Int, end: Int) -> tuple[Int, Int]:
    """Read a variable-length integer and the position after it; past `end` if cut short."""
    value: Int = 0
    while position < end:
        byte = np.int64(data[position])
        position += 1
        value = (value << 7) | (byte & 0x7F)
        if value > _MAX_VARIABLE_INT:
            value = _MAX_VARIABLE_INT
        if byte < 0x80:
            return value, position
    return value, end + 1


@compiled
def _skip(data: np.ndarray, position: Int, length: Int, end: Int) -> tuple[Int, Int]:
    """Position after `length` data bytes, and the code of what is wrong with them."""
    if position + length > end:
        return position, _PAST_END
    for i in range(position, position + length):
        if data[i] > 127:
            return position, _DATA_BYTE
    return position + length, OK


@compiled
def _keep_message(
    data: np.ndarray, position: Int, tick: Int, status: Int, events: np.ndarray, count: Int
) -> Int:
    """Keep a channel message if it is a note or a program; the number of events so far."""
    kind = status >> 4
    if kind == 0xC:
        kind, key, value = _PROGRAM, status & 15, data[position]
    elif kind <= 0x9:
        value = data[position + 1]
        kind = _ON if kind == 0x9 and value > 0 else _OFF
        key = (status & 15) * 128 + data[position]
    else:
        return count
    events[count, 0] = tick
    events[count, 1] = kind
    events[count, 2] = key
    events[count, 3] = value
    return count + 1


@compiled
def _read_sysex(data: np.ndarray, position: Int, end: Int) -> tuple[Int, Int]:
    """Skip a system exclusive message, looking at its bytes as mido does."""
    length, first = _variable_int(data, position, end)
    if length > _MAX_MESSAGE_BYTES:
        return first, _TOO_LONG
    after = first + length
    if after > end:
        return first, _PAST_END
    for i in range(first, after):
        is_mark = (i == first and data[i] == 0xF0) or (i == after - 1 and data[i] == 0xF7)
        if data[i] > 127 and not is_mark:
            return first, _DATA_BYTE
    return after, OK


@compiled
def _read_system(
    data: np.ndarray, position: Int, end: Int, status: Int, running: bool | np.bool_
) -> tuple[Int, Int]:
    """Skip a system common or realtime message."""
    length = np.int64(_SYSTEM_BYTES[status - 0xF0])
    if length < 0 or (running and length == 0):
        return position, _UNDEFINED
    return _skip(data, position, length, end)


@compiled
def _read_meta(data: np.ndarray, position: Int, end: Int) -> tuple[Int, Int, Int]:
    """Start (at its type) and end of a meta event, and the code of what is wrong with it."""
    if position >= end:
        return position, position, _PAST_END
    kind = data[position]
    length, first = _variable_int(data, position + 1, end)
    if length > _MAX_MESSAGE_BYTES:
        return position, position, _TOO_LONG
    if first + length > end:
        return position, position, _PAST_END
    code = OK
    if length < _META_BYTES[kind] or (kind == 0 and length == 1):
        code = _BAD_META
    elif kind == _META_METER and not _METER_EXPONENTS[data[first + 1]]:
        code = _BAD_METER
    elif kind == _META_KEY and (7 < data[first] < 249 or data[first + 1] > 1):
        code = _BAD_KEY
    elif kind == _META_SMPTE:
        late = data[first + 1] > 59 or data[first + 2] > 59 or data[first + 4] > 99
        code = _BAD_META if late or data[first] > 127 else OK
    return position, first + length, code


@compiled
def _keep_change(
    data: np.ndarray, position: Int, tick: Int, events: np.ndarray, count: Int
) -> tuple[Int, Int]:
    """Keep a meta event of the first track if it is a tempo or a time signature."""
    kind = data[position]
    if kind != _META_TEMPO and kind != _META_METER:
        return count, OK
    _, first = _variable_int(data, position + 1, len(data))
    a, b, c = np.int64(data[first]), np.int64(data[first + 1]), np.int64(data[first + 2])
    if kind == _META_METER and (a == 0 or b > _MAX_METER_EXPONENT):
        return count, _BAD_METER
    tempo = (a << 16) | (b << 8) | c
    if kind == _META_TEMPO and tempo == 0:
        return count, _TEMPO_0
    events[count, 0] = tick
    events[count, 1] = _TEMPO if kind == _META_TEMPO else _METER
    events[count, 2] = tempo if kind == _META_TEMPO else a
    events[count, 3] = np.int64(1) << (b & 31)
    return count + 1, OK


@compiled
def pair_notes(events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair the notes on and off of all tracks, as pretty_midi does, by instrument.

    Args:
      events: int64 [E, 4] of `read_events`.

    Returns:
      Notes [N, 4]: start and end tick, pitch, instrument; instruments [I, 2]: program, is drums.
    """
    notes = np.empty((len(events), 4), np.int64)
    instruments = np.empty((len(events), 2), np.int64)
    program, slots = np.zeros(16, np.int64), np.full(2048, -1, np.int64)  # by channel x program
    oldest = np.full(2048, -1, np.int64)  # first open note on of channel x pitch
    newest = np.full(2048, -1, np.int64)
    newer = np.empty(len(events), np.int64)  # next open note on of the same channel and pitch
    num_notes, num_instruments = 0, 0
    for event in range(len(events)):
        tick, kind, key = events[event, 0], events[event, 1], events[event, 2]
        if kind == _ON:
            newer[event] = -1
            if oldest[key] < 0:
                oldest[key] = event
            else:
                newer[newest[key]] = event
            newest[key] = event
        elif kind == _OFF and oldest[key] >= 0:
            node = oldest[key]
            channel = key >> 7
            slot = channel * 128 + program[channel]
            if slots[slot] < 0 and events[node, 0] != tick:
                slots[slot] = num_instruments
                row = instruments[num_instruments]
                row[0], row[1] = program[channel], channel == 9
                num_instruments += 1
            before = num_notes
            while node >= 0 and events[node, 0] != tick:
                row = notes[num_notes]
                row[0], row[1], row[2], row[3] = events[node, 0], tick, key & 127, slots[slot]
                num_notes += 1
                node = newer[node]
            # Those begun on this very tick stay open only if an earlier one was closed.
            oldest[key] = node if num_notes > before else -1
        elif kind == _PROGRAM:
            program[key] = events[event, 3]
        elif kind == _TRACK:
            program[:] = 0
            slots[:] = -1
            oldest[:] = -1
    return _by_instrument(notes[:num_notes], num_instruments), instruments[:num_instruments]


@compiled
def _by_instrument(notes: np.ndarray, num_instruments: Int) -> np.ndarray:
    """Sort notes by instrument; those of one keep their order."""
    place = np.zeros(num_instruments + 1, np.int64)
    for row in range(len(notes)):
        place[notes[row, 3] + 1] += 1
    for instrument in range(num_instruments):
        place[instrument + 1] += place[instrument]
    grouped = np.empty_like(notes)
    for row in range(len(notes)):
        instrument = notes[row, 3]
        for column in range(4):
            grouped[place[instrument], column] = notes[row, column]
        place[instrument] += 1
    return grouped


@compiled
def time_changes(events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pick tempos and time signatures from the events of `read_events`.

    Returns:
      Tick and microseconds per quarter, int64 [C, 2]; tick, numerator and denominator,
      int64 [M, 3].
    """
    counts = np.zeros(2, np.int64)
    for event in range(len(events)):
        if events[event, 1] >= _TEMPO:
            counts[events[event, 1] - _TEMPO] += 1
    tempos, meters = np.empty((counts[0], 2), np.int64), np.empty((counts[1], 3), np.int64)
    counts[:] = 0
    for event in range(len(events)):
        if events[event, 1] == _TEMPO:
            row = tempos[counts[0]]
            row[0], row[1] = events[event, 0], events[event, 2]
            counts[0] += 1
        elif events[event, 1] == _METER:
            row = meters[counts[1]]
            row[0], row[1], row[2] = events[event, 0], events[event, 2], events[event, 3]
            counts[1] += 1
    return tempos, meters

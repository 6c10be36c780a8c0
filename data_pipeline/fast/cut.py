"""Cut notes on the step grid into rows of tokens: compiled.

Notes are one int64 table, sorted by segment and start time, with the columns START, END (steps
from the start of the segment, END exclusive), PITCH, INSTRUMENT and SEGMENT. An instrument has one
program and is either drums or not.

The rules are those of `data_pipeline.codecs`, which states them as array operations; here they are
loops, which take microseconds per file.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import Int, compiled

START, END, PITCH, INSTRUMENT, SEGMENT = range(5)  # columns of a table of notes
TOKEN = PITCH  # in a table of tokens: what is written at START
FIRST_BAR, NUM_BARS, TRACK_SEGMENT, TRACK_INSTRUMENT, ORIGIN, FIRST_NOTE, LAST_NOTE = range(7)
TOKEN_SHIFT = 20

_BAR = 16  # steps
_MAX_BARS = 100  # a track is cut here before windows are taken
_NOTE_OFF, _FIRST_NOTE_ON = 1, 2
_MIN_PITCH, _MAX_PITCH = 21, 108
_HASH_FACTOR = np.int64(0x2545F4914F6CDD1D)


@compiled
def to_grid(
    seconds: np.ndarray,
    order: np.ndarray,
    played: np.ndarray,
    borders: np.ndarray,
    steps_per_second: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Quantise notes to steps of their segments.

    Args:
      seconds: start and end of each note, float64 [N, 2].
      order: int64 [N], notes by start.
      played: pitch in column 2 and instrument in column 3, int64 [N, 4].
      borders: float64 [P + 1], where the segments begin, and where the last one ends.
      steps_per_second: float64 [P]; 0 leaves out the segment's notes.

    Returns:
      Table of notes int64 [M, 5]; number of notes in each segment, int64 [P].
    """
    notes = np.empty((len(order), 5), np.int64)
    counts = np.zeros(len(steps_per_second), np.int64)
    count, segment = 0, 0
    for index in order:
        start, end = seconds[index, 0], seconds[index, 1]
        while segment < len(counts) and start >= borders[segment + 1]:
            segment += 1
        if segment == len(counts):
            break
        counts[segment] += 1
        rate = steps_per_second[segment]
        if rate == 0.0:
            continue
        row = notes[count]
        row[START] = np.int64((start - borders[segment]) * rate + 0.5)
        row[END] = np.int64((min(end, borders[segment + 1]) - borders[segment]) * rate + 0.5)
        row[END] = max(row[END], row[START] + 1)
        row[PITCH], row[INSTRUMENT], row[SEGMENT] = played[index, 2], played[index, 3], segment
        count += 1
    return notes[:count], counts


@compiled
def segment_flags(
    notes: np.ndarray,
    flags: np.ndarray,
    is_drum: np.ndarray,
    has_token: np.ndarray,
    num_segments: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Gather what each segment holds.

    Args:
      notes: table of notes [N, 5].
      flags: bits that a note of each instrument sets, int64 [I].
      is_drum: int64 [I].
      has_token: which pitches have a token, for melodies and for drums, bool [2, 128].
      num_segments: P.

    Returns:
      Bits of each segment, those of notes with a token again, shifted by TOKEN_SHIFT; last
      step of each segment; both int64 [P].
    """
    found = np.zeros(num_segments, np.int64)
    last_step = np.zeros(num_segments, np.int64)
    for row in range(len(notes)):
        segment, instrument = notes[row, SEGMENT], notes[row, INSTRUMENT]
        found[segment] |= flags[instrument]
        if has_token[is_drum[instrument], notes[row, PITCH]]:
            found[segment] |= flags[instrument] << TOKEN_SHIFT
        last_step[segment] = max(last_step[segment], notes[row, END])
    return found, last_step


@compiled
def by_instrument(notes: np.ndarray, num_instruments: int) -> np.ndarray:
    """Sort a table of notes by instrument, then time [N, 5]."""
    after = np.zeros(num_instruments + 1, np.int64)
    for row in range(len(notes)):
        after[notes[row, INSTRUMENT] + 1] += 1
    for instrument in range(num_instruments):
        after[instrument + 1] += after[instrument]
    grouped = np.empty_like(notes)
    for row in range(len(notes)):
        place = after[notes[row, INSTRUMENT]]
        after[notes[row, INSTRUMENT]] += 1
        for column in range(5):
            grouped[place, column] = notes[row, column]
    return grouped


@compiled
def melody_tokens(notes: np.ndarray, is_drum: np.ndarray) -> np.ndarray:
    """Keep notes with a token and, of those that start together, the highest.

    Args:
      notes: table of notes by instrument, then time [N, 5].
      is_drum: int64 [I].

    Returns:
      Table of tokens [M, 5], by instrument, then time.
    """
    kept = np.empty_like(notes)
    count = 0
    for row in range(len(notes)):
        note = notes[row]
        if is_drum[note[INSTRUMENT]] or note[PITCH] < _MIN_PITCH or note[PITCH] > _MAX_PITCH:
            continue
        token = note[PITCH] - _MIN_PITCH + _FIRST_NOTE_ON
        if count > 0:
            last = kept[count - 1]
            if (
                last[START] == note[START]
                and last[SEGMENT] == note[SEGMENT]
                and last[INSTRUMENT] == note[INSTRUMENT]
            ):
                if token > last[TOKEN]:  # the earlier of two equal ones stays
                    last[TOKEN], last[END] = token, note[END]
                continue
        for column in range(5):
            kept[count, column] = note[column]
        kept[count, TOKEN] = token
        count += 1
    return kept[:count]


@compiled
def drum_tokens(notes: np.ndarray, is_drum: np.ndarray, class_bits: np.ndarray) -> np.ndarray:
    """Gather the hits of each step, all instruments together.

    Args:
      notes: table of notes by time [N, 5].
      is_drum: int64 [I].
      class_bits: 2**class of each MIDI pitch, 0 for pitches of no class, int64 [128].

    Returns:
      Table of tokens [M, 5]: END one step after START, INSTRUMENT 0.
    """
    kept = np.empty_like(notes)
    count = 0
    for row in range(len(notes)):
        note = notes[row]
        bits = class_bits[note[PITCH]]
        if not is_drum[note[INSTRUMENT]] or bits == 0:
            continue
        if count > 0:
            last = kept[count - 1]
            if last[START] == note[START] and last[SEGMENT] == note[SEGMENT]:
                last[TOKEN] |= bits
                continue
        row = kept[count]
        row[START], row[END], row[TOKEN] = note[START], note[START] + 1, bits
        row[INSTRUMENT], row[SEGMENT] = 0, note[SEGMENT]
        count += 1
    return kept[:count]


@compiled
def lay_out(tokens: np.ndarray, num_segments: int) -> np.ndarray:
    """Break tokens into tracks at gaps of a bar, and give each its place in one flat array.

    Args:
      tokens: table of tokens by instrument, then time [N, 5].
      num_segments: P.

    Returns:
      Tracks int64 [M, 7], by segment, then instrument, then time: first bar in the flat
      array, number of bars (at most 100), segment, instrument, step at which it begins, and
      its first token and the one after its last.
    """
    found = np.empty((len(tokens), 7), np.int64)
    tracks_before = np.zeros(num_segments + 1, np.int64)
    count = 0
    for row in range(len(tokens)):
        note = tokens[row]
        opens = row == 0
        if row > 0:
            last = tokens[row - 1]
            opens = last[SEGMENT] != note[SEGMENT] or last[INSTRUMENT] != note[INSTRUMENT]
            opens = opens or note[START] - last[END] >= _BAR
        if opens:
            track = found[count]
            track[TRACK_SEGMENT], track[TRACK_INSTRUMENT] = note[SEGMENT], note[INSTRUMENT]
            track[ORIGIN], track[FIRST_NOTE] = note[START] // _BAR * _BAR, row
            tracks_before[note[SEGMENT] + 1] += 1
            count += 1
        track = found[count - 1]
        track[NUM_BARS] = min((note[END] - track[ORIGIN] + _BAR - 1) // _BAR, _MAX_BARS)
        track[LAST_NOTE] = row + 1
    for segment in range(num_segments):
        tracks_before[segment + 1] += tracks_before[segment]
    tracks = np.empty((count, 7), np.int64)
    for row in range(count):
        segment = found[row, TRACK_SEGMENT]
        tracks[tracks_before[segment]] = found[row]
        tracks_before[segment] += 1
    bar = 0
    for row in range(count):
        tracks[row, FIRST_BAR] = bar
        bar += tracks[row, NUM_BARS]
    return tracks


@compiled
def write_tracks(tokens: np.ndarray, tracks: np.ndarray, off: int, flat: np.ndarray) -> None:
    """Write tracks into a flat array of zeros.

    Args:
      tokens: table of tokens [N, 5].
      tracks: what `lay_out` returns.
      off: token at the end of a note unless the next one has begun; 0 for none.
      flat: [16 * total number of bars], changed in place.
    """
    for number in range(len(tracks)):
        track = tracks[number]
        length = track[NUM_BARS] * _BAR
        base = track[FIRST_BAR] * _BAR
        for row in range(track[FIRST_NOTE], track[LAST_NOTE]):
            start, end = tokens[row, START] - track[ORIGIN], tokens[row, END] - track[ORIGIN]
            if start < length:
                flat[base + start] = tokens[row, TOKEN]
            is_last = row + 1 == track[LAST_NOTE]
            if end < length and (is_last or end < tokens[row + 1, START] - track[ORIGIN]):
                flat[base + end] = off


@compiled
def count_windows(tracks: np.ndarray, allowed: np.ndarray, num_bars: int) -> Int:
    """Count the windows of `num_bars` bars, hop one bar, of the allowed instruments."""
    count = 0
    for number in range(len(tracks)):
        if allowed[tracks[number, TRACK_INSTRUMENT]]:
            count += max(tracks[number, NUM_BARS] - num_bars + 1, 0)
    return count


@compiled
def cut_windows(
    bars: np.ndarray,
    tracks: np.ndarray,
    allowed: np.ndarray,
    is_melody: bool,
    dedupe: bool,
    rows: np.ndarray,
    first_bars: np.ndarray,
    counts: np.ndarray,
) -> Int:
    """Cut tracks into windows that hop by one bar; keep the first of equal ones of a segment.

    Args:
      bars: the flat array, 8 bytes to a number, int64 [bars, W].
      tracks: what `lay_out` returns.
      allowed: bool [I].
      is_melody: tokens are bytes, and a note off before a row's first note is cleared.
      dedupe: keep only the first of equal rows of a segment.
      rows: room for all windows, int64 [N, bars of a window, W]; changed in place.
      first_bars: room for the bar of its segment at which each row begins, int64 [N]; changed.
      counts: windows of each segment before duplicates were dropped, int64 [P]; changed.

    Returns:
      How many rows were kept.
    """
    num_bars = rows.shape[1]
    table_size = 16
    while table_size < 2 * len(rows):
        table_size *= 2
    table = np.full(table_size, -1, np.int64)  # rows by hash; those of past segments are void
    count, segment, first_row = 0, -1, 0
    for number in range(len(tracks)):
        track = tracks[number]
        if not allowed[track[TRACK_INSTRUMENT]]:
            continue
        if track[TRACK_SEGMENT] != segment:
            segment, first_row = track[TRACK_SEGMENT], count
        for bar in range(track[FIRST_BAR], track[FIRST_BAR] + track[NUM_BARS] - num_bars + 1):
            counts[segment] += 1
            row = rows[count]
            for i in range(num_bars):
                for j in range(bars.shape[1]):
                    row[i, j] = bars[bar + i, j]
            if is_melody:
                _clear_leading_off(row)
            first_bars[count] = track[ORIGIN] // _BAR + bar - track[FIRST_BAR]
            if not dedupe or _is_new(rows, count, first_row, table):
                count += 1
    return count


@compiled
def _clear_leading_off(row: np.ndarray) -> None:
    """Turn a note off before the first note of a row of bytes into no event."""
    for i in range(row.shape[0]):
        for j in range(row.shape[1]):
            word = row[i, j]
            if word != 0:
                for byte in range(8):
                    token = (word >> (8 * byte)) & 0xFF
                    if token == _NOTE_OFF:
                        row[i, j] = word & ~(np.int64(0xFF) << (8 * byte))
                    if token != 0:
                        return


@compiled
def _is_new(rows: np.ndarray, count: Int, first_row: Int, table: np.ndarray) -> bool:
    """Enter row `count` into the hash table unless an equal one is there."""
    row = rows[count]
    value = np.int64(0)
    for i in range(row.shape[0]):
        for j in range(row.shape[1]):
            value = (value ^ row[i, j]) * _HASH_FACTOR
            value ^= value >> 29
    slot = value & (len(table) - 1)
    while table[slot] >= first_row:
        other = rows[table[slot]]
        if np.array_equal(other, row):
            return False
        slot = (slot + 1) & (len(table) - 1)
    table[slot] = count
    return True

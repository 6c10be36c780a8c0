"""Cut melody, bass and drums that play together into rows of three columns: compiled.

The rules are those of `data_pipeline.codecs.trio`.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import compiled
from data_pipeline.fast.cut import END, INSTRUMENT, PITCH, SEGMENT, START, TOKEN

MELODY, BASS, DRUMS, OTHER = range(4)  # kinds of instrument

_BAR = 16  # steps
_GAP_BARS = 2
_NOTE_OFF = 1


@compiled
def columns(
    notes: np.ndarray,
    tokens: np.ndarray,
    kinds: np.ndarray,
    class_bits: np.ndarray,
    segment: int,
    num_bars: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write every instrument of a segment from its first step to its last.

    Args:
      notes: table of notes by instrument, then time [N, 5].
      tokens: table of melody tokens by instrument, then time [M, 5].
      kinds: MELODY, BASS, DRUMS or OTHER of each instrument, int64 [I].
      class_bits: 2**class of each MIDI pitch, int64 [128].
      segment: which segment.
      num_bars: its length.

    Returns:
      Tokens uint16 [I, 16 * num_bars]; whether an instrument has any, bool [I]; whether it
      sounds in or near each bar, bool [I, num_bars].
    """
    flat = np.zeros((len(kinds), num_bars * _BAR), np.uint16)
    has_token = np.zeros(len(kinds), np.bool_)
    covered = np.zeros((len(kinds), num_bars), np.bool_)
    for row in range(len(notes)):
        note = notes[row]
        if note[SEGMENT] != segment or kinds[note[INSTRUMENT]] == OTHER:
            continue
        first, stop = note[START] // _BAR, (note[END] + _BAR - 1) // _BAR
        if first < num_bars:
            for bar in range(max(first - _GAP_BARS, 0), min(stop + _GAP_BARS, num_bars)):
                covered[note[INSTRUMENT], bar] = True
        bits = class_bits[note[PITCH]]
        if kinds[note[INSTRUMENT]] == DRUMS and bits != 0:
            has_token[note[INSTRUMENT]] = True
            if note[START] < flat.shape[1]:
                flat[note[INSTRUMENT], note[START]] |= bits
    _write_melodies(tokens, kinds, segment, flat, has_token)
    return flat, has_token, covered


@compiled
def _write_melodies(
    tokens: np.ndarray, kinds: np.ndarray, segment: int, flat: np.ndarray, has_token: np.ndarray
) -> None:
    """Write the melody and bass instruments of `columns`."""
    for row in range(len(tokens)):
        note = tokens[row]
        instrument = note[INSTRUMENT]
        if note[SEGMENT] != segment or kinds[instrument] >= DRUMS:
            continue
        has_token[instrument] = True
        if note[START] < flat.shape[1]:
            flat[instrument, note[START]] = note[TOKEN]
        is_last = row + 1 == len(tokens)
        is_last = is_last or tokens[row + 1, INSTRUMENT] != instrument
        is_last = is_last or tokens[row + 1, SEGMENT] != segment
        if note[END] < flat.shape[1] and (is_last or note[END] < tokens[row + 1, START]):
            flat[instrument, note[END]] = _NOTE_OFF


@compiled
def groups(kinds: np.ndarray, has_token: np.ndarray) -> np.ndarray:
    """Join every melody, bass and drum instrument that has tokens to groups, int64 [G, 3]."""
    counts = np.zeros(3, np.int64)
    members = np.empty((3, len(kinds)), np.int64)
    for instrument in range(len(kinds)):
        kind = kinds[instrument]
        if kind != OTHER and has_token[instrument]:
            members[kind, counts[kind]] = instrument
            counts[kind] += 1
    found = np.empty((counts[0] * counts[1] * counts[2], 3), np.int64)
    row = 0
    for i in range(counts[MELODY]):
        for j in range(counts[BASS]):
            for k in range(counts[DRUMS]):
                found[row, 0], found[row, 1] = members[MELODY, i], members[BASS, j]
                found[row, 2] = members[DRUMS, k]
                row += 1
    return found


@compiled
def first_bars(covered: np.ndarray, group: np.ndarray, window_bars: int) -> np.ndarray:
    """Find the first bars of the windows that all three of a group cover, int64 [N]."""
    num_bars = covered.shape[1]
    both_ends = np.zeros(2, np.bool_)  # the reference is lenient at both ends
    for i in group:
        for bar in range(_GAP_BARS):
            both_ends[0] |= covered[i, bar]
            both_ends[1] |= covered[i, num_bars - 1 - bar]
    bars = np.empty(num_bars, np.int64)
    count, run = 0, 0
    for bar in range(num_bars):
        together = covered[group[0], bar] and covered[group[1], bar] and covered[group[2], bar]
        if bar >= num_bars - _GAP_BARS:
            together = both_ends[1]
        elif bar < _GAP_BARS:
            together = both_ends[0]
        run = run + 1 if together else 0
        if run >= window_bars:
            bars[count] = bar - window_bars + 1
            count += 1
    return bars[:count]


@compiled
def cut_groups(
    flat: np.ndarray, covered: np.ndarray, found: np.ndarray, window_bars: int, max_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the windows of all groups, at most `max_rows`.

    Returns:
      Rows, uint16 [N, T, 3], and the first bar of each, int64 [N].
    """
    total = 0
    for number in range(len(found)):
        total += len(first_bars(covered, found[number], window_bars))
    total = min(total, max_rows)
    num_steps = window_bars * _BAR
    rows = np.empty((total, num_steps * 3), np.uint16)
    row_bars = np.empty(total, np.int64)
    track = np.empty(flat.shape[1] * 3, np.uint16)
    count = 0
    for number in range(len(found)):
        group = found[number]
        bars = first_bars(covered, group, window_bars)
        if len(bars) == 0:
            continue
        for step in range(flat.shape[1]):
            for i in range(3):
                track[3 * step + i] = flat[group[i], step]
        for bar in bars:
            if count == total:
                break
            row = rows[count]
            first = bar * _BAR * 3
            for i in range(num_steps * 3):
                row[i] = track[first + i]
            row_bars[count] = bar
            count += 1
    return rows.reshape((total, num_steps, 3)), row_bars

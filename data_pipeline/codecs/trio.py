"""Rows of trios: one column each for melody, bass and drums, wherever all three play.

Reference: magenta/models/music_vae/data.py (TrioConverter).

Differences from the reference:
- At most MAX_ROWS rows per segment; the reference has no limit. No file of the golden set
  comes near it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from data_pipeline.codecs import drums, melody
from data_pipeline.codecs.pieces import BySegment, Cutter
from data_pipeline.codecs.windows import Encoded
from data_pipeline.reading.segments import STEP_DTYPE, Segment
from musicvae_jax.tasks import STEPS_PER_BAR, Track

BASS_INSTRUMENT = 1
BASS_PROGRAM = 33

MAX_BARS = 1024
GAP_BARS = 2  # a bar counts as played if any bar this near is
MAX_INSTRUMENT = 127  # higher instrument numbers are left out
# The triples of a crowded file multiply; this is 50 MB of rows.
MAX_ROWS = 32768

_MELODY, _BASS, _DRUMS, _OTHER = range(4)
TYPE_NAMES = ("melody", "bass", "drums")

NOT_TOGETHER = "no band: not together for a whole row"


def encode(segment: Segment, tracks: Sequence[Track], num_steps: int) -> Encoded | str:
    """Take every window, hop one bar, in which a melody, a bass and drums all play.

    Args:
      segment: quantised notes.
      tracks: melody, bass and drums; the programs of the first two are used.
      num_steps: T, steps per window: whole bars.

    Returns:
      Rows uint16 [N, T, 3], none if the segment is shorter; or the reason why there are none.
    """
    by_type = instruments_by_type(segment, tracks[0].programs, tracks[1].programs)
    missing = [name for name, found in zip(TYPE_NAMES, by_type, strict=True) if not found]
    if missing:
        return "no band: no " + ", no ".join(missing)
    if segment.total_steps <= num_steps - STEPS_PER_BAR:
        none = np.zeros(0, np.int64)
        return Encoded(np.zeros((0, num_steps, 3), np.uint16), none, none.reshape(0, 3))
    parts: list[Encoded] = []
    for found in _groups(segment, by_type, num_steps):
        parts.append(found)
        if sum(len(part.bars) for part in parts) >= MAX_ROWS:
            break
    if not parts:
        return NOT_TOGETHER
    return Encoded(*(np.concatenate(part)[:MAX_ROWS] for part in zip(*parts, strict=True)))


CUTTER: Cutter = BySegment(lambda segment, task: encode(segment, task.tracks, task.num_steps))


def _groups(
    segment: Segment, by_type: Sequence[Sequence[int]], num_steps: int
) -> Iterator[Encoded]:
    """Yield the windows of every triple of instruments that has any.

    Args:
      segment: quantised notes.
      by_type: instrument numbers of melodies, basses and drums.
      num_steps: T, steps per window: whole bars.
    """
    num_bars = min(-(-segment.total_steps // STEPS_PER_BAR), MAX_BARS)
    num_window_bars = num_steps // STEPS_PER_BAR
    if num_bars < num_window_bars:
        return
    coverage, columns = {}, {}
    for codec, instruments in zip((melody, melody, drums), by_type, strict=True):
        for instrument in instruments:
            own = segment.notes[segment.notes["instrument"] == instrument]
            column = codec.column(own, num_bars * STEPS_PER_BAR)
            if column is not None:
                columns[instrument] = column
                coverage[instrument] = _coverage(own, num_bars)
    playable = [[i for i in instruments if i in columns] for instruments in by_type]
    for group in itertools.product(*playable):
        bars = _window_bars([coverage[i] for i in group], num_window_bars)
        if len(bars):
            track = np.stack([columns[i] for i in group], axis=1)
            steps = bars[:, None] * STEPS_PER_BAR + np.arange(num_steps)[None, :]
            yield Encoded(track[steps], bars, np.tile(group, (len(bars), 1)))


def instruments_by_type(
    segment: Segment,
    melody_programs: Collection[int] | None,
    bass_programs: Collection[int] | None,
) -> list[list[int]]:
    """List the instruments of melody, bass and drums; those of two types are in none."""
    notes = segment.notes[segment.notes["instrument"] <= MAX_INSTRUMENT]
    pitched = [melody.has_program(notes, allowed) for allowed in (melody_programs, bass_programs)]
    kinds = np.select([notes["is_drum"], *pitched], [_DRUMS, _MELODY, _BASS], _OTHER)
    by_type: list[list[int]] = [[], [], []]
    pairs = np.unique(np.stack([notes["instrument"], kinds], axis=1), axis=0).tolist()
    for instrument, same in itertools.groupby(pairs, key=lambda pair: pair[0]):
        types = [kind for _, kind in same]
        if len(types) == 1 and types[0] != _OTHER:
            by_type[types[0]].append(instrument)
    return by_type


def _coverage(notes: np.ndarray, num_bars: int) -> np.ndarray:
    """Tell in which bars, or near which, a note sounds: bool [num_bars]."""
    first = notes["start_step"] // STEPS_PER_BAR
    stop = -(-notes["end_step"] // STEPS_PER_BAR)
    edges = np.zeros(num_bars + 1, np.int64)
    np.add.at(edges, np.minimum(np.maximum(first - GAP_BARS, 0), num_bars), first < num_bars)
    np.subtract.at(edges, np.minimum(stop + GAP_BARS, num_bars), first < num_bars)
    return np.cumsum(edges[:num_bars]) > 0


def _window_bars(coverage: list[np.ndarray], num_window_bars: int) -> np.ndarray:
    """Return the first bar of every window in which all instruments are covered, int [N]."""
    stacked = np.stack(coverage)
    covered: np.ndarray = np.all(stacked, axis=0)
    # The reference is lenient at both ends, so that a window, written and read again, passes.
    covered[:GAP_BARS] = stacked[:, :GAP_BARS].any()
    covered[-GAP_BARS:] = stacked[:, -GAP_BARS:].any()
    runs = np.lib.stride_tricks.sliding_window_view(covered, num_window_bars)
    return np.flatnonzero(runs.all(axis=1))


def decode(row: np.ndarray, *, program: int = 0) -> np.ndarray:
    """Read the notes of one row: melody, bass (program 33), drums.

    Args:
      row: tokens [T, 3].
      program: General MIDI program of the melody.

    Returns:
      Notes of STEP_DTYPE, instrument by instrument.
    """
    row = np.asarray(row)
    parts = [
        melody.decode(row[:, 0], program=program),
        melody.decode(row[:, 1], program=BASS_PROGRAM, instrument=BASS_INSTRUMENT),
        drums.decode(row[:, 2]),
    ]
    return np.concatenate(parts).astype(STEP_DTYPE)

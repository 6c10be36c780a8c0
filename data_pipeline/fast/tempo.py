"""Ticks to seconds with the roundings of pretty_midi 0.2.11: compiled.

A tempo map has a row per tempo: the tick from which it holds, the seconds at that tick,
seconds per tick, and quarters per minute.

Reference: pretty_midi/pretty_midi.py (_load_tempo_changes, _update_tick_to_time,
get_tempo_changes).
"""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import compiled

TICK, SECONDS, SECONDS_PER_TICK, QPM = range(4)  # columns of a tempo map


@compiled
def tempo_map(tempos: np.ndarray, ticks_per_quarter: int) -> np.ndarray:
    """Build a tempo map; a tempo equal to the one before it makes no row.

    Args:
      tempos: tick and microseconds per quarter of each tempo event, int64 [N, 2], by tick.
      ticks_per_quarter: the file's resolution.

    Returns:
      float64 [C, 4]; the first row begins at tick 0.
    """
    rows = np.empty((len(tempos) + 1, 4), np.float64)
    rows[0, TICK], rows[0, SECONDS] = 0.0, 0.0
    rows[0, SECONDS_PER_TICK] = 60.0 / (120.0 * ticks_per_quarter)
    count = 1
    for event in range(len(tempos)):
        tick = tempos[event, 0]
        scale = 60.0 / ((6e7 / tempos[event, 1]) * ticks_per_quarter)
        last = rows[count - 1]
        if tick == 0:
            last[SECONDS_PER_TICK] = scale
        elif scale != last[SECONDS_PER_TICK]:
            row = rows[count]
            elapsed = last[SECONDS_PER_TICK] * (tick - last[TICK])
            row[TICK], row[SECONDS] = tick, last[SECONDS] + elapsed
            row[SECONDS_PER_TICK] = scale
            count += 1
    for i in range(count):
        rows[i, QPM] = 60.0 / (rows[i, SECONDS_PER_TICK] * ticks_per_quarter)
    return rows[:count]


@compiled
def to_seconds(table: np.ndarray, num_columns: int, tempos: np.ndarray) -> np.ndarray:
    """Turn the first columns of a table from ticks to seconds.

    Args:
      table: int64 [N, any], absolute ticks in the first `num_columns`.
      num_columns: how many.
      tempos: tempo map [C, 4].

    Returns:
      float64 [N, num_columns].
    """
    seconds = np.empty((len(table), num_columns), np.float64)
    for i in range(len(table)):
        for j in range(num_columns):
            tick = table[i, j]
            low, high = 0, len(tempos)  # the last row at or before the tick
            while high - low > 1:
                middle = (low + high) // 2
                if tempos[middle, TICK] <= tick:
                    low = middle
                else:
                    high = middle
            row = tempos[low]
            seconds[i, j] = row[SECONDS] + row[SECONDS_PER_TICK] * (tick - row[TICK])
    return seconds

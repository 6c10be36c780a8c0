"""Measures of structure: similarity of the bars of a row, and of the rows of a set.

The distance of two bars is the share of their events that they do not have in common: for melodies,
of the steps with an event (a note or a note off) in either bar, those where the events differ; for
drums and piano rolls, of the hits or note starts in either bar, those that are in one only. Two
empty bars have distance 0. Tracks are summed before the division. The distance of two rows is
defined in the same way.
"""

from __future__ import annotations

import numpy as np

from musicvae_jax.analysis.measures import Measure, of_values
from musicvae_jax.tasks import NO_EVENT, Task, Track
from musicvae_jax.tokens import events_of

FAMILY = "structure"
LAGS = {1: "adjacent bars", 4: "bars four apart", 8: "bars eight apart"}


def bar_distances(tokens: np.ndarray, task: Task) -> np.ndarray:
    """Compare every bar of a row with every other.

    Args:
      tokens: [N, T] or [N, T, K], T = U whole bars.
      task: names the tracks.

    Returns:
      float32 [N, U, U], 0 on the diagonal.
    """
    num_rows = len(tokens)
    columns = events_of(tokens, task)
    num_bars = columns[0].shape[1] // task.steps_per_bar
    differ = np.zeros((num_rows, num_bars, num_bars), np.float32)
    either = np.zeros_like(differ)
    for column, track in zip(columns, task.tracks, strict=True):
        bars = column.reshape(num_rows, num_bars, task.steps_per_bar * column.shape[2])
        for bar in range(num_bars):
            one, other = bars[:, bar : bar + 1], bars
            unshared, events = _count_events(one, other, track)
            differ[:, bar] += unshared
            either[:, bar] += events
    return np.divide(differ, either, out=np.zeros_like(differ), where=either > 0)


def _count_events(
    one: np.ndarray, other: np.ndarray, track: Track
) -> tuple[np.ndarray, np.ndarray]:
    """Count the events in one of two [..., S] only, and those in either: [...] each."""
    if track.is_pitched:
        unshared = one != other
        events = (one != NO_EVENT) | (other != NO_EVENT)
    else:
        unshared, events = np.bitwise_count(one ^ other), np.bitwise_count(one | other)
    return unshared.sum(axis=-1), events.sum(axis=-1)


def mean_row_distance(tokens: np.ndarray, task: Task) -> float:
    """Average the distance of two rows of a set: 0 if all are equal, near 1 if they vary.

    Each row is compared with those a half, a third and a fifth of the set away, because neighbours
    in a store may be windows of one piece.

    Args:
      tokens: [N, T] or [N, T, K], N at least 2.
      task: names the tracks.
    """
    num_rows = len(tokens)
    columns = [column.reshape(num_rows, -1) for column in events_of(tokens, task)]
    found = []
    for apart in sorted({max(num_rows // part, 1) for part in (2, 3, 5)}):
        differ, either = np.zeros(num_rows), np.zeros(num_rows)
        for column, track in zip(columns, task.tracks, strict=True):
            unshared, events = _count_events(column, np.roll(column, apart, axis=0), track)
            differ += unshared
            either += events
        found.append(np.divide(differ, either, out=np.zeros(num_rows), where=either > 0).mean())
    return float(np.mean(found))


def mean_bar_distance(tokens: np.ndarray, task: Task) -> float:
    """Average the distance of any two bars of a row, over all rows: 0 if all bars are alike."""
    distances = bar_distances(tokens, task)
    first, second = np.triu_indices(distances.shape[1], 1)
    return float(distances[:, first, second].mean(dtype=np.float64))


def measures(tokens: np.ndarray, task: Task) -> list[Measure]:
    """Measure rows of more than two bars; shorter rows have no measures of structure."""
    distances = bar_distances(tokens, task)
    num_bars = distances.shape[1]
    if num_bars <= 2:
        return []
    first, second = np.triu_indices(num_bars, 1)
    pairs = distances[:, first, second].astype(np.float64)
    found = {f"distance of {name}": pairs[:, second - first == lag].mean(axis=1)
             for lag, name in LAGS.items() if lag < num_bars}  # fmt: skip
    any_two = pairs.mean(axis=1)
    found["distance of any two bars"] = any_two
    measured = [of_values(name, FAMILY, "all", value, 0, 1, 24) for name, value in found.items()]
    gain = any_two - found["distance of adjacent bars"]
    name = "any two bars less adjacent ones"
    return [*measured, of_values(name, FAMILY, "all", gain, -0.5, 0.5, 24)]


def mean_similarity(tokens: np.ndarray, task: Task) -> np.ndarray:
    """Average the bar self-similarity (1 less the distance) over rows: float64 [U, U]."""
    return 1.0 - bar_distances(tokens, task).mean(axis=0, dtype=np.float64)

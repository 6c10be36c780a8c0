"""How much of a row is in the training rows, up to transposition.

Held-out rows are the baseline: folk tunes share phrases, and many pieces share drum patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.analysis import events
from musicvae_jax.analysis.measures import Measure, of_values
from musicvae_jax.tasks import Task, Track
from musicvae_jax.tokens import columns_of, onsets

FAMILY = "originality"
MAX_RUN = 64  # notes; longer runs count as this long
_CHUNK = 16_384
_BITMAP_BITS = 22
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


class Nearest(NamedTuple):
    """The nearest training row of each row.

    Attributes:
      distance: float64 [N], share of the row's steps (of all tracks) that differ; of piano rolls,
        of the note starts of either row those that are in one only.
      row: int64 [N], which training row.
    """

    distance: np.ndarray
    row: np.ndarray


class KnownRows(Protocol):
    """Training rows, prepared for comparisons."""

    def measures(self, tokens: np.ndarray) -> tuple[list[Measure], Nearest]:
        """Measure rows [N, T] or [N, T, K] against them; also return the nearest."""


class _Moves(NamedTuple):
    """Moves from a note to the next: `code` says how, `row` where, `last` if it ends its row."""

    code: np.ndarray
    row: np.ndarray
    last: np.ndarray


class Known(NamedTuple):
    """Training rows, prepared for comparisons.

    Attributes:
      task: what they mean.
      events: of `events.relative_events`.
      moves: of each track.
    """

    task: Task
    events: np.ndarray
    moves: tuple[_Moves, ...]

    def measures(self, tokens: np.ndarray) -> tuple[list[Measure], Nearest]:
        """See `KnownRows`."""
        return measures(tokens, self)


def know(train: np.ndarray, task: Task) -> Known:
    """Prepare training rows [M, T] or [M, T, K]."""
    moves = [
        [_moves(column, track) for column, track in _tracks(train[start : start + _CHUNK], task)]
        for start in range(0, max(len(train), 1), _CHUNK)
    ]
    joined = tuple(_joined(parts) for parts in zip(*moves, strict=True))
    parts = [
        events.relative_events(train[start : start + _CHUNK], task)
        for start in range(0, max(len(train), 1), _CHUNK)
    ]
    return Known(task, np.concatenate(parts), joined)


def _tracks(tokens: np.ndarray, task: Task) -> list[tuple[np.ndarray, Track]]:
    return list(zip(columns_of(tokens, task), task.tracks, strict=True))


def _joined(parts: Sequence[_Moves]) -> _Moves:
    """Concatenate the moves of several sets of rows."""
    return _Moves(
        np.concatenate([part.code for part in parts]),
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.last for part in parts]),
    )


def measures(tokens: np.ndarray, known: Known) -> tuple[list[Measure], Nearest]:
    """Measure rows against training rows.

    Args:
      tokens: [N, T] or [N, T, K] integer.
      known: training rows.

    Returns:
      The measures, and the nearest training rows they are made from.
    """
    near = nearest(tokens, known)
    found = of_nearest(near)
    for (column, track), moves in zip(_tracks(tokens, known.task), known.moves, strict=True):
        run = longest_runs(column, moves, track)
        counts = onsets(column, track).sum(axis=1)
        part = np.divide(run, counts, out=np.full(len(run), np.nan), where=counts > 0)
        name = "longest run shared with a training row, notes"
        found += [
            of_values(name, FAMILY, track.name, run, 0, MAX_RUN, MAX_RUN),
            of_values("the same as a share of the row's notes", FAMILY, track.name, part, 0, 1, 24),
        ]
    return found, near


def of_nearest(near: Nearest) -> list[Measure]:
    """Measure how far the nearest training rows are, and how many rows are copies."""
    copies = (near.distance == 0).astype(np.float64)
    copied = of_values("copies of a training row", FAMILY, "all", copies, 0, 2, 2)
    return [
        of_values("distance to the nearest training row", FAMILY, "all", near.distance, 0, 1, 32),
        copied._replace(labels=("no", "yes")),
    ]


def nearest(tokens: np.ndarray, known: Known) -> Nearest:
    """Find the training row with the fewest steps that differ, once both are written as intervals.

    A melody moved as a whole is at distance 0; a single note moved changes two steps, its
    own and that of the note after it.
    """
    rows = events.relative_events(tokens, known.task)
    best = np.full(len(rows), -1, np.int64)
    index = np.zeros(len(rows), np.int64)
    empty = np.iinfo(rows.dtype).max  # no event has this value
    for start in range(0, len(known.events), _CHUNK):
        chunk = known.events[start : start + _CHUNK]
        padding = np.full((_CHUNK - len(chunk), chunk.shape[1]), empty, chunk.dtype)
        equal, place = _most_equal(rows, np.concatenate([chunk, padding]))
        better = np.asarray(equal, np.int64) > best
        best[better] = np.asarray(equal, np.int64)[better]
        index[better] = np.asarray(place, np.int64)[better] + start
    return Nearest(1.0 - best / rows.shape[1], index)


@jax.jit
def _most_equal(rows: jax.Array, known: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Count the equal steps of each row and its nearest of `known`, and say which that is."""

    def add(total: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        equal = step[0][:, None] == step[1][None, :]
        return total + equal.astype(total.dtype), None

    # Bytes are added several times as fast as words.
    dtype = jnp.uint8 if rows.shape[1] < 256 else jnp.uint16
    total = jnp.zeros((rows.shape[0], known.shape[0]), dtype)
    total, _ = jax.lax.scan(add, total, (rows.T, known.T))
    return total.max(axis=1), total.argmax(axis=1)


def longest_runs(column: np.ndarray, known: _Moves, track: Track) -> np.ndarray:
    """Find the longest run of notes that also occurs in a training row, up to transposition.

    A run is the same if its notes start as many steps apart and are as many semitones apart;
    for drums, if the same classes are hit at the same distances. One note alone always counts
    as found. Runs are compared by 64-bit hashes.

    Args:
      column: tokens of one track, int64 [N, T].
      known: moves of the training rows.
      track: what the tokens mean.

    Returns:
      float64 [N], notes (for drums: steps with hits); NaN for rows without any.
    """
    moves = _moves(column, track)
    notes = onsets(column, track).sum(axis=1)
    longest = np.where(notes > 0, 1.0, np.nan)
    at, known_at = np.arange(len(moves.code)), np.arange(len(known.code))
    hashes, known_hashes = moves.code, known.code
    length = 1
    while len(at) and len(known_at):
        # Only where runs of this length are equal can longer ones be.
        kept = _members(known_hashes, np.unique(hashes))
        known_at, known_hashes = known_at[kept], known_hashes[kept]
        kept = _members(hashes, np.unique(known_hashes))
        at, hashes = at[kept], hashes[kept]
        longest[moves.row[at]] = length + 1
        at, hashes = _longer(moves, at, hashes, length)
        known_at, known_hashes = _longer(known, known_at, known_hashes, length)
        length += 1
    return longest


def _moves(column: np.ndarray, track: Track) -> _Moves:
    """List the moves of all rows; each code is a hash of interval (or hits) and distance."""
    rows, steps = np.nonzero(onsets(column, track))
    values = column[rows, steps]
    same = rows[1:] == rows[:-1]
    before, after = values[:-1][same], values[1:][same]
    move = after - before + 256 if track.is_pitched else before * track.num_classes + after
    code = move * (column.shape[1] + 1) + np.diff(steps)[same]
    row = rows[1:][same]
    last = np.append(row[1:] != row[:-1], True)[: len(row)]
    mixed = code.astype(np.uint64) * _FACTOR
    return _Moves((mixed ^ (mixed >> np.uint64(29))) * _MIX, row, last)


def _longer(
    moves: _Moves, at: np.ndarray, hashes: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Make the runs of `length` moves that begin at `at` one longer, where their row continues."""
    goes_on = ~moves.last[at + length - 1]
    at, hashes = at[goes_on], hashes[goes_on]
    return at, (hashes * _FACTOR) ^ moves.code[at + length]


def _members(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Tell which values, uint64 [M], are among known ones, sorted uint64 [P]: bool [M]."""
    shift = np.uint64(64 - _BITMAP_BITS)
    bitmap = np.zeros(1 << _BITMAP_BITS, bool)
    bitmap[known >> shift] = True
    found = bitmap[values >> shift]
    (maybe,) = np.nonzero(found)
    place = np.minimum(np.searchsorted(known, values[maybe]), max(len(known) - 1, 0))
    found[maybe] = known[place] == values[maybe] if len(known) else False
    return found

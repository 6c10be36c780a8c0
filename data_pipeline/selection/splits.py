"""Assign files to splits, and remove duplicate rows.

Everything works on arrays with one entry per row, so that tens of millions of rows fit.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.compiled import compiled

# In the order in which a repeated row is kept.
SPLITS = ("train", "validation", "test")

_HASH_CHUNK = 2**14
_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_SEEDS = (np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344))
_LAST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SHIFTS = (np.uint64(29), np.uint64(32))


def split_of(md5: str, percentages: tuple[float, float, float], seed: int) -> int:
    """Return the index in `SPLITS` of a file, from its bytes alone.

    A file keeps its split when other files are added.

    Args:
      md5: hexadecimal hash of the file's bytes.
      percentages: share of the files in each split; they sum to 100.
      seed: random seed of the splits.
    """
    point = _point(md5, seed)
    bounds = tuple(itertools.accumulate(percentages))
    return sum(point >= bound for bound in bounds[:-1])


def _point(md5: str, seed: int) -> float:
    """Return a number in [0, 100) drawn from a file's bytes."""
    digest = hashlib.blake2b(f"{seed}:{md5}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def fill_empty_splits(
    drawn: Mapping[str, int],
    of_tasks: Sequence[Collection[str]],
    percentages: tuple[float, float, float],
    seed: int,
    pinned: Collection[str] = (),
) -> dict[str, int]:
    """Move one song into each split that would have no rows of a task of three songs or more.

    The song drawn closest to the empty split moves there, unless its own split would then have no
    song of one of the tasks. Until every split has songs of its own, adding songs can change which
    one is moved.

    Args:
      drawn: for each song, by md5, the index of its split.
      of_tasks: for each task the songs with rows.
      percentages: share of the songs in each split; they sum to 100.
      seed: random seed of the splits, as in `split_of`.
      pinned: songs that must stay where they are.
    """
    splits = dict(drawn)
    counts = [collections.Counter(splits[md5] for md5 in songs) for songs in of_tasks]
    ends = list(itertools.accumulate(percentages))
    for task, songs in enumerate(of_tasks):
        for split, share in enumerate(percentages):
            if not share or counts[task][split] or len(songs) < len(SPLITS):
                continue
            middle = ends[split] - share / 2
            for md5 in sorted(songs, key=lambda md5: (abs(_point(md5, seed) - middle), md5)):
                own = [
                    count for count, others in zip(counts, of_tasks, strict=True) if md5 in others
                ]
                if md5 not in pinned and all(count[splits[md5]] > 1 for count in own):
                    for count in own:
                        count.update({splits[md5]: -1, split: 1})
                    splits[md5] = split
                    break
    return splits


def row_hashes(rows: np.ndarray) -> np.ndarray:
    """Return 128-bit hashes of rows.

    Args:
      rows: [N, ...] unsigned integers.

    Returns:
      uint64 [N, 2], the same on every machine; rows that differ in one 8-byte word never agree.
    """
    hashes = np.empty((len(rows), 2), np.uint64)
    for start in range(0, len(rows), _HASH_CHUNK):
        chunk = np.ascontiguousarray(rows[start : start + _HASH_CHUNK])
        chunk = chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)
        octets = chunk.reshape(len(chunk), -1).view(np.uint8)
        if octets.shape[1] % 8:
            words = np.zeros((len(chunk), -(-octets.shape[1] // 8) * 8), np.uint8)
            words[:, : octets.shape[1]] = octets
            octets = words
        _hash_words(octets.view("<u8").astype(np.uint64, copy=False), hashes[start:])
    return hashes


@compiled
def _hash_words(words: np.ndarray, hashes: np.ndarray) -> None:
    """Hash uint64 [N, W] into [N, 2]: xor, multiply and shift, each step one to one."""
    for i in range(len(words)):
        first, second = _SEEDS
        for word in words[i]:
            first = (first ^ word) * _FACTORS[0]
            first ^= first >> _SHIFTS[0]
            second = (second ^ word) * _FACTORS[1]
            second ^= second >> _SHIFTS[1]
        first *= _LAST_FACTOR
        second *= _LAST_FACTOR
        hashes[i, 0] = first ^ (first >> _SHIFTS[1])
        hashes[i, 1] = second ^ (second >> _SHIFTS[1])


class Selection(NamedTuple):
    """The rows that are kept.

    Attributes:
      rows: for each split the indices of its rows, int64, in stored order.
      before: for each split its rows before duplicates were removed.
      shared: for each pair of splits, "train/validation" and so on, the number of different rows
        found in both; they stay in the first one only.
    """

    rows: dict[str, np.ndarray]
    before: dict[str, int]
    shared: dict[str, int]


def select_rows(hashes: np.ndarray, splits: np.ndarray, ranks: np.ndarray) -> Selection:
    """Keep each different row once: in train if it is found there, else in validation.

    Stored order is by split, then by file rank, then as given.

    Args:
      hashes: uint64 [N, 2], of rows.
      splits: integer [N], index in `SPLITS` of the row's file.
      ranks: integer [N], place of the row's file; does not depend on the order of reading.
    """
    order = np.lexsort((ranks, splits))
    splits = splits[order]
    high, low = hashes[order, 0], hashes[order, 1]
    by_hash = np.lexsort((low, high))  # stable: equal rows stay in stored order
    high, low = high[by_hash], low[by_hash]
    starts = np.ones(len(order), bool)
    starts[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    first = np.flatnonzero(starts)
    kept = np.zeros(len(order), bool)
    kept[by_hash[first]] = True
    bits = np.left_shift(np.uint8(1), splits.astype(np.uint8))[by_hash]
    found_in = np.bitwise_or.reduceat(bits, first) if len(first) else bits
    shared = {}
    for a, b in itertools.combinations(range(len(SPLITS)), 2):
        pair = np.uint8(1 << a | 1 << b)
        shared[f"{SPLITS[a]}/{SPLITS[b]}"] = int(np.count_nonzero((found_in & pair) == pair))
    return Selection(
        rows={name: order[kept & (splits == i)] for i, name in enumerate(SPLITS)},
        before={name: int(np.count_nonzero(splits == i)) for i, name in enumerate(SPLITS)},
        shared=shared,
    )

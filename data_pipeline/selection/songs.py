"""Find files of the same song: web collections contain many songs several times.

Two files are one song if more than 0.3 of their rows are shared: shared / union over the rows
of all tasks together that have at least 8 note onsets and are found in at most 50 files. A
song is a connected component of this graph; its files go to one split.

`_BUCKET_ROWS` bounds the memory for any corpus: row hashes, and then counts of pairs of files, are
partitioned into files on disk, which are sorted one at a time.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from data_pipeline.selection.splits import fill_empty_splits, row_hashes, split_of
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS, Task
from musicvae_jax.tokens import onsets

MIN_ONSETS = 8
MAX_FILES = 50
LARGE_SONG = 100

# A pair is one song if shared / union > 3 / 10; whole numbers, so that machines agree.
_SHARED_PARTS, _UNION_PARTS = 10, 3
_BUCKET_ROWS = 2**22
_PAIR_FILES = 32


def num_onsets(rows: np.ndarray, task: Task) -> np.ndarray:
    """Count note onsets: steps with a new note in a melody or bass, or with a drum hit.

    Args:
      rows: [N, *task.row_shape] tokens.
      task: what the rows mean.

    Returns:
      int64 [N], summed over tracks.
    """
    columns = rows.reshape(len(rows), task.num_steps, len(task.tracks))
    total = np.zeros(len(rows), np.int64)
    for k, track in enumerate(task.tracks):
        total += np.count_nonzero(onsets(columns[:, :, k], track), axis=1)
    return total


def song_hashes(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return sorted 64-bit hashes of the different non-trivial rows of one file, uint64 [N].

    Args:
      rows: for each task its rows; equal rows of two tasks differ here.
    """
    hashes = [np.zeros(0, np.uint64)]
    for number, (name, task) in enumerate(TASKS.items()):
        if name in rows:
            chosen = rows[name][num_onsets(rows[name], task) >= MIN_ONSETS]
            hashes.append(row_hashes(chosen)[:, 0] ^ np.uint64(number))
    return np.unique(np.concatenate(hashes))


def similar_pairs(hashes: np.ndarray, counts: np.ndarray, scratch: pathlib.Path) -> np.ndarray:
    """Find the pairs of files that are one song.

    Args:
      hashes: uint64 [N], `song_hashes` of all files, one file after the other.
      counts: int64 [F], hashes of each file.
      scratch: folder to make and delete.

    Returns:
      int64 [P, 2], indices of files.
    """
    scratch.mkdir(exist_ok=True)
    try:
        sizes = np.zeros(len(counts), np.int64)
        for bucket in _part_hashes(hashes, counts, scratch):
            _spill_pairs(*_sharing_files(bucket, sizes), scratch)
        found = [_above_threshold(path, sizes) for path in sorted(scratch.glob("pairs*"))]
        return np.concatenate([np.zeros((0, 2), np.int64), *found])
    finally:
        shutil.rmtree(scratch)


def _part_hashes(
    hashes: np.ndarray, counts: np.ndarray, scratch: pathlib.Path
) -> Iterator[np.ndarray]:
    """Part (hash, file) by hash into files that fit in memory; yield each, uint64 [n, 2]."""
    num_parts = len(hashes) // _BUCKET_ROWS + 1
    ends = np.cumsum(counts)
    for start in range(0, len(hashes), _BUCKET_ROWS):
        part = np.array(hashes[start : start + _BUCKET_ROWS])
        places = np.arange(start, start + len(part))
        files = np.searchsorted(ends, places, side="right").astype(np.uint64)
        which = (part >> np.uint64(32)) % np.uint64(num_parts)
        order = np.argsort(which, kind="stable")
        pairs = np.stack([part[order], files[order]], axis=1)
        bounds = np.searchsorted(which[order], np.arange(num_parts + 1).astype(np.uint64))
        for number in range(num_parts):
            _append(scratch / f"rows{number}", pairs[bounds[number] : bounds[number + 1]])
    for path in sorted(scratch.glob("rows*")):
        yield np.fromfile(path, np.uint64).reshape(-1, 2)
        path.unlink()


def _sharing_files(bucket: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add each file's rows that count to `sizes`; return those found in several files.

    Returns:
      The row's number and its file, int64 [n] each, by row.
    """
    bucket = bucket[np.argsort(bucket[:, 0], kind="stable")]
    starts = np.flatnonzero(np.diff(bucket[:, 0], prepend=~bucket[:1, 0]))
    found_in = np.diff(starts, append=len(bucket))
    row = np.repeat(np.arange(len(starts)), found_in)
    files = bucket[:, 1].astype(np.int64)
    sizes += np.bincount(files[found_in[row] <= MAX_FILES], minlength=len(sizes))
    several = (found_in[row] > 1) & (found_in[row] <= MAX_FILES)
    return row[several], files[several]


def _spill_pairs(row: np.ndarray, files: np.ndarray, scratch: pathlib.Path) -> None:
    """Write every pair of files that share a row, with how many they share here."""
    for distance in range(1, MAX_FILES):
        same = row[distance:] == row[:-distance]
        if not same.any():
            break
        one, other = files[:-distance][same], files[distance:][same]
        keys, shared = np.unique(
            np.minimum(one, other) << 32 | np.maximum(one, other), return_counts=True
        )
        which = (keys >> 32) % _PAIR_FILES
        for number in np.unique(which):
            chosen = which == number
            pairs = np.stack([keys[chosen], shared[chosen]], axis=1)
            _append(scratch / f"pairs{number}", pairs.astype(np.uint64))


def _above_threshold(path: pathlib.Path, sizes: np.ndarray) -> np.ndarray:
    """Add up the counts of each pair in a file; return the pairs that are one song."""
    pairs = np.fromfile(path, np.uint64).reshape(-1, 2).astype(np.int64)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    shared = np.add.reduceat(pairs[:, 1], starts)
    one, other = pairs[starts, 0] >> 32, pairs[starts, 0] & 0xFFFFFFFF
    union = sizes[one] + sizes[other] - shared
    return np.stack([one, other], axis=1)[shared * _SHARED_PARTS > union * _UNION_PARTS]


def _append(path: pathlib.Path, values: np.ndarray) -> None:
    with path.open("ab") as stream:
        stream.write(np.ascontiguousarray(values).data)


def connect(num_files: int, pairs: np.ndarray) -> np.ndarray:
    """Return for each file the smallest index that it is connected with, int64 [F].

    Args:
      num_files: F.
      pairs: int64 [P, 2], indices of files that are one song.
    """
    from scipy import sparse

    edges = sparse.coo_array((np.ones(len(pairs)), pairs.T), (num_files, num_files))
    _, songs = sparse.csgraph.connected_components(edges, directed=False)
    _, first = np.unique(songs, return_index=True)
    return first[songs]


@dataclasses.dataclass(frozen=True)
class Songs:
    """The files of a corpus as songs.

    Attributes:
      md5s: of every file, sorted, each once.
      first: for each file the index of its song's smallest md5, int64 [F].
    """

    md5s: list[str]
    first: np.ndarray

    def splits(
        self,
        percentages: tuple[float, float, float],
        seed: int,
        pinned: Mapping[str, int],
        of_tasks: Sequence[Collection[str]] = (),
    ) -> dict[str, int]:
        """Return each file's split: its pin, else that of a pinned file of its song, else drawn.

        Args:
          percentages: share of the songs in each split.
          seed: random seed of the splits.
          pinned: for some files, by md5, the index of their split.
          of_tasks: for each task the md5s of the files with rows; see `fill_empty_splits`.
        """
        songs = dict(zip(self.md5s, self.first.tolist(), strict=True))
        of_song: dict[int, int] = {}
        for md5, song in songs.items():
            if md5 in pinned:
                of_song.setdefault(song, pinned[md5])
        fixed = {self.md5s[song] for song in of_song}
        for song in set(songs.values()) - set(of_song):
            of_song[song] = split_of(self.md5s[song], percentages, seed)
        drawn = {self.md5s[song]: split for song, split in of_song.items()}
        groups = [{self.md5s[songs[md5]] for md5 in files} for files in of_tasks]
        for md5, split in fill_empty_splits(drawn, groups, percentages, seed, fixed).items():
            of_song[songs[md5]] = split
        return {md5: pinned.get(md5, of_song[song]) for md5, song in songs.items()}

    def large(self) -> list[tuple[str, int]]:
        """List songs of more than `LARGE_SONG` files: smallest md5 and files, largest first."""
        songs, sizes = np.unique(self.first, return_counts=True)
        found = [
            (self.md5s[song], size)
            for song, size in zip(songs.tolist(), sizes.tolist(), strict=True)
            if size > LARGE_SONG
        ]
        return sorted(found, key=lambda item: (-item[1], item[0]))

    @property
    def num_songs(self) -> int:
        """Number of songs."""
        return len(np.unique(self.first))


def find_songs(
    md5s: Sequence[str], hashes: np.ndarray, counts: np.ndarray, scratch: pathlib.Path
) -> Songs:
    """Group files into songs.

    Args:
      md5s: of every file in any order; files of the same bytes may occur twice.
      hashes: uint64 [N], `song_hashes` of all files, one file after the other.
      counts: int64 [F], hashes of each file.
      scratch: folder to make and delete.

    Raises:
      InputError: more files than a pair of them can be numbered.
    """
    if len(md5s) >= 2**31:
        raise InputError(f"input: {len(md5s):,} files are more than 2**31")
    names = sorted(set(md5s))
    place = {md5: index for index, md5 in enumerate(names)}
    index = np.array([place[md5] for md5 in md5s], np.int64)
    pairs = index[similar_pairs(hashes, counts, scratch)]
    return Songs(names, connect(len(names), pairs))

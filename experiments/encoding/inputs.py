"""Input of `experiments.encode`: the rows of a token store or of files, starting at any place.

A place is (unit, row): a split of a store or a file of a collection, and a row in it. Only one
file, or one part of a split, is in memory at a time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.codecs.pieces import Excerpt
from data_pipeline.extraction.excerpts import file_excerpts
from data_pipeline.inputs import sources
from experiments.cli.run_data import open_checked
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.tasks import Task

# Rows read from a store at a time.
STORE_PART = 8192
NO_BAR = -1


class Place(NamedTuple):
    """Position of a row in the input: number of the split or file, number of the row in it."""

    unit: int
    row: int


@dataclasses.dataclass(frozen=True)
class Block:
    """Some rows of one unit.

    Attributes:
      first: place of the first row, or where it would be.
      after: place after the last row.
      rows: [N, *task.row_shape].
      files: N names of files (with "#" and a number for tunes) or splits.
      bars: int32 [N], first bar of each row from 1; NO_BAR for rows of a store.
      skipped: (name, reason) of files and tunes without rows.
    """

    first: Place
    after: Place
    rows: np.ndarray
    files: list[str]
    bars: np.ndarray
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The whole input.

    Attributes:
      task: task of the rows.
      fingerprint: hexadecimal digest that identifies the input.
      total: number of rows; None for files, which have to be read first.
      store: the token store, or None.
      files: collections of files, if the input is not a store.
      splits: splits of the store, in order.
      meter: accepted meter of files.
    """

    task: Task
    fingerprint: str
    total: int | None
    store: data.Store | None = None
    files: tuple[sources.Source, ...] = ()
    splits: tuple[str, ...] = ()
    meter: str = "4/4"

    def blocks(self, start: Place) -> Iterator[Block]:
        """Yield the rows in order, starting at a place."""
        return _store_blocks(self, start) if self.store else _file_blocks(self, start)


def open_corpus(
    inputs: tuple[str, ...], split: str | None, meter: str, task: Task, allow_changed: bool = False
) -> Corpus:
    """Open the inputs: one token store, or files, folders and archives.

    Raises:
      InputError: an input does not exist, or a store is of another task, has changed or is not the
        only input.
    """
    stores = [path for path in inputs if os.path.isfile(os.path.join(path, "meta.json"))]
    if stores and len(inputs) > 1:
        raise InputError(f"input: {stores[0]} is a token store; encode it by itself")
    if stores:
        return _open_store(open_checked(stores[0], task, "input", allow_changed), split)
    if split:
        raise InputError("split: only a token store has splits, the input is music files")
    found = tuple(sources.open_sources(inputs))
    listed = [
        [source.name, [[name, _size(path)] for name, path in source.files]] for source in found
    ]
    identity = {"task": task.name, "meter": meter, "files": listed}
    return Corpus(task, _digest(identity), None, files=found, meter=meter)


def _open_store(store: data.Store, split: str | None) -> Corpus:
    """Describe the chosen splits of a token store."""
    splits = (split,) if split else data.SPLITS
    identity = _digest({"store": store.fingerprint, "splits": splits})
    total = sum(len(store.splits[name]) for name in splits)
    return Corpus(store.task, identity, total, store=store, splits=splits)


def _store_blocks(corpus: Corpus, start: Place) -> Iterator[Block]:
    """Read the splits in parts."""
    if corpus.store is None:
        return
    for unit, split in list(enumerate(corpus.splits))[start.unit :]:
        rows = corpus.store.splits[split]
        begin = start.row if unit == start.unit else 0
        for first in range(begin, len(rows), STORE_PART):
            part = np.asarray(rows[first : first + STORE_PART])
            bars = np.full(len(part), NO_BAR, np.int32)
            after = Place(unit, first + len(part))
            yield Block(Place(unit, first), after, part, [split] * len(part), bars)


def _file_blocks(corpus: Corpus, start: Place) -> Iterator[Block]:
    """Read the files one by one; files before the place are not decoded."""
    entries = (entry for source in corpus.files for entry in sources.entries(source))
    nothing = np.zeros((0, *corpus.task.row_shape), corpus.task.token_dtype)
    for unit, entry in enumerate(entries):
        if unit < start.unit:
            continue
        found: list[Excerpt] = []
        skipped = [(entry.name, entry.reason or "")]
        if entry.data is not None:
            found, skipped = file_excerpts(entry.name, entry.data, corpus.task, meter=corpus.meter)
        first = start.row if unit == start.unit else 0
        # After a resume in the middle of a file, its skipped tunes have been counted already.
        skipped = [] if first else skipped
        found = found[first:]
        rows = np.stack([excerpt.row for excerpt in found]) if found else nothing
        bars = np.array([excerpt.start_bar for excerpt in found], np.int32)
        names = [excerpt.name for excerpt in found]
        after = Place(unit + 1, 0)
        yield Block(Place(unit, first), after, rows, names, bars, skipped)


def _size(path: str) -> int:
    """Return a file's size in bytes, -1 if it is unknown."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def _digest(identity: Any) -> str:
    """Return the hexadecimal digest of plain values."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

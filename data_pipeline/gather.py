"""All inputs to rows on disk: read, convert in child processes, note what became of each file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import tqdm

from data_pipeline import sources, workers
from data_pipeline.archives import Entry
from data_pipeline.convert import Converted, Job, convert
from data_pipeline.manifest import Unit, settle_copies
from data_pipeline.sources import Source
from data_pipeline.splits import split_of
from data_pipeline.store import RowSpool

# Imported once, for all children: it takes more than a second.
_PRELOAD = ("note_seq",)


class Gathering:
    """Everything read so far.

    Attributes:
      units: one for each file, or tune of a tunebook, in order of reading.
      num_files: files met, whatever they hold.
      file_md5s: for each source, the hashes of its music files.
      spools: the rows of each task.
    """

    def __init__(self, spools: dict[str, RowSpool], meter: str) -> None:
        self.units: list[Unit] = []
        self.num_files = 0
        self.file_md5s: list[list[str]] = []
        self.spools = spools
        self._meter = meter
        self._copies: list[tuple[int, int]] = []
        self._first_with: dict[tuple[str, str], int] = {}
        self.position = 0  # bytes of all sources read so far

    def jobs(self, inputs: list[Source]) -> Iterator[tuple[int, Job]]:
        """Yield what is to be converted; note what is not."""
        before = 0
        for source in inputs:
            self.file_md5s.append([])
            for entry in sources.entries(source):
                self.num_files += 1
                self.position = before + entry.position
                if entry.data is not None:
                    self.file_md5s[-1].append(sources.md5(entry.data))
                for part in sources.units(entry):
                    yield from self._job(part)
            before += source.size
        self.position = before

    def _job(self, part: Entry) -> Iterator[tuple[int, Job]]:
        """Note a unit; yield its job if it can be read and has not been."""
        index = len(self.units)
        unit = Unit(name=part.name, reason=part.reason, detail=part.detail)
        self.units.append(unit)
        if part.data is None:
            return
        unit.md5 = sources.md5(part.data)
        kind = os.path.splitext(part.name.partition("#")[0])[1].lower()
        first = self._first_with.setdefault((unit.md5, kind), index)
        if first == index:
            yield index, Job(part.name, part.data, tuple(self.spools), self._meter)
        else:
            self._copies.append((index, first))

    def take(self, index: int, outcome: workers.Outcome) -> None:
        """Note what a job gave, and keep its rows."""
        unit = self.units[index]
        converted: Converted | None = outcome.value
        if converted is None:
            unit.reason, unit.detail = outcome.reason, outcome.detail
            return
        unit.reason, unit.detail = converted.reason, converted.detail
        unit.why_empty, unit.pieces_dropped = converted.why_empty, converted.pieces_dropped
        unit.rows = {task: len(rows) for task, rows in converted.rows.items()}
        for task, rows in converted.rows.items():
            self.spools[task].append(index, rows)

    def settle(self, percentages: tuple[float, float, float], seed: int) -> None:
        """Decide, when all is read, what depends on all: copies and splits."""
        settle_copies(self.units, self._copies)
        for unit in self.units:
            if unit.md5 is not None:
                unit.split = split_of(unit.md5, percentages, seed)


def gather(
    inputs: list[Source], spools: dict[str, RowSpool], meter: str, num_workers: int
) -> Gathering:
    """Convert every file of the inputs, with a progress line on standard error."""
    found = Gathering(spools, meter)
    results = workers.run_isolated(
        convert, found.jobs(inputs), num_workers=num_workers, preload=_PRELOAD
    )
    start, num_rows = time.monotonic(), 0
    with _progress(sum(source.size for source in inputs)) as bar, contextlib.closing(results):
        for index, outcome in results:
            found.take(index, outcome)
            num_rows += sum(found.units[index].rows.values())
            rate = len(found.units) / max(time.monotonic() - start, 1e-9)
            state = f"{len(found.units):,} files or tunes, {rate:,.0f}/s, {num_rows:,} rows"
            bar.set_postfix_str(state, refresh=False)
            bar.update(found.position - bar.n)
    return found


def _progress(num_bytes: int) -> Any:
    """Return a progress line that counts bytes; in a log file it moves rarely."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm.tqdm(
        total=num_bytes,
        bar_format="{percentage:3.0f}%{postfix} [{elapsed}, {remaining} left]",
        mininterval=interval,
        delay=interval,
        leave=False,
    )


def source_records(inputs: list[Source], file_md5s: list[list[str]]) -> list[dict[str, Any]]:
    """Describe the sources by what is in them; sorted, so that the order given does not count."""
    records = []
    for source, found in zip(inputs, file_md5s, strict=True):
        digest = hashlib.md5("".join(sorted(found)).encode(), usedforsecurity=False).hexdigest()
        record = {"name": source.name, "files": len(found), "md5": digest}
        if source.corpus is not None:
            record |= {"licence": source.corpus.licence, "citation": source.corpus.citation}
        records.append(record)
    return sorted(records, key=lambda record: (record["name"], record["md5"]))


def read_source_records(inputs: list[Source]) -> list[dict[str, Any]]:
    """Read the inputs, without converting them, to see whether they are still the same."""
    file_md5s = [
        [sources.md5(entry.data) for entry in sources.entries(source) if entry.data is not None]
        for source in inputs
    ]
    return source_records(inputs, file_md5s)

"""Read all inputs, have them converted to rows on disk, and record the result of each file."""

from __future__ import annotations

import array
import contextlib
import hashlib
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tqdm

from data_pipeline.conversion import workers
from data_pipeline.conversion.convert import SONGS, Converted, Job, convert, warm_up
from data_pipeline.conversion.journal import Journal
from data_pipeline.conversion.manifest import Unit, resolve_copies
from data_pipeline.inputs import sources
from data_pipeline.inputs.archives import Entry
from data_pipeline.inputs.sources import Source
from data_pipeline.progress_bar import progress_bar
from data_pipeline.selection.songs import Songs, find_songs
from musicvae_jax.tasks import get_task

# Imported once, for all children: they take more than a second each.
_PRELOAD = ("note_seq", "data_pipeline.fast.rows")
SILENT_SECONDS = 3.0  # without a converted file before a message says why
_NOBODY = -1  # a record whose file is no longer in the inputs


Jobs = Iterable[tuple[int, Job]]
Outcomes = Generator[tuple[int, workers.Outcome], None, None]
# Runs jobs somewhere, and takes them only as fast as they are finished: yields (key, outcome of
# `convert(job)`) in any order.
Executor = Callable[[Jobs], Outcomes]


def local_executor(num_workers: int) -> Executor:
    """Return an executor of child processes on this machine."""

    def run(jobs: Jobs) -> Outcomes:
        notice = threading.Timer(SILENT_SECONDS, _say_that_it_compiles)
        notice.daemon = True
        notice.start()
        outcomes = workers.run_isolated(
            convert, jobs, num_workers=num_workers, preload=_PRELOAD, setup=warm_up
        )
        try:
            with contextlib.closing(outcomes):
                for outcome in outcomes:
                    notice.cancel()
                    yield outcome
        finally:
            notice.cancel()

    return run


def _say_that_it_compiles() -> None:
    """Explain on standard error why nothing has been converted yet."""
    text = "starting the MIDI reader; the first conversion on a machine compiles it (about 20 s)"
    if sys.stderr.isatty():
        tqdm.tqdm.write(text, file=sys.stderr)
    else:  # tqdm.write would draw the delayed progress line
        print(text, file=sys.stderr, flush=True)


def open_journal(folder: pathlib.Path, tasks: Iterable[str], header: Mapping[str, Any]) -> Journal:
    """Open the journal of a conversion to some tasks."""
    types = {name: (get_task(name).token_dtype, get_task(name).row_shape) for name in tasks}
    return Journal(folder, {**types, SONGS: ("uint64", ())}, header)


class Gathering:
    """The state of a conversion: all units read so far.

    Attributes:
      units: one for each file, or tune of a tunebook, in order of reading.
      num_files: files seen, of any type.
      file_md5s: for each source, the hashes of its music files.
      journal: what is converted, with its rows.
      position: bytes of all sources read so far.
      songs: which units belong to one song; set by `resolve`.
    """

    def __init__(self, journal: Journal, meter: str, engine: str, programs: str | None) -> None:
        self.units: list[Unit] = []
        self.num_files = 0
        self.file_md5s: list[list[str]] = []
        self.journal = journal
        self.position = 0
        self.songs: Songs
        self._how = (
            tuple(name for name in journal.spools if name != SONGS),
            meter,
            engine,
            programs,
        )
        self._copies: list[tuple[int, int]] = []
        self._first_with: dict[tuple[str, str], int] = {}
        self._unit_of_record = array.array("q", [_NOBODY] * len(journal.records))

    def jobs(self, inputs: list[Source]) -> Iterator[tuple[int, Job]]:
        """Yield a job for each unit to convert; record the others."""
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
        """Record a unit; yield its job if it can be read and is not converted yet."""
        index = len(self.units)
        unit = Unit(name=part.name, reason=part.reason, detail=part.detail)
        self.units.append(unit)
        if part.data is None:
            return
        unit.md5 = sources.md5(part.data)
        key = (unit.md5, _kind(part.name))
        first = self._first_with.setdefault(key, index)
        if first != index:
            self._copies.append((index, first))
        elif (record := self.journal.find(key)) is not None:
            self._note(index, record)
        else:
            yield index, Job(part.name, part.data, *self._how)

    def take(self, index: int, outcome: workers.Outcome) -> None:
        """Store the result of a job."""
        unit = self.units[index]
        converted = outcome.value or Converted(reason=outcome.reason, detail=outcome.detail)
        key = (str(unit.md5), _kind(unit.name))
        self._unit_of_record.append(_NOBODY)
        self._note(index, self.journal.add(key, converted.rows, converted.facts()))

    def _note(self, index: int, record: int) -> None:
        """Fill in a unit from its record in the journal."""
        self._unit_of_record[record] = index
        unit, facts = self.units[index], self.journal.records[record]
        for name in unit.facts():
            setattr(unit, name, facts[name])
        if unit.reason is None:
            unit.rows = {task: facts["rows"][task] for task in self._how[0]}

    def units_of_rows(self, kind: str) -> np.ndarray:
        """Return the unit of each row of a spool, -1 for none, int32 [N]."""
        units = np.array(self._unit_of_record, np.int32)
        return np.repeat(units, np.array(self.journal.spools[kind].counts, np.int64))

    def resolve(self, scratch: pathlib.Path) -> None:
        """Resolve copies and songs, which depend on all units, once everything is read.

        Args:
          scratch: folder to make and delete.
        """
        resolve_copies(self.units, self._copies)
        spool, of_record = self.journal.spools[SONGS], np.array(self._unit_of_record, np.int64)
        counts = np.zeros(len(self.units), np.int64)
        counts[of_record[of_record != _NOBODY]] = np.array(spool.counts)[of_record != _NOBODY]
        # As the spool is ordered: units without a record last, their counts are 0.
        live = of_record[of_record != _NOBODY]
        others = np.setdiff1d(np.arange(len(self.units)), live)
        order = [i for i in np.concatenate([live, others]).tolist() if self.units[i].md5]
        hashes = spool.rows()
        if len(live) < len(of_record):
            hashes = hashes[np.repeat(of_record != _NOBODY, np.array(spool.counts))]
        md5s = [str(self.units[i].md5) for i in order]
        self.songs = find_songs(md5s, hashes, counts[order], scratch)


def gather(
    inputs: list[Source],
    journal: Journal,
    executor: Executor,
    *,
    meter: str,
    engine: str,
    programs: str | None,
) -> Gathering:
    """Convert every file of the inputs, with a progress line on standard error."""
    found = Gathering(journal, meter, engine, programs)
    results = executor(found.jobs(inputs))
    start, num_rows = time.monotonic(), sum(sum(r["rows"].values()) for r in journal.records)
    with _progress(sum(source.size for source in inputs)) as bar, contextlib.closing(results):
        for index, outcome in results:
            found.take(index, outcome)
            num_rows += sum(found.units[index].rows.values())
            rate = (len(journal.records) - journal.num_found) / max(time.monotonic() - start, 1e-9)
            state = f"{len(found.units):,} files or tunes, {rate:,.0f}/s, {num_rows:,} rows"
            bar.set_postfix_str(state, refresh=False)
            bar.update(found.position - bar.n)
    journal.flush()
    return found


def _kind(name: str) -> str:
    """Return the ending that decides how a unit is read."""
    return os.path.splitext(name.partition("#")[0])[1].lower()


def _progress(num_bytes: int) -> Any:
    """Return a progress line that counts bytes."""
    shown = "{percentage:3.0f}%{postfix} [{elapsed}, {remaining} left]"
    return progress_bar(total=num_bytes, bar_format=shown)


def source_records(inputs: list[Source], file_md5s: list[list[str]]) -> list[dict[str, Any]]:
    """Describe the sources by their content, sorted so that their order does not matter."""
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

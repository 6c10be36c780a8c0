"""Turn music files into token rows for training.

Example:
  python -m data_pipeline.prepare --input=midi_folder --input=more.zip --task=mel_2bar \
      --output=data/mel_2bar

Reads folders, .tar, .tar.gz, .zip and single files: MIDI, KAR, MusicXML, MXL, ABC. Prints a
report, and keeps it in the output folder with the rows and a manifest of all files. The same
command again finds the finished folder and leaves it as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import os
import pathlib
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from data_pipeline import command, report, store
from data_pipeline.gather import Gathering, gather, read_source_records, source_records
from data_pipeline.manifest import sort_key, write_manifest
from data_pipeline.pieces import METERS
from data_pipeline.sources import CORPORA, Source, open_sources
from data_pipeline.splits import row_hashes, select_rows
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS, get_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to read, what to make of it and where to put it.

    Attributes:
      inputs: folders, archives and files.
      corpora: keys of `CORPORA`.
      tasks: keys of `TASKS`; several make one store each, in folders of their names.
      output: folder to make; None only with `dry_run`.
      num_workers: processes that convert.
      meter: "4/4" or "any".
      split: percentages of files for train, validation and test.
      split_seed: another one draws other splits.
      dry_run: report and leave nothing behind.
    """

    inputs: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    tasks: tuple[str, ...]
    output: str | None = None
    num_workers: int = 1
    meter: str = "4/4"
    split: tuple[float, float, float] = (90, 5, 5)
    split_seed: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        for task in self.tasks:
            get_task(task)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"task: name each once: {', '.join(TASKS)}, or all")
        if self.meter not in METERS:
            raise InputError(f"meter: {self.meter!r} is not one of {', '.join(METERS)}")
        if self.num_workers < 1:
            raise InputError(f"workers: {self.num_workers} is out of range, it must be 1 or more")
        if min(self.split) < 0 or not math.isclose(sum(self.split), 100) or not self.split[0]:
            raise InputError(
                f"split: {self.split} must be percentages for train (above 0), validation and "
                "test that sum to 100, for example --split=90,5,5"
            )
        if self.output is None and not self.dry_run:
            raise InputError("output: say where to put the rows, --output=DIR")

    def identity(self) -> dict[str, Any]:
        """Return what decides the rows, by the names of the flags."""
        split = [int(share) if share == int(share) else share for share in self.split]
        tasks = sorted(self.tasks)
        return {"task": tasks, "meter": self.meter, "split": split, "split_seed": self.split_seed}


def prepare(options: Options) -> str:
    """Make the store, or find it made; return the report as text.

    Raises:
      InputError: an input is missing, nothing usable is in the inputs, or the output folder
        holds something else.
    """
    inputs = open_sources(options.inputs, options.corpora)
    if options.output is None or options.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            return _make(inputs, options, pathlib.Path(scratch))
    output = pathlib.Path(options.output).absolute()
    made = store.held(output)
    if made:
        store.check_held(output, made, read_source_records(inputs), options.identity())
        text = (output / f"{store.REPORT}.txt").read_text(encoding="utf-8")
        return f"{text}\nfound finished, left as it is: {options.output}\n"
    with store.new_folder(output) as folder:
        text = _make(inputs, options, folder)
    return f"{text}\nwritten: {options.output}\n"


def _make(inputs: list[Source], options: Options, folder: pathlib.Path) -> str:
    """Convert everything and write the store into a folder; return the report."""
    start = time.monotonic()
    spools = {
        name: store.RowSpool(folder / f"{name}.spool", get_task(name)) for name in options.tasks
    }
    found = gather(inputs, spools, options.meter, options.num_workers)
    found.settle(options.split, options.split_seed)
    records = source_records(inputs, found.file_md5s)
    tasks = [_write_task(name, found, records, options, folder) for name in options.tasks]
    whole = report.full_report(records, found.num_files, found.units, tasks)
    text = report.format_report(whole)
    if not any(task["rows_unique"] for task in tasks):
        sys.stdout.write(text)
        raise InputError(f"no rows: {report.hint(whole, options.meter)}")
    write_manifest(folder / store.MANIFEST, found.units)
    _write_report(folder, whole)
    store.write_json(folder / store.RUN, _run_facts(options, len(found.units), start))
    return text


def _write_task(
    name: str,
    found: Gathering,
    records: list[dict[str, Any]],
    options: Options,
    folder: pathlib.Path,
) -> dict[str, Any]:
    """Choose and write one task's rows; return its part of the report."""
    task, spool = get_task(name), found.spools[name]
    several = len(options.tasks) > 1
    place = folder / name if several else folder
    place.mkdir(exist_ok=True)
    rows, unit_of_row = spool.rows(), spool.units()
    ranks = np.empty(len(found.units), np.int64)
    ranks[sorted(range(len(found.units)), key=lambda i: sort_key(found.units[i]))] = np.arange(
        len(found.units)
    )
    splits = np.array([unit.split or 0 for unit in found.units], np.uint8)
    selection = select_rows(row_hashes(rows), splits[unit_of_row], ranks[unit_of_row])
    written = store.write_splits(place, rows, selection, task)
    examples = report.example_rows(rows, selection.rows["train"], task)
    spool.close()
    figures = report.task_report(task, found.units, selection, written, examples)
    if not figures["rows_unique"] and several:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        return figures
    store.write_json(place / store.META, store.meta(task, written, records, options.identity()))
    if several:
        _write_report(place, report.full_report(records, found.num_files, found.units, [figures]))
    return figures


def _write_report(folder: pathlib.Path, whole: dict[str, Any]) -> None:
    """Write a report as text and as JSON."""
    store.write_json(folder / f"{store.REPORT}.json", whole)
    text = report.format_report(whole)
    (folder / f"{store.REPORT}.txt").write_text(text, encoding="utf-8")


def _run_facts(options: Options, num_units: int, start: float) -> dict[str, Any]:
    """Return what depends on when, where and how the store was made."""
    seconds = time.monotonic() - start
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "inputs": [os.path.abspath(path) for path in options.inputs],
        "python": platform.python_version(),
        "seconds": round(seconds, 3),
        "units_per_second": round(num_units / seconds, 1),
        "workers": options.num_workers,
    }


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does: cleaned up."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def define_flags() -> None:
    """Define this entry point's flags."""
    names = ", ".join(TASKS)
    flags.DEFINE_multi_string("input", [], "Folder, archive or file to read; may be repeated.")
    flags.DEFINE_multi_string("corpus", [], f"Named corpus to read: {', '.join(CORPORA)}.")
    flags.DEFINE_list("task", [], f"What to make: {names}; several with commas, or all.")
    flags.DEFINE_string("output", None, "Folder to make; several tasks make one folder each in it.")
    flags.DEFINE_integer("workers", None, "Processes that convert; as many as cores by default.")
    flags.DEFINE_string("meter", "4/4", "4/4, or any: time signatures are ignored.")
    flags.DEFINE_list("split", ["90", "5", "5"], "Percentages of train, validation and test files.")
    flags.DEFINE_integer("split_seed", 0, "Another one draws other splits.")
    flags.DEFINE_boolean("dry_run", False, "Report and write nothing.")


def options_from_flags(values: flags.FlagValues) -> Options:
    """Read and check the flags.

    Raises:
      InputError: a flag is missing or out of range.
    """
    try:
        train, validation, test = (float(share) for share in values.split)
    except ValueError:
        given = ",".join(values.split)
        raise InputError(f"split: {given!r} is not three numbers, for example 90,5,5") from None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Options(
        inputs=tuple(values.input),
        corpora=tuple(values.corpus),
        tasks=tuple(TASKS) if values.task == ["all"] else tuple(values.task),
        output=values.output,
        num_workers=(cores or 1) if values.workers is None else values.workers,
        meter=values.meter,
        split=(train, validation, test),
        split_seed=values.split_seed,
        dry_run=values.dry_run,
    )


def main(argv: Sequence[str]) -> None:
    """Prepare what the flags say and print the report."""
    del argv
    with _termination_as_interrupt():
        sys.stdout.write(prepare(options_from_flags(flags.FLAGS)))


if __name__ == "__main__":
    define_flags()
    command.run(main)

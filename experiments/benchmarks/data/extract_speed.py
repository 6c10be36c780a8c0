r"""Time both engines from the bytes of a MIDI file to the rows of all five tasks.

Example:
  python -m experiments.benchmarks.data.extract_speed --input=../shared/data/web_midi.tar.gz \
    --input=../shared/data/groove.tar.gz --every=10

Both run on the same files in one process. Times are CPU times of one thread, so that other work
on the machine matters less, and the better of two rounds. "Whole" is the fast engine over all
files, including those it refuses and note_seq tries. "Lakh" is 176,581 files at that rate on two
cores, without reading and writing disks.
"""

from __future__ import annotations

import datetime
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numba
from absl import flags

from data_pipeline import cli
from data_pipeline.extraction.engines import NOTE_SEQ, extract_file
from data_pipeline.extraction.extract import Extraction
from data_pipeline.fast.midi import FastReadError, read_table
from data_pipeline.fast.rows import extract_fast, warm_up
from data_pipeline.inputs.archives import archive_entries
from data_pipeline.reading import notes
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS

LAKH_FILES = 176_581
_ROUNDS = 2


class Timing(NamedTuple):
    """CPU milliseconds of one file that both engines read: reading, and reading to rows."""

    note_seq_read: float
    note_seq_all: float
    fast_read: float
    fast_all: float
    num_bytes: int
    num_rows: int


def time_files(files: list[bytes]) -> list[Timing]:
    """Time every file that both engines read."""
    known = [data for data in files if _is_read(data)]
    columns = [
        _fastest(notes_by_note_seq, known),
        _fastest(rows_by_note_seq, known),
        _fastest(read_table, known),
        _fastest(lambda data: extract_fast(data, TASKS), known),
        [len(data) for data in known],
        [sum(len(made.rows) for made in extract_fast(data, TASKS).values()) for data in known],
    ]
    return [Timing(*column) for column in zip(*columns, strict=True)]


def notes_by_note_seq(data: bytes) -> notes.Unit:
    """Read a MIDI file with note-seq."""
    (unit,) = notes.read_units("file.mid", data)
    return unit


def rows_by_note_seq(data: bytes) -> dict[str, Extraction]:
    """Extract all tasks through note-seq."""
    return extract_file("file.mid", data, list(TASKS), engine=NOTE_SEQ).parts[0]


def _is_read(data: bytes) -> bool:
    """Tell whether both engines read a file."""
    try:
        read_table(data)
        notes_by_note_seq(data)
    except (FastReadError, notes.ReadError):
        return False
    return True


def _fastest(run: Callable[[bytes], object], files: list[bytes]) -> list[float]:
    """CPU milliseconds of each file, the best of several rounds."""
    best = [float("inf")] * len(files)
    for _ in range(_ROUNDS):
        for i, data in enumerate(files):
            start = time.process_time()
            run(data)
            best[i] = min(best[i], _milliseconds(start))
    return best


def _milliseconds(start: float) -> float:
    """CPU milliseconds since `start`."""
    return (time.process_time() - start) * 1e3


def whole_milliseconds(files: list[bytes]) -> float:
    """CPU milliseconds per file of the fast engine, including files it leaves to note_seq."""
    start = time.process_time()
    for data in files:
        try:
            extract_file("file.mid", data, list(TASKS))
        except notes.ReadError:
            continue
    return _milliseconds(start) / len(files)


def table_line(name: str, files: list[bytes], timings: list[Timing]) -> str:
    """Write one line of the table; `HEAD` names its columns."""
    means = [statistics.fmean(column) for column in zip(*timings, strict=True)]
    whole = whole_milliseconds(files)
    median = statistics.median(timing.note_seq_all / timing.fast_all for timing in timings)
    return (
        f"{name:<24}{len(files):>6}{len(timings):>6}{means[4] / 1000:>7.1f}{means[5]:>7.0f}"
        f"{means[0]:>10.2f}{means[1]:>8.2f}{means[2]:>9.3f}{means[3]:>8.3f}"
        f"{means[1] / means[3]:>8.1f}{median:>8.1f}"
        f"{1e3 / means[3]:>9.0f}{1e3 / whole:>9.0f}{LAKH_FILES * whole / 2 / 6e4:>12.1f}"
    )


HEAD = (
    f"{'':<24}{'':>6}{'both':>6}{'kB':>7}{'rows':>7}{'note_seq, ms':>18}{'fast, ms':>17}"
    f"{'times faster':>16}{'files/s':>9}{'whole':>9}{'Lakh on 2':>12}\n"
    f"{'archive':<24}{'files':>6}{'read':>6}{'/file':>7}{'/file':>7}{'read':>10}{'all':>8}"
    f"{'read':>9}{'all':>8}{'mean':>8}{'median':>8}{'':>9}{'files/s':>9}{'cores, min':>12}"
)


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_multi_string("input", [], "archive to read; repeat for several")
    flags.DEFINE_integer("every", 10, "take one file of so many", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Time the files of each archive and print a line for it."""
    del argv
    if not flags.FLAGS.input:
        raise InputError("input: name at least one archive, --input=FILE.tar.gz")
    for path in flags.FLAGS.input:
        if not pathlib.Path(path).is_file():
            raise InputError(f"input: {path} does not exist")
    start = time.process_time()
    warm_up()
    print(
        f"{datetime.date.today()}, {platform.machine()}, Python {platform.python_version()}, "
        f"numba {numba.__version__}; CPU time of one process, one file of "
        f"{flags.FLAGS.every}; start-up of the compiled code {time.process_time() - start:.1f} s"
    )
    notes.import_note_seq()
    print(HEAD)
    for path in flags.FLAGS.input:
        entries = archive_entries(path, pathlib.Path(path).name)
        files = [entry.data for entry in entries if entry.data is not None]
        files = files[:: flags.FLAGS.every]
        print(table_line(pathlib.Path(path).name, files, time_files(files)), flush=True)


if __name__ == "__main__":
    define_flags()
    cli.run(main)

r"""Deduplicate and split the rows of a corpus many times the size of Lakh: time, memory, disk rate.

Example:
  python -m experiments.benchmarks.data.dedupe --folder=/tmp \
    > experiments/benchmarks/data/dedupe.txt

Synthetic rows, one in five a duplicate, are written to --folder, which needs about twice their
size; they are deleted at the end. Timed is what `prepare` does with them: hash all rows, select
which stay, and write those to the arrays of three splits.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import flags

from data_pipeline import cli
from data_pipeline.selection.splits import SPLITS, Selection, row_hashes, select_rows
from data_pipeline.selection.store import write_splits
from musicvae_jax.config import InputError
from musicvae_jax.tasks import MELODY_CLASSES, Task, get_task

_ROWS_PER_FILE = 100
_FILES_PER_CHUNK = 500
_GIB = 2**30


class Result(NamedTuple):
    """What was measured.

    Attributes:
      seconds: of each step, by name.
      bytes_read: by hashing and by writing, together.
      bytes_written: the arrays.
      peak_bytes: most memory without pages of files.
      num_kept: rows that stay.
    """

    seconds: dict[str, float]
    bytes_read: int
    bytes_written: int
    peak_bytes: int
    num_kept: int


class _Memory:
    """Watches this process's memory, pages of files excluded."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            lines = pathlib.Path("/proc/self/status").read_text().splitlines()
            anonymous = next(line for line in lines if line.startswith("RssAnon:"))
            self.peak_bytes = max(self.peak_bytes, int(anonymous.split()[1]) * 1024)


def make_rows(path: pathlib.Path, num_rows: int, task: Task) -> int:
    """Write rows as a conversion spools them; return the number of duplicates.

    Every file of 100 rows ends in 20 rows of the file before it.
    """
    rng = np.random.default_rng(0)
    repeated, last = 0, None
    with path.open("wb") as stream:
        for start in range(0, num_rows, _ROWS_PER_FILE * _FILES_PER_CHUNK):
            count = min(num_rows - start, _ROWS_PER_FILE * _FILES_PER_CHUNK)
            shape = (count, *task.row_shape)
            rows = rng.integers(0, MELODY_CLASSES, shape, np.uint8).astype(task.token_dtype)
            for first in range(0, count - _ROWS_PER_FILE + 1, _ROWS_PER_FILE):
                file = rows[first : first + _ROWS_PER_FILE]
                if last is not None:
                    file[-20:] = last
                    repeated += 20
                last = file[:20].copy()
            stream.write(np.ascontiguousarray(rows).data)
        stream.flush()
        os.fsync(stream.fileno())
        # Read from disk, not from what the system still holds of it.
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return repeated


def deduplicate(path: pathlib.Path, num_rows: int, task: Task, folder: pathlib.Path) -> Result:
    """Deduplicate and split spooled rows as `prepare` does, and measure."""
    num_files = -(-num_rows // _ROWS_PER_FILE)
    rng = np.random.default_rng(1)
    ranks = rng.permutation(num_files).astype(np.int32)
    splits = rng.choice(np.arange(3, dtype=np.uint8), num_files, p=(0.9, 0.05, 0.05))
    seconds = {}
    with _Memory() as memory:
        clock = time.monotonic()
        files = np.repeat(np.arange(num_files, dtype=np.int32), _ROWS_PER_FILE)[:num_rows]
        rows = np.memmap(path, task.token_dtype, "r", shape=(num_rows, *task.row_shape))
        hashes = row_hashes(rows)
        seconds["hash"], clock = time.monotonic() - clock, time.monotonic()
        selection = select_rows(hashes, splits[files], ranks[files])
        seconds["select"], clock = time.monotonic() - clock, time.monotonic()
        del hashes, files
        write_splits(folder, rows, selection, task)
        os.sync()
        seconds["write"] = time.monotonic() - clock
    num_kept = sum(len(chosen) for chosen in selection.rows.values())
    row_bytes = rows.dtype.itemsize * int(np.prod(task.row_shape))
    _check(folder, rows, selection, num_kept)
    return Result(
        seconds,
        (num_rows + num_kept) * row_bytes,
        num_kept * row_bytes,
        memory.peak_bytes,
        num_kept,
    )


def _check(folder: pathlib.Path, rows: np.ndarray, selection: Selection, num_kept: int) -> None:
    """Check a few of the rows that were written."""
    for name in SPLITS:
        written = np.load(folder / f"{name}.npy", mmap_mode="r")
        chosen = selection.rows[name]
        places = np.linspace(0, len(chosen) - 1, 50).astype(int)
        np.testing.assert_array_equal(written[places], rows[chosen[places]])
    if not num_kept:
        raise InputError("rows: none is left")


def report(task: Task, num_rows: int, folder: pathlib.Path) -> str:
    """Make rows, measure, and write a line."""
    scratch = pathlib.Path(tempfile.mkdtemp(dir=folder))
    try:
        repeated = make_rows(scratch / "rows", num_rows, task)
        found = deduplicate(scratch / "rows", num_rows, task, scratch)
    finally:
        shutil.rmtree(scratch)
    if found.num_kept != num_rows - repeated:
        raise InputError(f"rows: {found.num_kept:,} stay, not {num_rows - repeated:,}")
    total = sum(found.seconds.values())
    rate = (found.bytes_read + found.bytes_written) / total / 1e6
    steps = " ".join(f"{found.seconds[name]:8.1f}" for name in ("hash", "select", "write"))
    shape = f"{task.token_dtype} [{num_rows:,}, {', '.join(map(str, task.row_shape))}]"
    return (
        f"{shape:<32} {found.num_kept:>12,} {steps} {total:8.1f} {found.peak_bytes / _GIB:9.2f} "
        f"{found.bytes_read / 1e9:8.2f} {found.bytes_written / 1e9:8.2f} {rate:8.0f}"
    )


def machine() -> str:
    """Describe this machine and the versions in use."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    cores = len(os.sched_getaffinity(0))
    return (
        f"{datetime.date.today().isoformat()}; {names[0] if names else platform.machine()}, "
        f"{cores} cores, {memory:.0f} GiB; Python {platform.python_version()}, "
        f"NumPy {np.__version__}"
    )


def define_flags() -> None:
    """Define this entry point's flags."""
    flags.DEFINE_string("folder", tempfile.gettempdir(), "On the disk to measure.")
    flags.DEFINE_integer("rows", 20_000_000, "Rows of 256 steps, uint8.", lower_bound=1_000)
    flags.DEFINE_integer("trio_rows", 3_000_000, "Rows of 256 x 3, uint16.", lower_bound=1_000)


def main(argv: Sequence[str]) -> None:
    """Print the table."""
    del argv
    values = flags.FLAGS
    folder = pathlib.Path(values.folder)
    print(machine())
    print("Peak: memory without pages of files. Rate: read and written bytes by total time.\n")
    print(
        f"{'rows':<32} {'kept':>12} {'hash s':>8} {'select s':>8} {'write s':>8} {'total s':>8} "
        f"{'peak GiB':>9} {'read GB':>8} {'wrote GB':>8} {'MB/s':>8}"
    )
    row_hashes(np.zeros((1, 8), np.uint8))  # compiled before it is timed
    for name, num_rows in (("mel_16bar", values.rows), ("trio_16bar", values.trio_rows)):
        print(report(get_task(name), num_rows, folder), flush=True)


if __name__ == "__main__":
    define_flags()
    cli.run(main)

r"""Compare the rows of both engines for every MIDI file of some archives, for all tasks.

Example:
  python -m experiments.benchmarks.data.engine_equality --input=../shared/data/web_midi.tar.gz \
    --input=../shared/data/groove.tar.gz --table=note_seq_rows.jsonl

The note_seq side takes minutes, so its hashes are kept in --table, one line per file, and reused
by the next run. Rows are compared as multisets, per file and task.
"""

from __future__ import annotations

import collections
import datetime
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm
from absl import flags

from data_pipeline import cli
from data_pipeline.extraction.engines import NOTE_SEQ, extract_file
from data_pipeline.extraction.extract import Extraction
from data_pipeline.fast.midi import FastReadError
from data_pipeline.fast.rows import extract_fast
from data_pipeline.inputs.archives import archive_entries
from data_pipeline.reading import notes
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS

_BOTH, _NEITHER = "both read", "none reads"
_ONLY_NOTE_SEQ, _ONLY_FAST = "only note_seq", "only fast"
_OUTCOMES = (_BOTH, _NEITHER, _ONLY_NOTE_SEQ, _ONLY_FAST)


def multiset_hash(rows: np.ndarray) -> str:
    """Hash rows [N, ...] as a multiset: by multiplicity, not by order."""
    if not len(rows):
        return ""
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    keys = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1])))[:, 0]
    return hashlib.sha256(np.sort(keys).tobytes()).hexdigest()[:32]


def note_seq_rows(data: bytes) -> dict[str, Any]:
    """Describe the rows of a file that the note_seq engine extracts."""
    return _described(lambda: extract_file("file.mid", data, list(TASKS), engine=NOTE_SEQ).parts[0])


def fast_rows(data: bytes) -> dict[str, Any]:
    """Describe the rows of a file that the fast engine extracts."""
    return _described(lambda: extract_fast(data, TASKS))


def _described(make: Callable[[], dict[str, Extraction]]) -> dict[str, Any]:
    """Describe extractions by numbers and hashes of rows and by reasons; or the refusal."""
    try:
        made = make()
    except (notes.ReadError, FastReadError) as error:
        return {"error": str(error)}
    return {
        "rows": {task: [len(e.rows), multiset_hash(e.rows)] for task, e in made.items()},
        "reasons": {task: dict(sorted(e.reasons.items())) for task, e in made.items()},
    }


class Comparison:
    """Counts over the files compared so far, and a line for each that differs."""

    def __init__(self) -> None:
        self.outcomes: dict[str, collections.Counter[str]] = {}
        self.rows: collections.Counter[str] = collections.Counter()
        self.lines: list[str] = []
        self.num_different = self.num_reasons = 0

    def add(self, name: str, slow: dict[str, Any], fast: dict[str, Any]) -> None:
        """Count one file; `slow` and `fast` as `note_seq_rows` and `fast_rows` give them."""
        outcome = {
            (True, True): _BOTH,
            (False, False): _NEITHER,
            (True, False): _ONLY_NOTE_SEQ,
            (False, True): _ONLY_FAST,
        }["rows" in slow, "rows" in fast]
        self.outcomes.setdefault(name.split("/")[0], collections.Counter())[outcome] += 1
        if outcome in (_ONLY_NOTE_SEQ, _ONLY_FAST):
            why = slow.get("error", fast.get("error"))
            self.lines.append(f"{name}: {outcome}: {why}")
        if outcome != _BOTH:
            return
        wrong = [task for task in TASKS if slow["rows"][task] != fast["rows"][task]]
        self.rows.update({task: count for task, (count, _) in fast["rows"].items()})
        self.num_reasons += slow["reasons"] == fast["reasons"]
        if wrong:
            self.num_different += 1
            self.lines.append(f"{name}: rows differ: {', '.join(wrong)}")

    def table(self) -> str:
        """Write the totals, then the files that differ."""
        head = f"{'archive':<24}{'files':>7}" + "".join(f"{name:>15}" for name in _OUTCOMES)
        total: collections.Counter[str] = collections.Counter()
        for counts in self.outcomes.values():
            total.update(counts)
        body = [
            f"{archive:<24}{sum(counts.values()):>7}"
            + "".join(f"{counts[name]:>15}" for name in _OUTCOMES)
            for archive, counts in [*sorted(self.outcomes.items()), ("total", total)]
        ]
        rows = ", ".join(f"{task} {self.rows[task]:,}" for task in TASKS)
        return "\n".join(
            [
                head,
                *body,
                f"files read by both whose rows differ in any task: {self.num_different}",
                f"files read by both with the same reasons for pieces dropped: {self.num_reasons}",
                f"rows compared: {rows}",
                *self.lines,
            ]
        )


def midi_files(path: str) -> Iterator[tuple[str, bytes]]:
    """Yield the names and bytes of the MIDI files of an archive."""
    for entry in archive_entries(path, pathlib.Path(path).name):
        if entry.data is not None:
            yield entry.name, entry.data


def _read_table(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Read the results of earlier runs, by the SHA-256 of the file."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {record["sha256"]: record["made"] for record in map(json.loads, lines)}


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_multi_string("input", [], "archive to read; repeat for several")
    flags.DEFINE_string("table", "note_seq_rows.jsonl", "where the note_seq side is kept")


def main(argv: Sequence[str]) -> None:
    """Compare all files and print the totals."""
    del argv
    inputs = flags.FLAGS.input
    if not inputs:
        raise InputError("input: name at least one archive, --input=FILE.tar.gz")
    for path in inputs:
        if not pathlib.Path(path).is_file():
            raise InputError(f"input: {path} does not exist")
    table = pathlib.Path(flags.FLAGS.table)
    known, compared = _read_table(table), Comparison()
    with table.open("a", encoding="utf-8") as out:
        for path in inputs:
            for name, data in tqdm.tqdm(midi_files(path), desc=path, mininterval=5):
                digest = hashlib.sha256(data).hexdigest()
                if digest not in known:
                    known[digest] = note_seq_rows(data)
                    out.write(json.dumps({"sha256": digest, "made": known[digest]}) + "\n")
                compared.add(name, known[digest], fast_rows(data))
    print(datetime.date.today(), "notes by note-seq 0.0.5, pretty_midi 0.2.11 and mido 1.3.3")
    print(compared.table())


if __name__ == "__main__":
    define_flags()
    cli.run(main)

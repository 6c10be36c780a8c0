"""What child processes do with a file of the user. Imports `data_pipeline` only: no jax."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipeline.extraction.engines import extract_file
from data_pipeline.extraction.offers import Offers, read_offers
from data_pipeline.reading.notes import ReadError

WINDOWS_PER_FILE = 16
# What children fork with.
PRELOAD = ("data_pipeline.fast.rows", "note_seq", "pretty_midi")


class Job(NamedTuple):
    """A file to read: its name and content, the task's name, and the meter to accept."""

    name: str
    data: bytes
    task: str
    meter: str


class Windows(NamedTuple):
    """Rows of a file [N, T(, K)], the bar of each, how many it has, and why it has none.

    Bars are counted from 1, at each change of tempo or meter anew.
    """

    tokens: np.ndarray
    bars: list[int]
    num_found: int
    why_empty: str | None


def compile_reader(job: Job) -> None:
    """Compile the MIDI reader, which the first use on a machine takes many seconds for."""
    # Loaded here: the server itself needs no compiler.
    from data_pipeline.fast import rows

    del job
    rows.warm_up()


def offers(job: Job) -> Offers | str:
    """List what a file offers, or say why it cannot be read."""
    try:
        return read_offers(job.name, job.data, job.task, meter=job.meter)
    except ReadError as error:
        return str(error)


def windows(job: Job) -> Windows | str:
    """Take at most `WINDOWS_PER_FILE` rows, evenly spread, or say why the file cannot be read."""
    try:
        found = extract_file(job.name, job.data, [job.task], meter=job.meter)
    except ReadError as error:
        return str(error)
    parts = [part[job.task] for part in found.parts]
    tokens = np.concatenate([part.rows for part in parts])
    bars = np.concatenate([part.bars for part in parts]) + 1
    chosen = np.linspace(0, len(tokens) - 1, min(WINDOWS_PER_FILE, len(tokens))).astype(np.int64)
    why = next((part.why_empty for part in parts if part.why_empty), None)
    why = None if len(tokens) else why
    return Windows(tokens[chosen], bars[chosen].tolist(), len(tokens), why)

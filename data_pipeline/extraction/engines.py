"""Which engine reads which file: the compiled one where it can, note-seq for all else."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.codecs.codec import cutter_of
from data_pipeline.extraction import extract
from data_pipeline.reading import notes
from data_pipeline.reading.extraction import Extraction
from data_pipeline.reading.notes import ReadError
from musicvae_jax.config import InputError
from musicvae_jax.tasks import get_task

if TYPE_CHECKING:
    from note_seq import NoteSequence

FAST, NOTE_SEQ = "fast", "note_seq"
ENGINES = (FAST, NOTE_SEQ)


@dataclasses.dataclass(frozen=True)
class FileExtraction:
    """What one file gave.

    Attributes:
      parts: for each unit of music that could be read (one, but for tunebooks), its
        extraction by task.
      engine: which engine read the file.
      fast_refusal: why the fast engine left a MIDI file to note-seq, else None.
    """

    parts: list[dict[str, Extraction]]
    engine: str
    fast_refusal: str | None = None


def extract_file(
    name: str,
    data: bytes,
    task_names: Sequence[str],
    *,
    meter: str = "4/4",
    dedupe: bool = True,
    engine: str = FAST,
    programs: str | None = None,
) -> FileExtraction:
    """Extract the rows of several tasks from one file.

    Args:
      name: the file's name; its ending decides where the content does not.
      data: its bytes.
      task_names: keys of `TASKS`.
      meter: "4/4" as the reference; "any" ignores time signatures.
      dedupe: remove duplicates within a segment, as the reference does (never for trios).
      engine: "note_seq", or "fast" with note-seq for piano rolls and what it cannot read.
      programs: General MIDI programs of melodies, as 0-31,40 or "any"; None for each task's own.

    Raises:
      InputError: unknown task, meter, engine or programs, or (ReadError) an unreadable file.
    """
    if engine not in ENGINES:
        raise InputError(f"engine: {engine!r} is not one of {', '.join(ENGINES)}")
    refusal = None
    makes_all = all(cutter_of(get_task(task)).in_fast_engine for task in task_names)
    if engine == FAST and makes_all and notes.kind_of(name, data) == notes.MIDI:
        # Loaded here: the other engine needs no compiler.
        from data_pipeline.fast import rows

        try:
            part = rows.extract_fast(
                data, task_names, meter=meter, dedupe=dedupe, programs=programs
            )
        except rows.FastReadError as error:
            refusal = error.reason
        else:
            return FileExtraction([part], FAST)
    try:
        parts = [
            extract.extract_tasks(
                sequence, task_names, meter=meter, dedupe=dedupe, programs=programs
            )
            for sequence in _sequences(name, data)
        ]
    except ReadError as error:
        raise ReadError(error.reason, error.detail, refusal) from error
    return FileExtraction(parts, NOTE_SEQ, refusal)


def extract_rows(
    path_or_bytes: str | os.PathLike[str] | bytes,
    task: str,
    *,
    meter: str = "4/4",
    engine: str = FAST,
) -> np.ndarray:
    """Extract the rows of one file, every tune of a tunebook, as the reference would.

    Args:
      path_or_bytes: a file's path or its content: MIDI, KAR, MusicXML, MXL or ABC.
      task: key of `TASKS`.
      meter: "4/4" as the reference; "any" ignores time signatures.
      engine: "fast", or "note_seq" for the reference's path; both give the same rows.

    Returns:
      Tokens [N, T] or [N, T, 3] of the task's token dtype. All windows, no limit per file;
      duplicates are removed within a segment only.

    Raises:
      InputError: unknown task, meter or engine; ReadError (an InputError): the file, or
        every tune of it, cannot be read.
    """
    if isinstance(path_or_bytes, bytes):
        name, data = "input", path_or_bytes
    else:
        name, data = os.fspath(path_or_bytes), pathlib.Path(path_or_bytes).read_bytes()
    made = extract_file(name, data, [task], meter=meter, engine=engine)
    return np.concatenate(
        [extract.no_rows(get_task(task)), *(part[task].rows for part in made.parts)]
    )


def _sequences(name: str, data: bytes) -> list[NoteSequence]:
    """Read every unit of a file that note-seq can read."""
    units = notes.read_units(name, data)
    sequences = [unit.sequence for unit in units if unit.sequence is not None]
    if not sequences:
        raise next(unit.error for unit in units if unit.error is not None)
    return sequences

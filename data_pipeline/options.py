"""Options of `prepare`."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import os
import pathlib
import zlib
from typing import Any

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.extraction.engines import ENGINES, FAST
from data_pipeline.inputs.sources import CORPORA
from data_pipeline.reading.programs import has_choice, parse_programs
from data_pipeline.reading.segments import METERS
from data_pipeline.selection.splits import SPLITS
from musicvae_jax.config import InputError
from musicvae_jax.tasks import NOTE_TASKS, TASKS, get_task

LOCAL, RAY = "local", "ray"
BY_SONG, BY_FILE = "song", "file"


def _task_names(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(TASKS) if given == ("all",) else given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to read, what to make of it and where to put it; each field is a flag."""

    inputs: tuple[str, ...] = option(
        (), flag="input", help="Folder, archive or file to read; may be repeated."
    )
    corpora: tuple[str, ...] = option(
        (), flag="corpus", help=f"Named corpus to read: {', '.join(CORPORA)}."
    )
    tasks: tuple[str, ...] = option(
        (),
        flag="task",
        comma=True,
        convert=_task_names,
        help=f"Tasks to make rows for, comma separated: {', '.join(TASKS)}, all (of these), or "
        f"{', '.join(name for name in NOTE_TASKS if name not in TASKS)}.",
    )
    output: str | None = option(
        None, help="Output folder; with several tasks, one folder each inside it."
    )
    overwrite: bool = option(
        False, help="Replace a store that was made from other files or with other options."
    )
    num_workers: int | None = option(
        None, flag="workers", help="Worker processes. Default: the number of cores."
    )
    meter: str = option(
        METERS[0], choices=METERS, help="Meter to accept: 4/4, or any (ignore time signatures)."
    )
    programs: str | None = option(
        None,
        help="General MIDI programs of melodies, from 0: any, or a list such as 0-31,40. "
        "Default: as in the reference, 0-31 for mel_2bar, any for mel_16bar.",
    )
    engine: str = option(
        FAST, choices=ENGINES, help="MIDI reader: fast, or note_seq (slower, same rows)."
    )
    split: tuple[float, float, float] = option(
        (90.0, 5.0, 5.0), comma=True, help="Percentages of train, validation and test."
    )
    split_by: str = option(
        BY_SONG,
        choices=(BY_SONG, BY_FILE),
        help="Unit of the splits: song (files that share rows stay together) or file.",
    )
    split_seed: int = option(0, help="Random seed of the splits.")
    split_file: str | None = option(
        None, help="A split.json (or .json.gz) whose assignment of files to splits is kept."
    )
    executor: str = option(
        LOCAL,
        choices=(LOCAL, RAY),
        help="Where to convert: local, or ray (extra `cluster`).",
    )
    ray_address: str | None = option(
        None, help="Address of a running Ray cluster. Default: start one."
    )
    cache_dir: str | None = option(None, help="Folder for downloaded corpora.")
    dry_run: bool = option(False, help="Report and write nothing.")

    def __post_init__(self) -> None:
        """Check every field."""
        for task in self.tasks:
            get_task(task)
        known = f"{', '.join(NOTE_TASKS)}, or all"
        if not self.tasks:
            raise InputError(f"task: --task is needed: one or more of {known}")
        if len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"task: name each once: {known}")
        cli.check_choices(self)
        if self.programs is not None:
            parse_programs(self.programs)
            if not any(has_choice(get_task(task)) for task in self.tasks):
                raise InputError("programs: only for tasks of one melody, mel_2bar or mel_16bar")
        if self.num_workers is not None and self.num_workers < 1:
            raise InputError(f"workers: {self.num_workers} is out of range, it must be 1 or more")
        is_split = len(self.split) == len(SPLITS) and min(self.split) >= 0 and self.split[0] > 0
        if not is_split or not math.isclose(sum(self.split), 100):
            raise InputError(
                f"split: {self.split} must be percentages for train (above 0), validation and "
                "test that sum to 100, for example --split=90,5,5"
            )
        if self.ray_address is not None and self.executor != RAY:
            raise InputError("ray_address: only with --executor=ray")
        if not self.inputs and not self.corpora:
            raise InputError("input: nothing to read, give --input=PATH or --corpus=folk")
        if self.output is None and not self.dry_run:
            raise InputError("output: --output=DIR is needed, the folder for the rows")

    @property
    def workers(self) -> int:
        """Number of processes that convert."""
        if self.num_workers is not None:
            return self.num_workers
        has_affinity = hasattr(os, "sched_getaffinity")
        return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1

    def identity(self) -> dict[str, Any]:
        """Return what decides the store, by the names of the flags."""
        pinned = None
        if self.split_file is not None:
            text = json.dumps(read_split_file(self.split_file), sort_keys=True)
            pinned = hashlib.sha256(text.encode()).hexdigest()
        return {
            "task": sorted(self.tasks),
            "meter": self.meter,
            "programs": self.programs,
            "engine": self.engine,
            "split": [int(share) if share == int(share) else share for share in self.split],
            "split_by": self.split_by,
            "split_seed": self.split_seed,
            "split_file": pinned,
        }

    def pinned(self) -> dict[str, int]:
        """Return for each file of `split_file`, by md5, the index of its split."""
        if self.split_file is None:
            return {}
        names = read_split_file(self.split_file)
        return {md5: SPLITS.index(name) for md5, name in names.items()}


def read_split_file(path: str) -> dict[str, str]:
    """Read a split.json, or one compressed as .gz: md5 to the name of a split.

    Raises:
      InputError: it cannot be read or holds something else.
    """
    try:
        content = pathlib.Path(path).read_bytes()
        value = json.loads(gzip.decompress(content) if path.endswith(".gz") else content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"split_file: {path} cannot be read: {reason}") from error
    except ValueError as error:
        raise InputError(f"split_file: {path} is not JSON: {error}") from error
    if not isinstance(value, dict) or not all(name in SPLITS for name in value.values()):
        raise InputError(
            f"split_file: {path} must map the md5 of files to {', '.join(SPLITS)}, as split.json "
            "does"
        )
    return value

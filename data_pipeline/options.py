"""Options of `prepare`: checks and flags."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from typing import Any

from absl import flags

from data_pipeline.extraction.engines import ENGINES, FAST
from data_pipeline.inputs.sources import CORPORA
from data_pipeline.reading.segments import METERS
from data_pipeline.selection.splits import SPLITS
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS, get_task

LOCAL, RAY = "local", "ray"
BY_SONG, BY_FILE = "song", "file"
_CHOICES = {
    "meter": METERS,
    "engine": ENGINES,
    "split_by": (BY_SONG, BY_FILE),
    "executor": (LOCAL, RAY),
}


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
      engine: "fast" or "note_seq"; both give the same rows.
      split: percentages of songs or files for train, validation and test.
      split_by: "song" or "file".
      split_seed: another one draws other splits.
      split_file: a split.json; its files stay in their splits.
      executor: "local" or "ray".
      ray_address: of a running cluster; None starts one here.
      cache_dir: where downloaded corpora are kept; None for the user's cache folder.
      dry_run: report and leave nothing behind.
    """

    inputs: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    tasks: tuple[str, ...]
    output: str | None = None
    num_workers: int = 1
    meter: str = "4/4"
    engine: str = FAST
    split: tuple[float, float, float] = (90, 5, 5)
    split_by: str = BY_SONG
    split_seed: int = 0
    split_file: str | None = None
    executor: str = LOCAL
    ray_address: str | None = None
    cache_dir: str | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        for task in self.tasks:
            get_task(task)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"task: name each once: {', '.join(TASKS)}, or all")
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                value = getattr(self, field)
                raise InputError(f"{field}: {value!r} is not one of {', '.join(choices)}")
        if self.num_workers < 1:
            raise InputError(f"workers: {self.num_workers} is out of range, it must be 1 or more")
        if min(self.split) < 0 or not math.isclose(sum(self.split), 100) or not self.split[0]:
            raise InputError(
                f"split: {self.split} must be percentages for train (above 0), validation and "
                "test that sum to 100, for example --split=90,5,5"
            )
        if self.output is None and not self.dry_run:
            raise InputError("output: say where to put the rows, --output=DIR")
        if self.ray_address is not None and self.executor != RAY:
            raise InputError("ray_address: only with --executor=ray")

    def identity(self) -> dict[str, Any]:
        """Return what decides the store, by the names of the flags."""
        pinned = None
        if self.split_file is not None:
            text = json.dumps(read_split_file(self.split_file), sort_keys=True)
            pinned = hashlib.sha256(text.encode()).hexdigest()
        return {
            "task": sorted(self.tasks),
            "meter": self.meter,
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
    """Read a split.json: md5 to the name of a split.

    Raises:
      InputError: it cannot be read or holds something else.
    """
    try:
        value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"split_file: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"split_file: {path} is no JSON: {error}") from error
    if not isinstance(value, dict) or not all(name in SPLITS for name in value.values()):
        raise InputError(
            f"split_file: {path} must map the md5 of files to {', '.join(SPLITS)}, as split.json"
        )
    return value


def define_flags() -> None:
    """Define the flags of `prepare`."""
    names = ", ".join(TASKS)
    flags.DEFINE_multi_string("input", [], "Folder, archive or file to read; may be repeated.")
    flags.DEFINE_multi_string("corpus", [], f"Named corpus to read: {', '.join(CORPORA)}.")
    flags.DEFINE_list("task", [], f"Tasks to make rows for, comma separated: {names}, or all.")
    flags.DEFINE_string(
        "output", None, "Output folder; with several tasks, one folder each inside it."
    )
    flags.DEFINE_integer("workers", None, "Worker processes. Default: the number of cores.")
    flags.DEFINE_string("meter", "4/4", "Meter to accept: 4/4, or any (ignore time signatures).")
    flags.DEFINE_string("engine", FAST, "MIDI reader: fast, or note_seq (slower, same rows).")
    flags.DEFINE_list("split", ["90", "5", "5"], "Percentages of train, validation and test.")
    flags.DEFINE_string(
        "split_by",
        BY_SONG,
        "Unit of the splits: song (files that share rows stay together) or file.",
    )
    flags.DEFINE_integer("split_seed", 0, "Random seed of the splits.")
    flags.DEFINE_string(
        "split_file", None, "A split.json whose assignment of files to splits is kept."
    )
    flags.DEFINE_string("executor", LOCAL, "Where to convert: local, or ray (extra `cluster`).")
    flags.DEFINE_string(
        "ray_address", None, "Address of a running Ray cluster. Default: start one."
    )
    flags.DEFINE_string("cache_dir", None, "Folder for downloaded corpora.")
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
    same = ("output", "meter", "engine", "split_by", "split_seed", "split_file", "executor")
    names = (*same, "ray_address", "cache_dir", "dry_run")
    fields: dict[str, Any] = {name: values[name].value for name in names}
    return Options(
        inputs=tuple(values.input),
        corpora=tuple(values.corpus),
        tasks=tuple(TASKS) if values.task == ["all"] else tuple(values.task),
        num_workers=(cores or 1) if values.workers is None else values.workers,
        split=(train, validation, test),
        **fields,
    )

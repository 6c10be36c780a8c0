"""The rows that `experiments.generate` starts from, and where each of them comes from."""

from __future__ import annotations

import os
import re

import numpy as np

from data_pipeline.extraction.excerpts import read_excerpt
from data_pipeline.render import files
from experiments.cli.run_data import open_checked
from experiments.generation.options import NUM_INPUTS, Options
from experiments.sound import generated
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.tasks import SoundTask, Task

_STORE_ROW = re.compile(rf"(?P<store>.+):(?P<split>{'|'.join(data.SPLITS)}):(?P<row>\d+)")


def read_inputs(options: Options, task: Task) -> tuple[np.ndarray, list[str], float | None]:
    """Read the rows to start from, with a line for each that says where it comes from.

    A piece to continue is read at its end, any other at its beginning.

    Returns:
      Rows [N, *task.row_shape] (--notes: one row of S steps), N descriptions, and the tempo of the
      first file in quarter notes per minute; None without files.

    Raises:
      InputError: a file has no such row, or the store is of another task or has too few rows. A
        file found in a folder is left out instead, and a line says why.
    """
    tempos: list[float] = []
    if options.notes is not None:
        rows, origins = _read_notes(options.notes, task)
    elif options.data_dir is not None:
        rows, origins = _draw(options, task)
    else:
        bars: tuple[int | None, ...] = options.start_bars or (None,)
        bars = bars * len(options.files) if len(bars) == 1 else bars
        found = []
        for name, bar in zip(options.files, bars, strict=True):
            try:
                found.append(_read(name, bar, options, task))
            except InputError as error:
                if name in options.inputs or options.mode in NUM_INPUTS:
                    raise
                print(f"left out: {str(error).removeprefix('input: ')}")
        if not found:
            places = ", ".join(options.inputs)
            raise InputError(f"input: no file of {places} has {task.name} rows")
        rows, origins = np.stack([row for row, _, _ in found]), [origin for _, origin, _ in found]
        tempos = [qpm for _, _, qpm in found if qpm is not None]
    for row, origin in zip(rows, origins, strict=True):
        if not task.is_sound and not len(files.decode(row, task)):
            raise InputError(f"input: {origin}: there are no notes")
    return rows, origins, tempos[0] if tempos else None


def _read_notes(text: str, task: Task) -> tuple[np.ndarray, list[str]]:
    """Read the row that --notes writes out."""
    try:
        row = files.text_to_row(text, task.name)
    except InputError as error:
        raise InputError(f"notes: {error}") from error
    return row[None], [f"notes: {len(row)} steps"]


def _read(
    name: str, bar: int | None, options: Options, task: Task
) -> tuple[np.ndarray, str, float | None]:
    """Read one input, a row of a store or an excerpt of a file, with its origin and tempo."""
    match = _STORE_ROW.fullmatch(name)
    if match is None or os.path.exists(name):
        if isinstance(task, SoundTask):
            return generated.read_file(name, task), f"{name}: the first {task.seconds} s", None
        at_end = options.mode == "continue"
        excerpt = read_excerpt(
            name,
            task.name,
            start_bar=bar,
            meter=options.meter,
            at_end=at_end,
            pad=True,
            track=options.track,
        )
        return excerpt.row, excerpt.describe(), excerpt.qpm
    if options.track is not None:
        raise InputError(f"track: {name} is a row of a store, which has no tracks to choose from")
    if bar is not None:
        raise InputError(f"start_bar: {name} is a row of a store, which has no bars to choose from")
    store = open_checked(match["store"], task, "input", options.allow_changed_data)
    rows = store.splits[match["split"]]
    number = int(match["row"])
    if number >= len(rows):
        there = f"rows 0 to {len(rows) - 1}" if len(rows) else "no rows"
        raise InputError(f"input: {name}: the split has {there}")
    return np.asarray(rows[number]), f"{match['store']}: {match['split']} row {number}", None


def _draw(options: Options, task: Task) -> tuple[np.ndarray, list[str]]:
    """Draw random rows of the store."""
    store = open_checked(str(options.data_dir), task, "data_dir", options.allow_changed_data)
    rows, num = store.splits[options.split], options.num_drawn
    if len(rows) < num:
        raise InputError(f"num: {num} rows requested, but split {options.split} has {len(rows)}")
    chosen = np.random.default_rng(options.seed).choice(len(rows), num, replace=False)
    return rows[chosen], [f"{options.split} row {row}" for row in chosen]

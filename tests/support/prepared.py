"""Music to prepare, and what came of it."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

from data_pipeline.options import Options
from data_pipeline.prepare import prepare
from data_pipeline.render.files import concatenate, midi_bytes
from musicvae_jax.tasks import FIRST_NOTE_ON, get_task

MANIFEST = "manifest.jsonl"


def tune(number: int, meter: str = "4/4") -> str:
    """Write a tune of eighth notes that differs from all others."""
    rng = np.random.default_rng(number)
    music = "|".join("".join(rng.choice(list("CDEFGABc"), 8)) for _ in range(4))
    return f"X:{number}\nM:{meter}\nL:1/8\nQ:1/4=120\nK:C\n{music}|\n"


def midi(task_name: str, number: int, num_rows: int = 2) -> bytes:
    """Write random rows of a task as a MIDI file."""
    task, rng = get_task(task_name), np.random.default_rng(number)
    rows = np.zeros((num_rows, task.num_steps, len(task.tracks)), int)
    for column, track in enumerate(task.tracks):
        low = 1 if track.kind == "drums" else FIRST_NOTE_ON + 20
        rows[:, ::4, column] = rng.integers(low, 60, rows[:, ::4, column].shape)
    rows = rows.reshape(num_rows, *task.row_shape)
    return midi_bytes(concatenate(rows, task_name, rest_bars=0))


def run(collection: pathlib.Path, output: pathlib.Path | None, **fields: Any) -> str:
    """Prepare the collection with a few options changed."""
    given: dict[str, Any] = {
        "inputs": (str(collection),),
        "tasks": ("mel_2bar",),
        "split": (60, 20, 20),
        "num_workers": 1,
    }
    given["output"] = None if output is None else str(output)
    return prepare(Options(**{**given, **fields}))


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """Return the bytes of all files that must not depend on how they were made."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != "run.json"}


def manifest(folder: pathlib.Path) -> dict[str, dict]:
    """Return the manifest's lines by name."""
    lines = [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]
    assert len({line["name"] for line in lines}) == len(lines)
    return {line["name"]: line for line in lines}

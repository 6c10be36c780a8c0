"""Small token stores with music-like regularity, in the format that data_pipeline writes."""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np

from musicvae_jax.tasks import Task, get_task


def write_store(
    folder: pathlib.Path, task_name: str, counts: dict[str, int] | None = None, seed: int = 0
) -> pathlib.Path:
    """Write a store of `counts` rows per split (64, 24, 24) and return its folder."""
    task = get_task(task_name)
    counts = counts or {"train": 64, "validation": 24, "test": 24}
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for number, (split, count) in enumerate(counts.items()):
        generator = np.random.default_rng([seed, number])
        np.save(folder / f"{split}.npy", random_rows(generator, task, count))
        content = (folder / f"{split}.npy").read_bytes()
        hashes[f"{split}.npy"] = hashlib.sha256(content).hexdigest()
    meta = {
        "format": "musicvae-tokens-1",
        "task": task.name,
        "row_shape": list(task.row_shape),
        "counts": counts,
        "sha256": hashes,
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def random_rows(generator: np.random.Generator, task: Task, count: int) -> np.ndarray:
    """Draw rows: events on every fourth step, drawn from a few values, else "no event"."""
    columns = []
    for track in task.tracks:
        values = [1, 2, 5, 64] if track.kind == "drums" else [1, 30, 34, 37]
        column = np.zeros((count, task.num_steps), task.token_dtype)
        column[:, ::4] = generator.choice(values, (count, task.num_steps // 4))
        columns.append(column)
    return np.stack(columns, axis=-1).reshape(count, *task.row_shape)

"""Compare runs: how their settings differ, and their scores side by side.

python -m experiments.compare runs/a runs/b runs/c
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from data_pipeline import cli
from experiments.cli.progress import METRICS
from experiments.cli.run_record import read_starts
from experiments.sweep.points import SCORES
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.storage import run_folder

# Figures of an evaluation file: label -> path in it.
_SCORES = {
    "sampled accuracy": ("sampled", "accuracy", "overall"),
    "teacher forced accuracy": ("teacher_forced", "accuracy", "overall"),
    "greedy accuracy": ("greedy", "accuracy", "overall"),
    "cross-entropy, nats per step": ("cross_entropy", "overall"),
    "KL, bits": ("kl_bits",),
    "ELBO, nats": ("elbo_nats",),
    "active units": ("active_units",),
    "bars not scored in greedy and sampled": ("seed_bars",),
}
_RECORDED = ("loss", "reconstruction_nats", "kl_bits", "accuracy")
_WIDEST = 36

Table = dict[str, list[str]]


def compare(folders: Sequence[str]) -> str:
    """Return what differs and the figures as text, with a column for each run.

    Raises:
      InputError: fewer than two folders, or one that is no run folder.
    """
    if len(folders) < 2:
        raise InputError("compare: name two run folders or more")
    paths = [pathlib.Path(folder) for folder in folders]
    configs = [run_folder.read_config(path).flat() for path in paths]
    facts = [_facts(path) for path in paths]
    figures = [_figures(path) for path in paths]
    names = _names([path.resolve() for path in paths])
    parts = []
    for title, found, only_differing in (
        ("configuration, where it differs", configs, True),
        ("circumstances, where they differ", facts, True),
        ("figures", figures, False),
    ):
        table = _rows(found, only_differing)
        parts.append(_table(title, names, table) if table else f"{title}: nothing\n")
    return "\n".join(parts)


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Return absolute paths without the part that their parents share."""
    common = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def _rows(columns: Sequence[dict[str, Any]], only_differing: bool) -> Table:
    """Combine dictionaries into rows; a missing value is "-"."""
    names = dict.fromkeys(name for column in columns for name in column)
    table = {name: [_shown(column.get(name)) for column in columns] for name in names}
    return {k: v for k, v in table.items() if not only_differing or len(set(v)) > 1}


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _table(title: str, names: Sequence[str], table: Table) -> str:
    """Format a table; cells that are too long are cut in the middle."""
    rows = {title: list(names)} | table
    cells = {label: [_cut(cell) for cell in row] for label, row in rows.items()}
    first = max(map(len, cells))
    widths = [max(len(row[n]) for row in cells.values()) for n in range(len(names))]
    lines = []
    for label, row in cells.items():
        shown = "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append(f"{label:{first}}  {shown}")
    return "\n".join(lines) + "\n"


def _cut(text: str) -> str:
    half = (_WIDEST - 1) // 2
    return text if len(text) <= _WIDEST else f"{text[:half]}…{text[-half:]}"


def _facts(folder: pathlib.Path) -> dict[str, Any]:
    """Return the facts of a run's last start, and the number of its starts."""
    known = run_folder.read_data(folder)
    found: dict[str, Any] = {"data": known["path"], "data fingerprint": known["fingerprint"]}
    starts = read_starts(folder)
    if not starts:
        return found
    last = starts[-1]
    git = last["git"] or {}
    found |= {"starts": len(starts), "python": last["python"], **last["packages"]}
    found |= {"commit": git.get("commit"), "files changed since": git.get("changed")}
    found |= {"devices": last["machine"]["devices"], "host": last["machine"]["host"]}
    # A resumed run may have been started without its note.
    notes = [start["note"] for start in starts if start.get("note")]
    note = notes[-1] if notes else None
    return found | {"note": note, "begun from": last.get("init_from")}


def _figures(folder: pathlib.Path) -> dict[str, Any]:
    """Return the best validation and every evaluation of a run."""
    found: dict[str, Any] = {}
    records = []
    if (folder / METRICS).is_file():
        records = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    validations = [record for record in records if record["split"] == "validation"]
    if records:
        found["steps"] = records[-1]["step"]
    if validations:
        best = min(validations, key=lambda r: r["loss"] if r["loss"] is not None else float("inf"))
        found["best validation at step"] = best["step"]
        found |= {f"validation {name}, best": best.get(name) for name in _RECORDED}
    for split in data.SPLITS:
        path = folder / f"evaluation_{split}.json"
        if path.is_file():
            scores = json.loads(path.read_text())
            found |= {f"{split}: {label}": _at(scores, at) for label, at in _SCORES.items()}
    path = folder / SCORES
    if path.is_file():  # a point of a sweep
        scores = json.loads(path.read_text())
        names = {label: "_".join(at).removesuffix("_overall") for label, at in _SCORES.items()}
        found |= {
            f"{scores['split']}, sweep: {label}": scores[name]
            for label, name in names.items()
            if name in scores
        }
    return found


def _at(values: Any, path: Sequence[str]) -> Any:
    for name in path:
        values = None if values is None else values.get(name)
    return values


def main(argv: Sequence[str]) -> None:
    """Print the comparison."""
    print(compare(argv[1:]), end="")


if __name__ == "__main__":
    cli.run(main, takes_arguments=True)

"""Compare runs: how their settings differ, and their scores side by side.

python -m experiments.compare runs/a runs/b runs/c --output=comparison

The runs may be of any architectures and tasks. --format=markdown and --format=csv print the same
tables for a document or a spreadsheet. --output writes all three, comparison.txt, .md and .csv, and
a picture of the validation scores over the steps, comparison.png.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.reporting import charts
from experiments.cli.outputs import check_writable
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
    "signal-to-noise ratio, dB": ("snr_db",),
    "log-spectral distance, dB": ("log_spectral_distance_db",),
    "bars not scored in greedy and sampled": ("seed_bars",),
}
_RECORDED = ("loss", "reconstruction_nats", "kl_bits", "accuracy")
# Tables fit this many columns; a run takes at least `_NARROWEST` of them, at most `_WIDEST`.
_COLUMNS, _NARROWEST, _WIDEST = 100, 10, 36

Table = dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Options:
    """How to show the comparison."""

    format: str = option(
        "text", choices=("text", "markdown", "csv"), is_enum=True, help="Format to print."
    )
    output: str | None = option(
        None, help="Folder for the tables in all formats and the picture. Default: none."
    )


class Comparison(NamedTuple):
    """Tables of several runs.

    Attributes:
      names: of the runs.
      tables: title to rows, each a label and a value for each run; None where it has none.
    """

    names: list[str]
    tables: dict[str, dict[str, list[Any]]]


def compare(folders: Sequence[str]) -> str:
    """Return what differs and the figures as text, with a column for each run.

    Raises:
      InputError: see `read`.
    """
    return as_text(read(folders))


def read(folders: Sequence[str]) -> Comparison:
    """Read what differs between runs, and their figures.

    Raises:
      InputError: fewer than two folders, or one that is no run folder.
    """
    if len(folders) < 2:
        raise InputError("compare: give two or more run folders")
    paths = [pathlib.Path(folder) for folder in folders]
    configs = [run_folder.read_config(path).flat() for path in paths]
    facts = [_facts(path) for path in paths]
    figures = [_figures(path) for path in paths]
    names = _names([path.resolve() for path in paths])
    tables = {
        "configuration, where it differs": _rows(configs, True),
        "circumstances, where they differ": _rows(facts, True),
        "figures": _rows(figures, False),
    }
    return Comparison(names, tables)


def as_text(found: Comparison) -> str:
    """Write the tables for a terminal."""
    parts = []
    for title, rows in found.tables.items():
        table = {name: list(map(_shown, values)) for name, values in rows.items()}
        parts.append(_table(title, found.names, table) if table else f"{title}: nothing\n")
    return "\n".join(parts)


def as_markdown(found: Comparison) -> str:
    """Write the tables for a document."""
    parts = []
    for title, rows in found.tables.items():
        lines = [[title, *found.names], ["---", *["---:"] * len(found.names)]]
        lines += [[name, *map(_shown, values)] for name, values in rows.items()]
        cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
        table = "".join(f"| {' | '.join(line)} |\n" for line in cells)
        parts.append(table if rows else f"{title}: nothing\n")
    return "\n".join(parts)


def as_csv(found: Comparison) -> str:
    """Write the tables as one of numbers in full precision; empty where a run has no value."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["table", "name", *found.names])
    for title, rows in found.tables.items():
        for name, values in rows.items():
            cells = (_shown(v) if isinstance(v, list | tuple) else v for v in values)
            lines.writerow([title.split(",")[0], name, *cells])
    return text.getvalue()


_FORMATS = {"text": as_text, "markdown": as_markdown, "csv": as_csv}


def write(folder: pathlib.Path, found: Comparison, runs: Sequence[str]) -> list[pathlib.Path]:
    """Write the tables in all formats, and the picture if any run has records; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, text in (("txt", as_text), ("md", as_markdown), ("csv", as_csv)):
        written.append(folder / f"comparison.{ending}")
        run_folder.write_text(written[-1], text(found))
    panels = _panels(found.names, [_records(pathlib.Path(run)) for run in runs])
    if panels:
        written.append(folder / "comparison.png")
        charts.curves_png(written[-1], *panels)
    return written


def _panels(names: Sequence[str], records: Sequence[list[dict[str, Any]]]) -> list[charts.Panel]:
    """Return a panel for loss and accuracy, with a line for each run that has validations."""
    panels = []
    for score in ("loss", "accuracy"):
        lines = {}
        for name, found in zip(names, records, strict=True):
            chosen = [r for r in found if r["split"] == "validation" and score in r]
            values = [math.nan if r[score] is None else r[score] for r in chosen]
            if chosen:
                lines[name] = charts.Line([r["step"] for r in chosen], values)
        if lines:
            panels.append(charts.Panel(lines, "step", f"validation {score}"))
    return panels


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Return absolute paths without the part that their parents share."""
    common = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def _rows(columns: Sequence[dict[str, Any]], only_differing: bool) -> dict[str, list[Any]]:
    """Combine dictionaries into rows; a missing value is None."""
    names = dict.fromkeys(name for column in columns for name in column)
    table = {name: [column.get(name) for column in columns] for name in names}
    return {k: v for k, v in table.items() if not only_differing or len(set(map(_shown, v))) > 1}


def _shown(value: Any) -> str:
    """Write a value for a reader; a missing one is "-"."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _table(title: str, names: Sequence[str], table: Table) -> str:
    """Format a table; long cells are cut in the middle, many runs continue in a block below."""
    rows = {title: list(names)} | table
    first = max(map(len, rows))
    room = _COLUMNS - first
    at_once = max(1, room // (_NARROWEST + 2))
    widest = min(_WIDEST, room // min(at_once, len(names)) - 2)
    blocks = []
    for start in range(0, len(names), at_once):
        cells = {k: [_cut(cell, widest) for cell in row[start : start + at_once]]
                 for k, row in rows.items()}  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*cells.values(), strict=True)]
        lines = []
        for label, row in cells.items():
            shown = "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
            lines.append(f"{label:{first}}  {shown}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _cut(text: str, widest: int) -> str:
    """Shorten a text to `widest` letters: its beginning, an ellipsis, its end."""
    half = (widest - 1) // 2
    return text if len(text) <= widest else f"{text[:half]}…{text[-half:]}"


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
    records = _records(folder)
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
            # Those of other kinds of models are not there, or null.
            values = {f"{split}: {label}": _at(scores, at) for label, at in _SCORES.items()}
            found |= {name: value for name, value in values.items() if value is not None}
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


def _records(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the records of a run's training."""
    path = folder / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _at(values: Any, path: Sequence[str]) -> Any:
    for name in path:
        # Models of sound have numbers where others have one for each track.
        values = values.get(name) if isinstance(values, dict) else None
    return values


def main(options: Options, run_dirs: Sequence[str]) -> None:
    """Print the comparison, and write it if that is asked for."""
    folder = check_writable(options.output, "output") if options.output else None
    found = read(run_dirs)
    print(_FORMATS[options.format](found), end="")
    if folder:
        print("written:", *write(folder, found, run_dirs), file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, Options, takes_arguments=True)

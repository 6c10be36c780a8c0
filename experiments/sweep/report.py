"""Results of a sweep: results.csv, results.json, a ranked table, report.html."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.reporting import charts, html_pages
from data_pipeline.reporting.charts import Line, Panel
from experiments.cli.json_files import write_json
from experiments.cli.progress import METRICS
from experiments.sweep.axes import Axis, shown
from experiments.sweep.measures import Measures, Scoring, measures_of
from experiments.sweep.points import PointRun, ended
from musicvae_jax.storage import run_folder

_TEMPLATE = pathlib.Path(__file__).with_name("report.html")
_MOST_PANELS = 6

Row = dict[str, Any]


def results(tasks: Sequence[PointRun], scores: dict[str, dict[str, Any]]) -> list[Row]:
    """Return a row for each point, the best first, points without scores last."""
    measures, rows = measures_of(tasks[0].config), []
    for task in tasks:
        end = ended(task) or {"end": "not finished", "step": 0}
        found = scores.get(task.point.name, {})
        row: Row = {"point": task.point.name}
        row |= {name: shown(value) for name, value in task.point.values.items()}
        row |= {"end": end["end"], "steps": end["step"], "best_step": found.get("step")}
        for name in (*measures.columns, *measures.more):
            row.setdefault(name, found.get(name))  # z_size may be an axis
        rows.append(row | {"run_dir": str(task.folder)})

    def order(row: Row) -> tuple[bool, float]:
        score = row[measures.rank]
        return (score is None, -score if score is not None else 0.0)

    rows.sort(key=order)
    return [{"rank": n} | row for n, row in enumerate(rows, start=1)]


def write(folder: pathlib.Path, rows: Sequence[Row], about: dict[str, Any], page_text: str) -> None:
    """Write the three files, each atomically."""
    text = io.StringIO()
    lines = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    run_folder.write_text(folder / "results.csv", text.getvalue())
    write_json(folder / "results.json", about | {"points": list(rows)})
    run_folder.write_text(folder / "report.html", page_text)


def table(rows: Sequence[Row], scoring: Scoring, measures: Measures) -> str:
    """Write the ranked table as text."""
    cells = [[*measures.columns.values()], *(_cells(row, measures) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    heads, *figures = [
        "".join(f"  {c:>{w}}" for c, w in zip(r, widths, strict=True)) for r in cells
    ]
    width = max(len(row["point"]) for row in rows)
    lines = [f"{'rank':>4}  {'point':{width}}{heads}"]
    for row, text in zip(rows, figures, strict=True):
        mark = "" if row["end"] == "finished" else f"  {row['end']}"
        lines.append(f"{row['rank']:>4}  {row['point']:{width}}{text}{mark}")
    return "\n".join([*lines, "", measures.how.format(**scoring._asdict())])


def _cells(row: Row, measures: Measures) -> list[str]:
    """Format the figures of a row."""
    cells = []
    for name in measures.columns:
        value = row[name]
        if value is None:
            cells.append("-")
        elif name == "sampled_accuracy":
            cells.append(f"{value:.4f} ± {row['sampled_error']:.4f}")
        elif name == "active_units":
            cells.append(f"{value} of {row['z_size']}")
        else:
            cells.append(f"{value:.4f}" if "accuracy" in name else f"{value:.2f}")
    return cells


def report(
    rows: Sequence[Row], axes: Sequence[Axis], tasks: Sequence[PointRun], about: dict[str, Any]
) -> str:
    """Write the page: table, heat maps, rate and distortion, learning curves."""
    measures = measures_of(tasks[0].config)
    down, across = _map_axes(axes)
    return html_pages.fill(
        _TEMPLATE,
        title="Sweep",
        about=about | {"scored": measures.how.format(**about)},
        terms=measures.terms,
        heads=["point", "rank", *measures.columns.values(), "end", "steps"],
        rows=[
            [row["point"], row["rank"], *_cells(row, measures), row["end"], f"{row['steps']:,}"]
            for row in rows
        ],
        warnings=_warnings(rows, tasks, measures.rank),
        map_names=f"{down.name} and {across.name}" if down.name else across.name,
        maps=_maps(rows, axes, measures),
        num_hidden_maps=max(0, math.prod(len(a.values) for a in _others(axes)) - _MOST_PANELS),
        rate_distortion=_rate_distortion(rows, axes),
        curves=_curves(tasks),
    )


def _warnings(rows: Sequence[Row], tasks: Sequence[PointRun], rank: str) -> list[str]:
    """Say of each point without scores how it ended, and why."""
    causes = {task.point.name: (ended(task) or {}).get("cause") for task in tasks}
    found = []
    for row in rows:
        if row[rank] is None:
            cause = causes[row["point"]]
            found.append(f"{row['point']}: {row['end']}" + (f"; {cause}" if cause else ""))
    return found


def _map_axes(axes: Sequence[Axis]) -> tuple[Axis, Axis]:
    """Choose the axes of the heat maps: beta and free bits if swept, else the first two."""
    named = {axis.name: axis for axis in axes}
    first = [named[name] for name in ("beta", "free_bits") if name in named]
    order = first + [axis for axis in axes if axis not in first]
    return (order[0], order[1]) if len(order) > 1 else (Axis("", ("",)), order[0])


def _others(axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes that heat maps are not over."""
    return [axis for axis in axes if axis not in _map_axes(axes)]


def _maps(
    rows: Sequence[Row], axes: Sequence[Axis], measures: Measures
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Draw heat maps of all figures for each value of the other axes: (value, charts)."""
    down, across = _map_axes(axes)
    others = _others(axes)
    found = []
    for fixed in itertools.islice(itertools.product(*(a.values for a in others)), _MOST_PANELS):
        given = {axis.name: shown(v) for axis, v in zip(others, fixed, strict=True)}
        chosen = [row for row in rows if given.items() <= row.items()]
        charts_drawn = []
        for figure in measures.maps:
            name = measures.columns[figure]
            charts_drawn.append((_map(chosen, down, across, figure, name), name))
        found.append((", ".join(f"{name}={value}" for name, value in given.items()), charts_drawn))
    return found


def _map(rows: Sequence[Row], down: Axis, across: Axis, figure: str, title: str) -> str:
    """Draw the heat map of one figure."""
    names = [shown(v) for v in down.values], [shown(v) for v in across.values]
    values = np.full((len(names[0]), len(names[1])), math.nan)
    for row in rows:
        r = names[0].index(row[down.name]) if down.name else 0
        if row[figure] is not None:
            values[r, names[1].index(row[across.name])] = row[figure]
    return charts.heat_map(values, *names, title, (down.name, across.name))


def _rate_distortion(rows: Sequence[Row], axes: Sequence[Axis]) -> str:
    """Draw distortion over rate, joining points that differ only in beta; empty without points."""
    groups: dict[str, dict[str, tuple[float, float]]] = {}
    orders = {a.name: [shown(value) for value in a.values] for a in axes}
    for row in sorted(rows, key=lambda r: [order.index(r[n]) for n, order in orders.items()][::-1]):
        if row["kl_bits"] is None:
            continue
        others = [f"{a.name}={row[a.name]}" for a in axes if a.name != "beta"] or ["all"]
        name = f"beta={row['beta']}" if "beta" in row else row["point"]
        place = (row["kl_bits"], row["distortion_nats"])
        groups.setdefault(", ".join(others), {})[name] = place
    names = ("rate: KL, bits per example", "distortion: cross-entropy, nats per example")
    return charts.scatter(groups, names) if groups else ""


def _curves(tasks: Sequence[PointRun]) -> list[str]:
    """Draw the validations of each point, a chart for each figure."""
    records = {task.point.name: _records(task.folder / METRICS) for task in tasks}
    found = []
    for split, figure, name in (
        ("validation", "loss", "validation loss, nats per example"),
        ("validation", "accuracy", "validation accuracy, teacher forced"),
        ("validation", "snr_db", "validation signal-to-noise ratio, dB"),
        ("validation", "kl_bits", "validation KL, bits per example"),
        ("train", "loss_reference", "training loss, nats per example"),
    ):
        lines = {}
        for point, all_records in records.items():
            # Forecasters have no KL, models of sound no accuracy.
            of_split = [r for r in all_records if r["split"] == split and figure in r]
            steps, values = ([r[key] for r in of_split] for key in ("step", figure))
            # None, which JSON has in place of NaN, becomes NaN again.
            lines[point] = Line(steps, np.array(values, np.float64))
        if any(len(line.x) for line in lines.values()):
            found.append(charts.curves(name, Panel(lines, "step", name)))
    return found


def _records(path: pathlib.Path) -> list[Row]:
    """Read a run's records."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]

"""Tables and pictures of `hierarchy.py`, from its results file alone.

A series is a model, or a model with the reference's start; its seeds are averaged. Where there are
several seeds, the lowest and the highest value follow in parentheses.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data_pipeline.reporting import charts
from experiments.benchmarks.support.budgets import BUDGETS, MINUTES
from experiments.benchmarks.support.tables import as_markdown, as_text
from musicvae_jax.analysis.sets import REAL
from musicvae_jax.storage import run_folder

Entry = dict[str, Any]
Groups = dict[tuple[str, str], list[Entry]]  # task and series to the trainings of all seeds

SHOWN_BARS = (1, 2, 4, 8, 12, 16)
PRIOR_ROWS = 4000  # training rows that a prior is fitted to, at most
EDGE = 4  # bars at the start and at the end that are compared
# As recalled from the paper and as printed in a course project (docs/systems.md).
EARLIER = (
    "sampled accuracy, flat and hierarchical: in the paper of 2018, as recalled, 0.620 and 0.812",
    "for melodies, 0.549 and 0.879 for drums; in a course project of 2020, 0.392 and 0.893 (drums)",
)


def write(found: dict[str, Any], folder: pathlib.Path | None) -> str:
    """Return all tables as text; write text, Markdown and pictures to a folder, if there is one."""
    groups = by_series(found["trainings"])
    about = [
        *sorted({entry["machine"] for entry in found["trainings"]}),
        *(f"{task}: {line}" for task, line in settings(found).items()),
        "minutes are of processor time on all cores;",
        "sampled: z from the posterior, temperature 1, 2 draws;",
        f"overlap: samples of priors fitted to up to {PRIOR_ROWS:,} training rows",
    ]
    tables = [paper_table(groups), by_bar_table(groups), overlap_table(groups)]
    tables.append(training_table(groups))
    names = [2, 3, 3, 4]  # columns of names
    pairs = list(zip(tables, names, strict=True))
    texts = [as_text(table, count) for table, count in pairs]
    text = "\n\n".join(["\n".join(about), *texts, "\n".join(EARLIER)]) + "\n"
    if folder is not None:
        run_folder.write_text(folder / "hierarchy.txt", text)
        marked = "\n\n".join(as_markdown(table, count) for table, count in pairs)
        run_folder.write_text(folder / "hierarchy.md", marked + "\n")
        run_folder.write_text(folder / "hierarchy_by_bar.svg", by_bar_picture(groups))
        run_folder.write_text(folder / "hierarchy_curves.svg", curves_picture(groups))
    return text


def settings(found: dict[str, Any]) -> dict[str, str]:
    """Describe what all trainings of each task have in common."""
    return {
        task: f"{one['units']} units, batch {one['batch_size']}, {one['optimiser']}, learning rate "
        f"{one['learning_rate']:g}, beta {one['beta']:g}, free bits {one['free_bits']:g}, "
        f"{one['minutes']:g} minutes, {one['examples']:,} examples, up to {one['rows']:,} test rows"
        for task, one in found["settings"].items()
    }


def by_series(trainings: Iterable[Entry]) -> Groups:
    """Group trainings by task and series, in the order in which these first come."""
    groups: Groups = {}
    for entry in trainings:
        suffix = "" if entry["init"] == "default" else f", {entry['init']} start"
        groups.setdefault((entry["task"], entry["model"] + suffix), []).append(entry)
    return groups


def values_of(entries: Sequence[Entry], budget: str, name: str) -> list[float]:
    """Return a score of each seed."""
    return [entry["points"][budget][name] for entry in entries]


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Write the mean of values, and their range if there are several; "-" for none."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{np.mean(known):.{digits}f}"
    if len(known) == 1:
        return mean
    return f"{mean} ({min(known):.{digits}f} to {max(known):.{digits}f})"


def _tasks(groups: Groups) -> list[str]:
    return list(dict.fromkeys(task for task, _ in groups))


def _series(groups: Groups) -> list[str]:
    return list(dict.fromkeys(series for _, series in groups))


def _first(groups: Groups, task: str) -> Entry:
    """Return the first training of a task; baselines are those of its test rows."""
    return next(entries[0] for (of, _), entries in groups.items() if of == task)


def paper_table(groups: Groups) -> list[list[str]]:
    """Return the paper's columns: a line for each task and budget, heads first."""
    series = _series(groups)
    kinds = {"teacher forced": "teacher_forced", "sampled": "sampled"}
    heads = [f"{kind}: {name}" for kind in kinds for name in series]
    lines = [["task", "budget", *heads, "no event", "unigram"]]
    for task in _tasks(groups):
        for budget in BUDGETS:
            cells = [
                spread(values_of(groups.get((task, name), []), budget, score))
                for score in kinds.values()
                for name in series
            ]
            first = [_first(groups, task)]
            cells += [spread(values_of(first, budget, n)) for n in ("no_event", "unigram")]
            lines.append([task, f"equal {budget}", *cells])
    return lines


def by_bar_table(groups: Groups) -> list[list[str]]:
    """Return the sampled accuracy of some bars, and the change from the first to the last four."""
    heads = [f"bar {bar}" for bar in SHOWN_BARS]
    lines = [["task", "sampled", "budget", *heads, f"last {EDGE} - first {EDGE}"]]

    def add(task: str, name: str, budget: str, rows: list[list[float]]) -> None:
        changes = [float(np.mean(row[-EDGE:]) - np.mean(row[:EDGE])) for row in rows]
        shown = [f"{np.mean([row[bar - 1] for row in rows]):.3f}" for bar in SHOWN_BARS]
        lines.append([task, name, budget, *shown, spread(changes)])

    for (task, series), entries in groups.items():
        for budget in BUDGETS:
            rows = [entry["points"][budget]["sampled_by_bar"] for entry in entries]
            add(task, series, f"equal {budget}", rows)
    for task in _tasks(groups):
        first = _first(groups, task)["points"][MINUTES]
        add(task, "no event", "", [first["no_event_by_bar"]])
    return lines


def overlap_table(groups: Groups) -> list[list[str]]:
    """Return the overlap of samples with held-out rows by family; last, that of held-out rows."""
    everything = [entry for entries in groups.values() for entry in entries]
    found = [entry["points"][MINUTES]["overlap"] for entry in everything]
    families = list(dict.fromkeys(family for overlaps in found for family in overlaps))
    lines = [["task", "overlap", "budget", *families]]

    def add(task: str, name: str, budget: str, overlaps: list[Entry], part: str) -> None:
        cells = [[one[f][part] for one in overlaps if f in one] for f in families]
        lines.append([task, name, budget, *map(spread, cells)])

    for (task, series), entries in groups.items():
        for budget in BUDGETS:
            overlaps = [entry["points"][budget]["overlap"] for entry in entries]
            add(task, series, f"equal {budget}", overlaps, "samples")
    for task in _tasks(groups):
        first = _first(groups, task)["points"][MINUTES]
        add(task, "held-out rows", "", [first["overlap"]], REAL)
    return lines


def training_table(groups: Groups) -> list[list[str]]:
    """Return what each training used and reached: a line for each budget."""
    heads = ["parameters", "decoder units", "examples", "minutes", "validation loss", "ELBO nats"]
    heads += ["KL bits", "teacher forced", "greedy", "sampled", "steps zeroed"]
    lines = [["task", "model", "seed", "budget", *heads]]
    for (task, series), entries in groups.items():
        for entry in entries:
            for budget in BUDGETS:
                point = entry["points"][budget]
                loss = last_loss(entry["curve"], point["step"])
                lines.append([
                    task,
                    series,
                    str(entry["seed"]),
                    f"equal {budget}",
                    f"{entry['parameters']:,}",
                    str(entry["decoder_units"]),
                    f"{point['examples']:,}",
                    f"{point['seconds'] / 60:.1f}",
                    "-" if loss is None else f"{loss:.1f}",
                    f"{point['elbo_nats']:.1f}",
                    f"{point['kl_bits']:.1f}",
                    *(f"{point[name]:.3f}" for name in ("teacher_forced", "greedy", "sampled")),
                    f"{entry['zeroed']:.0f}",
                ])  # fmt: skip
    return lines


def series_table(groups: Groups) -> list[list[str]]:
    """Return what each series reached after equal minutes: a line for each, means over seeds."""
    digits = {"elbo_nats": 1, "kl_bits": 1, "teacher_forced": 3, "greedy": 3, "sampled": 3}
    heads = ["ELBO nats", "KL bits", "teacher forced", "greedy", "sampled"]
    lines = [["task", "model", "seeds", "validation loss", *heads]]
    for (task, series), entries in groups.items():
        losses = [last_loss(e["curve"], e["points"][MINUTES]["step"]) for e in entries]
        scores = [spread(values_of(entries, MINUTES, name), n) for name, n in digits.items()]
        lines.append([task, series, str(len(entries)), spread(losses, 1), *scores])
    return lines


def last_loss(curve: Sequence[Sequence[float]], step: int) -> float | None:
    """Return the loss of the last validation up to a step; None before the first."""
    losses = [loss for at, loss in curve if at <= step]
    return losses[-1] if losses else None


def by_bar_picture(groups: Groups) -> str:
    """Draw the sampled accuracy by bar after equal minutes, a panel for each task, as SVG."""
    panels = []
    for task in _tasks(groups):
        lines = {}
        for (of, series), entries in groups.items():
            if of != task:
                continue
            rows = np.array([e["points"][MINUTES]["sampled_by_bar"] for e in entries])
            bars = np.arange(1, rows.shape[1] + 1)
            lines[series] = charts.Line(bars, rows.mean(axis=0), np.ptp(rows, axis=0) / 2)
            lines["no event"] = charts.Line(bars, entries[0]["points"][MINUTES]["no_event_by_bar"])
        lines["no event"] = lines.pop("no event")  # last in the legend
        panels.append(charts.Panel(lines, "bar", f"sampled accuracy, {task}"))
    return charts.curves("Sampled accuracy by bar after equal minutes", *panels, width=400)


def curves_picture(groups: Groups) -> str:
    """Draw validation loss over minutes, a panel for each task, as SVG."""
    panels = []
    for task in _tasks(groups):
        lines = {}
        for (of, series), entries in groups.items():
            for entry in entries if of == task else []:
                name = series if len(entries) == 1 else f"{series}, seed {entry['seed']}"
                last = max((entry["points"][b] for b in BUDGETS), key=lambda point: point["step"])
                each = last["seconds"] / 60 / last["step"]
                steps, losses = zip(*entry["curve"], strict=True) if entry["curve"] else ((), ())
                lines[name] = charts.Line(np.array(steps) * each, np.array(losses))
        panels.append(charts.Panel(lines, "minutes", f"validation loss, {task}"))
    return charts.curves("Validation loss over minutes of training", *panels, width=400)

"""Sets of rows (samples, reconstructions, anything) measured and compared with real rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from musicvae_jax.analysis import comparison, distances
from musicvae_jax.analysis.comparison import Compared, Drawn, Halves
from musicvae_jax.analysis.families import FAMILIES, measure_rows
from musicvae_jax.analysis.measures import Measure
from musicvae_jax.analysis.originality import KnownRows, Nearest
from musicvae_jax.tasks import Task

REAL = "real"


class Rows(NamedTuple):
    """A set of rows.

    Attributes:
      tokens: [N, T] or [N, T, K].
      stored: place of each row in its store, int64 [N]; None for rows independent of each other.
      is_paired: row i was made from real row i.
    """

    tokens: np.ndarray
    stored: np.ndarray | None = None
    is_paired: bool = False


class Finding(NamedTuple):
    """Result of one measure.

    Attributes:
      name: what is measured.
      family: which family it belongs to.
      track: on which track, or "all".
      labels: G names of its bins.
      shares: of each set, float64 [G].
      means: of each set, over its rows; empty for measures without a value per row.
      compared: distances from the real rows.
    """

    name: str
    family: str
    track: str
    labels: tuple[str, ...]
    shares: dict[str, np.ndarray]
    means: dict[str, float]
    compared: Compared


class Analysis(NamedTuple):
    """Result of comparing sets of rows with real rows.

    Attributes:
      rows_per_side: m, rows on each side of every distance.
      findings: of every measure.
      families: mean overlap over the measures of each family.
      halves: the draws of real rows.
      weights: of each other set, the rows drawn, float32 [R, N].
      nearest: of each set, the nearest training rows; empty without training rows.
    """

    rows_per_side: int
    findings: list[Finding]
    families: dict[str, Compared]
    halves: Halves
    weights: dict[str, np.ndarray]
    nearest: dict[str, Nearest]


def analyse(
    real: Rows,
    others: Mapping[str, Rows],
    known: KnownRows | None,
    task: Task,
    seed: int = 0,
    draws: int = comparison.DRAWS,
) -> Analysis:
    """Measure sets of rows and compare them with real rows.

    Args:
      real: held-out rows, with their places in the store.
      others: sets to compare with them.
      known: training rows; None leaves out originality.
      task: what tokens mean.
      seed: of the draws.
      draws: R.

    Raises:
      InputError: a set is too small to say anything.
    """
    everything = {REAL: real, **others}
    unpaired = [len(rows.tokens) for rows in everything.values() if not rows.is_paired]
    size = comparison.rows_per_side(*unpaired)
    halves = _draw(real, size, [seed, 0], draws)
    weights = {
        name: halves.second if rows.is_paired else _draw(rows, size, [seed, i], draws).first
        for i, (name, rows) in enumerate(others.items(), start=1)
    }
    measured, nearest = _measure(everything, known, task)
    findings, by_family = [], {family: list[Drawn]() for family in FAMILIES}
    for i, measure in enumerate(measured[REAL]):
        sets = {name: found[i] for name, found in measured.items()}
        drawn = comparison.draw_distances(
            comparison.measure_distances,
            (measure, halves),
            {name: (sets[name], weights[name]) for name in others},
        )
        by_family[measure.family].append(drawn)
        findings.append(_finding(sets, comparison.summarise(drawn)))
    families = {
        family: comparison.summarise(comparison.mean_overlap(drawn))
        for family, drawn in by_family.items()
        if drawn
    }
    return Analysis(size, findings, families, halves, weights, nearest)


def _measure(
    everything: Mapping[str, Rows], known: KnownRows | None, task: Task
) -> tuple[dict[str, list[Measure]], dict[str, Nearest]]:
    """Measure each set: all measures in one order, and the nearest training rows."""
    measured: dict[str, list[Measure]] = {}
    nearest: dict[str, Nearest] = {}
    for name, rows in everything.items():
        measured[name] = measure_rows(rows.tokens, task)
        if known is not None:
            found, nearest[name] = known.measures(rows.tokens)
            measured[name] += found
    return measured, nearest


def _draw(rows: Rows, size: int, seed: list[int], draws: int) -> Halves:
    """Draw halves of a set, in blocks if its rows are neighbours."""
    count = len(rows.tokens)
    blocks = np.arange(count) if rows.stored is None else comparison.block_numbers(rows.stored)
    return comparison.draw_halves(blocks, size, np.random.default_rng(seed), draws)


def _finding(sets: Mapping[str, Measure], compared: Compared) -> Finding:
    """Put together what a measure says of each set."""
    measure = sets[REAL]
    return Finding(
        name=measure.name,
        family=measure.family,
        track=measure.track,
        labels=measure.labels,
        shares={name: distances.shares(one.counts.sum(axis=0)) for name, one in sets.items()},
        means={name: _mean(one.values) for name, one in sets.items() if one.values is not None},
        compared=compared,
    )


def _mean(values: np.ndarray) -> float:
    """Average what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def coverage(findings: Iterable[Finding], name: str) -> float:
    """Return the share of a set's intervals that hold the real-against-real value."""
    return comparison.coverage([finding.compared for finding in findings], name)

"""Distances of sets of rows from real rows, with intervals and a real-to-real baseline.

The design, and why:

* A distance between two finite sets is biased upwards, more so for smaller sets. Both sides of
  every distance therefore hold the same number m of rows, and so does the baseline: a distance
  between two disjoint sets of m real rows.
* Intervals come from subsampling: m of at least 2m rows are drawn without replacement (Politis,
  Romano and Wolf 1999, "Subsampling"). Drawing with replacement would add bias, because it repeats
  rows, which no set of real rows does. With n = 2m a subsample varies about the set as much as the
  set does about its population, so the distance between two sets from one population has the
  distribution of the distance between the two halves of either.
* Neighbouring rows of a store are overlapping windows of one piece. They are drawn in blocks, so
  that a piece, except at the ends of blocks, is in one half only. Otherwise the halves would share
  pieces, and be more similar than different music can be.
* A set made from the real rows, such as reconstructions, is compared in each draw with the half of
  the real rows that it was not made from.

A value is the median over the draws; an interval goes from their 2.5% to their 97.5% quantile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from musicvae_jax.analysis import distances
from musicvae_jax.analysis.measures import Measure
from musicvae_jax.config import InputError

BLOCK_ROWS = 32  # neighbours in the store that are drawn together
DRAWS = 200
_MIN_BLOCKS = 16
_MIN_ROWS = 8

Values = dict[str, np.ndarray]


class Halves(NamedTuple):
    """Draws of two disjoint sets of m rows, as weights 0 and 1.

    Attributes:
      first: float32 [R, N].
      second: float32 [R, N].
    """

    first: np.ndarray
    second: np.ndarray


class Interval(NamedTuple):
    """A value and its 95% interval; NaN where most draws have none."""

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Tell whether a value lies within."""
        return self.low <= value <= self.high


class Drawn(NamedTuple):
    """Distances from the real rows in each draw.

    Attributes:
      real: of real rows, [R] by name of the distance.
      others: of each other set of rows, likewise.
    """

    real: Values
    others: dict[str, Values]


class Compared(NamedTuple):
    """What `Drawn` holds, summarised."""

    real: dict[str, Interval]
    others: dict[str, dict[str, Interval]]


def block_numbers(stored: np.ndarray) -> np.ndarray:
    """Return the block of each row, from its place in the store: int64 [N].

    Blocks have `BLOCK_ROWS` places, fewer where that would make fewer than 16 blocks.
    """
    spread = int(stored.max(initial=0)) + 1 - int(stored.min(initial=0))
    size = max(1, min(BLOCK_ROWS, spread // _MIN_BLOCKS))
    return np.asarray(stored, np.int64) // size


def rows_per_side(*sizes: int) -> int:
    """Return m for sets of these sizes: half of the smallest.

    Raises:
      InputError: it is too small to say anything.
    """
    half = min(sizes) // 2
    if half < _MIN_ROWS:
        raise InputError(
            f"num: {min(sizes)} rows are too few to compare, {2 * _MIN_ROWS} are needed"
        )
    return half


def draw_halves(
    blocks: np.ndarray, size: int, generator: np.random.Generator, draws: int = DRAWS
) -> Halves:
    """Draw disjoint sets of rows, block by block.

    Args:
      blocks: int [N], block of each row; all different for rows that are independent.
      size: m, at most N // 2.
      generator: of random numbers.
      draws: R.
    """
    names, index = np.unique(blocks, return_inverse=True)
    ranks = np.argsort(generator.random((draws, len(names))), axis=1)
    order = np.argsort(ranks[:, index], axis=1, kind="stable")
    first, second = (np.zeros((draws, len(blocks)), np.float32) for _ in range(2))
    np.put_along_axis(first, order[:, :size], 1.0, axis=1)
    np.put_along_axis(second, order[:, -size:], 1.0, axis=1)
    return Halves(first, second)


def interval(values: np.ndarray) -> Interval:
    """Summarise the draws of one distance, [R]."""
    known = values[np.isfinite(values)]
    if 2 * len(known) < len(values) or not len(known):
        return Interval(np.nan, np.nan, np.nan)
    low, middle, high = np.quantile(known, [0.025, 0.5, 0.975])
    return Interval(float(middle), float(low), float(high))


def measure_distances(
    real: tuple[Measure, np.ndarray], other: tuple[Measure, np.ndarray]
) -> Values:
    """Compute all distances of a measure in each draw.

    Args:
      real: the measure of N real rows, and weights [R, N].
      other: the same measure of other rows, and theirs.

    Returns:
      [R] each: "overlap" and "kl_nats" of the values; for measures with one value per row also
      "overlap_of_pairs" and "kl_nats_of_pairs": distances between two real rows against
      distances between a real row and one of the other set (Yang and Lerch's own comparison).
    """
    a, b = (weights @ measure.counts for measure, weights in (real, other))
    found = {"overlap": distances.overlap(a, b), "kl_nats": distances.kl_nats(a, b)}
    if real[0].values is None:
        return found
    inside, across = distances.within(a), distances.between(a, b)
    found["overlap_of_pairs"] = distances.overlap(inside, across)
    found["kl_nats_of_pairs"] = distances.kl_nats(inside, across)
    return found


def draw_distances(
    function: Callable[[Any, Any], Values],
    real: tuple[Any, Halves],
    others: Mapping[str, tuple[Any, np.ndarray]],
) -> Drawn:
    """Compare sets of rows with real rows in each draw.

    Args:
      function: gives the distances in each draw of two sides, each a pair (what is known of the
        rows, weights [R, N]), as `measure_distances` does.
      real: what is known of the real rows, and draws of their halves.
      others: the other sets by name, with weights of as many rows in each draw.
    """
    side = (real[0], real[1].first)
    return Drawn(
        real=function(side, (real[0], real[1].second)),
        others={name: function(side, known) for name, known in others.items()},
    )


def mean_overlap(drawn: Sequence[Drawn]) -> Drawn:
    """Average the overlap of several measures in each draw: one distance for a family."""

    def average(values: list[np.ndarray]) -> Values:
        stacked = np.stack(values)
        known = np.isfinite(stacked)
        total = np.where(known, stacked, 0.0).sum(axis=0)
        count = known.sum(axis=0)
        mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return {"overlap": mean}

    return Drawn(
        real=average([one.real["overlap"] for one in drawn]),
        others={
            name: average([one.others[name]["overlap"] for one in drawn])
            for name in drawn[0].others
        },
    )


def summarise(drawn: Drawn) -> Compared:
    """Turn draws into values and intervals."""

    def intervals(values: Values) -> dict[str, Interval]:
        return {name: interval(draws) for name, draws in values.items()}

    return Compared(
        intervals(drawn.real), {name: intervals(values) for name, values in drawn.others.items()}
    )


def coverage(compared: Sequence[Compared], name: str) -> float:
    """Return the share of a set's intervals that hold the real-against-real value."""
    held = [
        one.others[name][distance].holds(real.value)
        for one in compared
        for distance, real in one.real.items()
        if np.isfinite(real.value) and np.isfinite(one.others[name][distance].value)
    ]
    return float(np.mean(held)) if held else float("nan")


def is_as_close(compared: Compared, name: str) -> bool | None:
    """Tell whether a set's overlap of values is what real rows have among each other.

    It is when it is no smaller than all but 2.5% of the draws of real rows; None if unknown.
    """
    distance = "overlap" if "overlap" in compared.real else next(iter(compared.real))
    real, other = compared.real[distance], compared.others[name][distance]
    if not (np.isfinite(real.value) and np.isfinite(other.value)):
        return None
    return other.value >= real.low if distance == "overlap" else other.value <= real.high

r"""Check the analysis with known answers: two halves of real rows, and random tokens.

Example:
  python -m experiments.benchmarks.analysis_check --data_dir=data/mel --data_dir=data/drums \
    > experiments/benchmarks/analysis_check.txt

Halves: the held-out rows of a store are split in two at random, in blocks of neighbouring rows,
and one half is analysed against the other as if a model had generated it. Each interval (four for
a measure with a value per row, otherwise two) should contain the real-against-real value. Random
tokens are drawn uniformly; the mean overlap of every family should lie outside the interval of
real rows.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import machine
from musicvae_jax import data
from musicvae_jax.analysis import comparison, originality, sets
from musicvae_jax.analysis.comparison import Interval
from musicvae_jax.analysis.originality import Known
from musicvae_jax.analysis.sets import Finding, Rows
from musicvae_jax.tasks import Task

_OTHER, _RANDOM = "other half", "random tokens"


def coverage(
    rows: np.ndarray, stored: np.ndarray, known: Known, task: Task, repeats: int
) -> tuple[list[float], int]:
    """Split held-out rows several times: share of intervals that hold, and rows per side."""
    shares = []
    size = 0
    blocks = comparison.block_numbers(stored)
    for repeat in range(repeats):
        generator = np.random.default_rng([repeat, 9])
        cut = comparison.draw_halves(blocks, len(rows) // 2, generator, 1)
        a, b = (np.flatnonzero(weights[0]) for weights in cut)
        others = {_OTHER: Rows(rows[a], stored[a])}
        found = sets.analyse(Rows(rows[b], stored[b]), others, known, task, repeat)
        shares.append(sets.coverage(found.findings, _OTHER))
        size = found.rows_per_side
    return shares, size


def random_rows(task: Task, count: int) -> np.ndarray:
    """Draw tokens uniformly, [N, *row_shape]."""
    generator = np.random.default_rng(0)
    columns = [
        generator.integers(0, track.num_classes, (count, task.num_steps)) for track in task.tracks
    ]
    return np.stack(columns, axis=-1).reshape(count, *task.row_shape).astype(task.token_dtype)


def random_lines(rows: np.ndarray, stored: np.ndarray, known: Known, task: Task) -> list[str]:
    """Compare random tokens with held-out rows: one line per family."""
    others = {_RANDOM: Rows(random_rows(task, len(rows)))}
    found = sets.analyse(Rows(rows, stored), others, known, task)
    lines = []
    for family, compared in found.families.items():
        real, other = compared.real["overlap"], compared.others[_RANDOM]["overlap"]
        inside = [one for one in found.findings if one.family == family]
        outside = sum(not _holds(one) for one in inside)
        verdict = "outside" if other.high < real.low else "INSIDE"
        lines.append(
            f"    {family:12}{_cell(real):>24}{_cell(other):>24}  {verdict}; measures whose "
            f"overlap is outside: {outside} of {len(inside)}"
        )
    return lines


def _holds(finding: Finding) -> bool:
    """Tell whether the interval of a measure's overlap contains the real value or is undefined."""
    real, other = finding.compared.real["overlap"], finding.compared.others[_RANDOM]["overlap"]
    return not (math.isfinite(real.value) and math.isfinite(other.value)) or other.holds(real.value)


def _cell(value: Interval) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def report(store: data.Store, num: int, train_rows: int, repeats: int) -> list[str]:
    """Check one store."""
    task, train = store.task, store.splits["train"]
    stored = data.spread_rows(len(store.splits["test"]), num)
    rows = np.asarray(store.splits["test"][stored])
    known = originality.know(np.asarray(train[data.spread_rows(len(train), train_rows)]), task)
    shares, size = coverage(rows, stored, known, task, repeats)
    held = f"{np.mean(shares):.1%} of the intervals hold the real value (least {min(shares):.1%})"
    return [
        f"{task.name}: {len(rows):,} test rows, {len(known.events):,} train rows",
        f"  halves, {repeats} times, {size} rows a side: {held}",
        f"  random tokens   {'real, real':>24}{'random, real':>24}",
        *random_lines(rows, stored, known, task),
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to check."""

    data_dir: tuple[str, ...] = option((), help="Token store; repeated.")
    num: int = option(1000, low=64, help="Test rows of each, at most.")
    train_rows: int = option(20_000, low=1, help="Train rows of each, at most.")
    repeats: int = option(10, low=1, help="How often the test rows are cut.")


def main(options: Options) -> None:
    """Print the table."""
    print(machine.describe("numpy"))
    print("Mean overlap of a family's measures (1: equal) [95% of 200 draws].")
    for path in options.data_dir:
        lines = report(data.open_store(path), options.num, options.train_rows, options.repeats)
        print("", *lines, sep="\n", flush=True)


if __name__ == "__main__":
    cli.run(main, Options)

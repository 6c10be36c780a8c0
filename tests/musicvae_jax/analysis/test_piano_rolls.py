"""Originality of piano rolls: Jaccard distances by hand, and by trying all training rows."""

from __future__ import annotations

import numpy as np
import pytest

from musicvae_jax.analysis import families, piano_rolls, sets
from musicvae_jax.analysis.originality import FAMILY
from musicvae_jax.analysis.sets import Rows
from tests.support.example_rows import ROLL_TASK as TASK
from tests.support.example_rows import piano_rolls as rows_of


def random_cells(rng: np.random.Generator, count: int) -> list[list[int]]:
    """Rows of up to 30 of 40 cells that lie far apart."""
    cells = np.linspace(0, TASK.num_cells - 1, 40).astype(int)
    return [rng.choice(cells, rng.integers(31), replace=False).tolist() for _ in range(count)]


def test_the_share_of_note_starts_in_one_row_only() -> None:
    train = rows_of([1, 2, 3, 4], [100], [1, 2, 70_000, 140_000])
    known = families.know(train, TASK)
    rows = rows_of([4, 3, 2, 1], [1, 2, 3, 9], [70_000, 140_000, 140_001], [5], [])
    found, near = known.measures(rows)
    # A copy; 3 of 5; 2 of 5; nothing in common with any row, so the first; a silent row, likewise.
    np.testing.assert_allclose(near.distance, [0, 1 - 3 / 5, 1 - 2 / 5, 1, 1])
    assert near.row.tolist() == [0, 0, 2, 0, 0]
    assert [one.name for one in found] == [
        "distance to the nearest training row",
        "copies of a training row",
    ]
    assert found[0].values is near.distance
    assert found[1].values is not None
    assert found[1].values.tolist() == [1, 0, 0, 0, 0]
    assert {one.family for one in found} == {FAMILY}


def test_silent_rows_are_equal() -> None:
    known = piano_rolls.know(rows_of([7], []), TASK)
    near = piano_rolls.nearest(rows_of([]), known)
    assert (near.distance.tolist(), near.row.tolist()) == ([0.0], [1])


def test_it_is_the_nearest_of_all_in_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piano_rolls, "_CHUNK", 8)
    rng = np.random.default_rng(0)
    train, cells = random_cells(rng, 29), random_cells(rng, 12)
    near = piano_rolls.nearest(rows_of(*cells), piano_rolls.know(rows_of(*train), TASK))
    apart = [
        [1 - len({*a} & {*b}) / len({*a} | {*b}) if a or b else 0.0 for b in train] for a in cells
    ]
    np.testing.assert_allclose(near.distance, np.min(apart, axis=1))
    np.testing.assert_array_equal(near.row, np.argmin(apart, axis=1))
    assert len({*(near.row // 8)}) == 4


def test_an_analysis_has_the_family() -> None:
    rng = np.random.default_rng(1)
    real, other, train = (rows_of(*random_cells(rng, count)) for count in (40, 40, 20))
    known = families.know(train, TASK)
    found = sets.analyse(Rows(real, np.arange(40)), {"o": Rows(other)}, known, TASK, draws=20)
    assert FAMILY in found.families
    np.testing.assert_array_equal(found.nearest["o"].distance, known.measures(other)[1].distance)

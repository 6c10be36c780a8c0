from __future__ import annotations

import pathlib

import numpy as np
import pytest

from experiments.benchmarks import follow_curve


@pytest.mark.slow
def test_training_follows_the_recorded_curve(shared: pathlib.Path) -> None:
    points = list(follow_curve.follow(shared / "golden", 50))
    assert [point.step for point in points] == list(range(51))
    assert max(point.loss_difference for point in points[:50]) < 0.01
    evaluated = [point for point in points if point.reference_accuracy is not None]
    assert [point.step for point in evaluated] == [0, 50]
    assert max(point.accuracy_difference for point in evaluated) < 0.02


def test_differences_are_relative_for_losses_and_absolute_for_accuracies() -> None:
    point = follow_curve.Point(0, 99.0, 100.0, 0.5, 0.25)
    assert abs(point.loss_difference - 0.01) < 1e-12
    assert point.accuracy_difference == 0.25
    assert follow_curve.Point(1, None, None, None, None).loss_difference == 0.0


def test_the_range_is_that_of_the_references_three_runs(shared: pathlib.Path) -> None:
    assert follow_curve.reference_range(shared / "golden", 500) == pytest.approx(
        (0.3571, 0.3901), abs=1e-4
    )
    assert follow_curve.reference_range(shared / "golden", 1250) == pytest.approx(
        (0.4990, 0.5234), abs=1e-4
    )


def test_a_comparison_counts_the_runs_within_the_range() -> None:
    runs = [[follow_curve.Point(0, None, None, a, None)] for a in (0.375, 0.25, 0.5)]
    assert follow_curve.comparison(0, runs, follow_curve.Range(0.25, 0.4)) == (
        "accuracy at step 0: 0.3750, with 2 perturbed starts 0.2500 to 0.5000; "
        "the reference's three runs 0.2500 to 0.4000; 2 of 3 within"
    )


def test_a_perturbed_start_differs_in_the_last_digits() -> None:
    start = {"a": np.linspace(1, 2, 1000, dtype=np.float32)}
    changed = follow_curve.perturb(start, 1)["a"]
    assert changed.dtype == np.float32
    assert 0 < np.abs(changed - start["a"]).max() < 1e-6
    assert not np.array_equal(changed, follow_curve.perturb(start, 2)["a"])

from __future__ import annotations

import pathlib

from experiments.benchmarks import follow_curve


def test_training_follows_the_recorded_curve(shared: pathlib.Path) -> None:
    points = list(follow_curve.follow(shared / "golden", 100))
    assert [point.step for point in points] == list(range(101))
    assert max(point.loss_difference for point in points[:100]) < 0.01
    evaluated = [point for point in points if point.reference_accuracy is not None]
    assert [point.step for point in evaluated] == [0, 50, 100]
    assert max(point.accuracy_difference for point in evaluated) < 0.02


def test_differences_are_relative_for_losses_and_absolute_for_accuracies() -> None:
    point = follow_curve.Point(0, 99.0, 100.0, 0.5, 0.25)
    assert abs(point.loss_difference - 0.01) < 1e-12
    assert point.accuracy_difference == 0.25
    assert follow_curve.Point(1, None, None, None, None).loss_difference == 0.0

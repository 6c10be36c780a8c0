from __future__ import annotations

import pytest

from experiments.benchmarks.time_to_accuracy import Curve, Options, needed
from musicvae_jax.config import InputError


def _curve(accuracies: dict[int, float], seconds: float) -> Curve:
    curve = Curve()
    curve.validations = {step: {"accuracy": value} for step, value in accuracies.items()}
    curve.seconds = {step: seconds * step for step in accuracies}
    return curve


def test_medians_over_the_seeds() -> None:
    curves = [
        _curve({10: 0.44, 20: 0.45, 30: 0.44}, 1.0),
        _curve({10: 0.46, 20: 0.47, 30: 0.48}, 2.0),
        _curve({10: 0.20, 20: 0.30, 30: 0.50}, 3.0),
    ]
    # Steps 20, 10 and 30; 20, 20 and 90 seconds; the recorded curve is there at step 80.
    assert needed(curves, 80, 128) == (
        "2,560 examples (2,560, 1,280, 3,840), 20 s of processor time; 0.250 of the recorded"
    )
    assert needed([*curves, _curve({10: 0.1}, 1.0)], 80, 128) == "not reached by 1 of 4"


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(InputError, match="recipe: 'sgd' is not one of reference, default, muon"):
        Options(recipes=("sgd",))

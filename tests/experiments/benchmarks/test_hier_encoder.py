"""The times and the progress of the benchmark's trainings."""

from __future__ import annotations

import pytest

from experiments.benchmarks.hier_encoder import Clock
from musicvae_jax.training.callbacks import Progress


def test_the_first_dispatch_does_not_count() -> None:
    clock = Clock("hier", 6)
    clock.times = [(2, 100.0, 30.0), (4, 101.0, 32.0), (6, 102.0, 38.0)]
    assert clock.per_step() == (0.5, 2.0)
    clock.times = clock.times[:1]
    assert clock.per_step() == pytest.approx((float("nan"),) * 2, nan_ok=True)


def test_records_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock("hier", 6)
    clock.trained(Progress(2, {}, 1.0, 8.4, is_record=True))
    clock.trained(Progress(4, {}, 1.0, 4.0, is_record=False))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hier: step 2 of 6, about 8 s left\n")
    assert [step for step, *_ in clock.times] == [2, 4]

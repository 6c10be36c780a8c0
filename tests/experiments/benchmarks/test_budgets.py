"""One training scored at two budgets: which comes first, exact examples, resumption."""

from __future__ import annotations

import pathlib

import pytest

from experiments.benchmarks.support import budgets
from musicvae_jax import data
from musicvae_jax.storage import checkpoints
from musicvae_jax.tasks import get_task
from tests.support.synthetic_store import write_store

CONFIG = get_task("mel_2bar").config.replace(
    architecture="conv_forecaster",
    conv_filters=2,
    conv_width=2,
    conv_pool=1,
    batch_size=4,
    eval_every=100,
    save_every=5,
    log_every=100,
    eval_examples=4,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> data.Store:
    return data.open_store(write_store(tmp_path_factory.mktemp("store"), "mel_2bar"))


def latest_step(run_dir: pathlib.Path) -> budgets.Scores:
    """Score a run by the step of its latest checkpoint."""
    return {"scored": checkpoints.restore_params(run_dir, "latest")[2]}


def test_the_clock_counts_from_the_second_dispatch_over_all_processes(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "clock.json"
    clock = budgets.Clock(tmp_path, 10, path, 1e9)
    assert not clock.is_over()
    assert clock.seconds == 0.0  # the first dispatch is being compiled
    assert not clock.is_over()
    sum(range(1_000_000))
    clock.saved(1)
    kept = clock.seconds
    assert kept > 0.0
    again = budgets.Clock(tmp_path, 10, path, 1e-12)
    assert 0.0 < again.seconds <= kept
    assert again.is_over()


@pytest.mark.slow
@pytest.mark.parametrize("is_slow", [True, False])
def test_both_points_of_a_training_are_scored_in_the_order_they_are_reached(
    store: data.Store, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(budgets, "_machine_seconds", lambda: float(next(ticks)))
    minutes = 1 / 60 if is_slow else 1.0
    found = budgets.train_and_score(
        CONFIG, store, tmp_path / "one", budgets.Budgets(minutes, 37), latest_step
    )
    timed, counted = found[budgets.MINUTES], found[budgets.EXAMPLES]
    assert counted["step"] == 10  # 37 examples in batches of 4
    assert counted["examples"] == 40
    assert (timed["step"] < 10) == is_slow
    assert timed["seconds"] >= 60 * minutes
    for point in found.values():
        assert point["scored"] == point["step"]
    assert (timed["seconds"] < counted["seconds"]) == is_slow


def test_what_is_done_is_read_back(store: data.Store, tmp_path: pathlib.Path) -> None:
    both = budgets.Budgets(1e-9, 8)
    first = budgets.train_and_score(CONFIG, store, tmp_path / "one", both, latest_step)
    assert budgets.is_done(tmp_path / "one")
    (tmp_path / "one" / "examples.json").unlink()  # as when ended while scoring
    assert not budgets.is_done(tmp_path / "one")
    calls = list[pathlib.Path]()

    def score(run_dir: pathlib.Path) -> budgets.Scores:
        calls.append(run_dir)
        return latest_step(run_dir)

    again = budgets.train_and_score(CONFIG, store, tmp_path / "one", both, score)
    assert again == first
    assert calls == [tmp_path / "one" / "run"]

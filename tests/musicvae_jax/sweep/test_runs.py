"""A point of a sweep equals its single run."""

from __future__ import annotations

import importlib.util
import json
import math
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from experiments.sweep import executors
from experiments.sweep.axes import Point
from experiments.sweep.points import LOG, PointRun, ended, open_folders
from musicvae_jax import data
from musicvae_jax.config import Config
from musicvae_jax.sweep import program, runs
from musicvae_jax.tasks import get_task
from musicvae_jax.training import loop
from tests.support.commands import run_python
from tests.support.listener import Listener
from tests.support.synthetic_store import write_store

STEPS = 200
POINTS: list[dict[str, Any]] = [
    {"beta": 0.1, "free_bits": 0.0},
    {"beta": 1.0, "free_bits": 4.0, "learning_rate": 3e-3, "warmup_steps": 30, "seed": 1},
]
DIVERGING = {"learning_rate": 1e30, "min_learning_rate": 1e30, "stop_after_skipped": 40}
# A worker that trains some steps and dies; called again, it trains to the end.
LOST_ONCE = """
import os, pathlib, sys, warnings
warnings.simplefilter("ignore")
os.environ["RAY_ADDRESS"] = "127.0.0.1:1"  # a cluster of someone else is not joined
from data_pipeline.conversion import cluster
from experiments.sweep import worker

def lost_once(folder):
    first = pathlib.Path(folder, "first")
    if not first.exists():
        first.touch()
        asked = iter(range(7))
        worker.train_folder(folder, lambda: next(asked, None) is None)
        os._exit(1)
    return worker.train_folder(folder)

print(list(cluster.call_on_cluster(lost_once, [(sys.argv[1],)], None, 1)), flush=True)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> data.Store:
    counts = {"train": 40, "validation": 12, "test": 0}
    return data.open_store(write_store(tmp_path_factory.mktemp("data") / "s", "mel_2bar", counts))


@pytest.fixture(scope="module")
def config() -> Config:
    return get_task("mel_2bar").config.replace(
        encoder_sizes=(8,),
        decoder_sizes=(8,),
        z_size=4,
        batch_size=8,
        sampling_schedule="constant",
        sampling_rate=0.0,
        beta_rate=0.0,
        learning_rate=1e-3,
        decay_rate=0.9999,
        warmup_steps=0,
        adam_b2=0.999,
        weight_decay=1e-9,
        init="default",
        dtype="float32",
        train_steps=STEPS,
        log_every=20,
        eval_every=100,
        save_every=100,
    )


@pytest.fixture(scope="module")
def singles(
    config: Config, store: data.Store, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Listener, loop.Outcome]]:
    found = []
    for fields in POINTS:
        heard, folder = Listener(), tmp_path_factory.mktemp("single")
        found.append((heard, loop.fit(config.replace(**fields), store, str(folder), heard)))
    return found


def _points(
    config: Config, folder: pathlib.Path, fields: list[dict[str, Any]]
) -> tuple[list[runs.Point], list[Listener]]:
    heard = [Listener() for _ in fields]
    points = [
        runs.Point(config.replace(**values), str(folder / f"{n}"), heard[n])
        for n, values in enumerate(fields)
    ]
    return points, heard


def _close(found: Listener, expected: Listener) -> None:
    for ours, theirs in (
        (found.records, expected.records),
        (found.validations, expected.validations),
    ):
        assert [r["step"] for r in ours] == [r["step"] for r in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            for name, value in other.items():
                # Batched products round differently, and 200 steps of training amplify it.
                np.testing.assert_allclose(mine[name], value, rtol=2e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("side_by_side", [0, 1])
def test_every_point_equals_its_single_run(
    config: Config,
    store: data.Store,
    singles: list[tuple[Listener, loop.Outcome]],
    tmp_path: pathlib.Path,
    side_by_side: int,
) -> None:
    # The last point diverges: it is frozen, and its neighbours do not notice. In turn, there is
    # one seed, so that all points see the same batches.
    fields = POINTS[: 1 if side_by_side else 2]
    last = len(fields)
    points, heard = _points(config, tmp_path, [*fields, DIVERGING])
    outcomes = runs.fit_points(points, store, side_by_side=side_by_side)
    assert [bool(o.cause) for o in outcomes] == [False] * last + [True]
    for n, (expected, outcome) in enumerate(singles[:last]):
        _close(heard[n], expected)
        assert heard[n].saves == expected.saves == [100, 200]
        assert (outcomes[n].step, outcomes[n].stopped) == (STEPS, False)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            outcomes[n].state.params,
            outcome.state.params,
        )
    assert 40 <= outcomes[last].step < STEPS
    assert "not finite" in outcomes[last].cause
    assert heard[last].saves == []


@pytest.mark.slow
def test_points_that_are_behind_catch_up(
    config: Config,
    store: data.Store,
    singles: list[tuple[Listener, loop.Outcome]],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "TRIAL_SHARE", math.inf)
    # As after a kill between the saves of two points: one is at step 60, the other at the start.
    points, heard = _points(config, tmp_path, [{}, POINTS[0]])
    short = points[1].config.replace(train_steps=60)
    loop.fit(short, store, points[1].run_dir, Listener())
    timings: list[runs.Timing] = []
    outcomes = runs.fit_points(points, store, side_by_side=None, timed=timings.append)
    assert [o.step for o in outcomes] == [STEPS, STEPS]
    alone, timing = timings
    assert (alone.steps, set(alone.seconds)) == (60, {1})
    # Together, they are timed in turn and at once, and the faster way is taken.
    assert (timing.steps, set(timing.seconds)) == (STEPS - 60, {1, 2})
    assert timing.seconds[timing.chosen] == min(timing.seconds.values())
    assert timing.seconds_left == timing.seconds[timing.chosen] * (STEPS - 60)
    assert heard[0].starts == [0, 60]
    assert heard[1].starts == [60]
    expected = Listener(singles[0][0].records[3:], singles[0][0].validations)
    _close(heard[1], expected)
    assert [o.step for o in runs.fit_points(points, store)] == [STEPS, STEPS]
    assert heard[0].starts == [0, 60]


def test_no_second_program_is_compiled_if_that_takes_longer_than_it_can_save(
    config: Config, store: data.Store, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "TRIAL_SHARE", 0.0)
    points, _ = _points(config.replace(train_steps=2), tmp_path, POINTS[:2])
    timings: list[runs.Timing] = []
    runs.fit_points(points, store, side_by_side=None, timed=timings.append)
    (timing,) = timings
    assert (timing.chosen, timing.steps, set(timing.seconds)) == (1, 2, {1})
    assert timing.compile_seconds > 0


def test_points_of_other_shapes_are_refused(
    config: Config, store: data.Store, tmp_path: pathlib.Path
) -> None:
    points, _ = _points(config, tmp_path, [{}, {"z_size": 5}])
    with pytest.raises(ValueError, match="group them by program_key"):
        runs.fit_points(points, store)


def test_a_group_is_compiled_for_its_largest_numbers(config: Config) -> None:
    configs = [config.replace(beta=0.5, sampling_rate=0.25), config.replace(beta=0.1)]
    general = program.general_config(configs)
    assert (general.train.beta, general.train.sampling_rate) == (0.5, 0.25)
    keys = [program.program_key(c) for c in (*configs, config.replace(clip_mode="value"))]
    assert keys[0] == keys[1] != keys[2]


def _metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _tasks(
    config: Config, store: data.Store, folder: pathlib.Path, fields: list[dict[str, Any]]
) -> list[PointRun]:
    points = [Point(f"{n}", f, config.replace(**f)) for n, f in enumerate(fields)]
    return open_folders(folder, points, store)


def _heard(folder: pathlib.Path) -> Listener:
    found = Listener()
    for record in _metrics(folder):
        kind = found.records if record.pop("split") == "train" else found.validations
        kind.append(record)
    return found


@pytest.mark.slow
def test_points_in_processes_equal_their_single_runs(
    config: Config,
    store: data.Store,
    singles: list[tuple[Listener, loop.Outcome]],
    tmp_path: pathlib.Path,
) -> None:
    tasks = _tasks(config, store, tmp_path, POINTS)
    options = executors.Options("local", 0, 2, None)
    said: list[str] = []
    executors.train(tasks, store, options, lambda: False, said.append)
    assert said[-1].endswith("ended, 2 of 2")
    for task, (expected, _) in zip(tasks, singles, strict=True):
        _close(_heard(task.folder), expected)
        end = ended(task)
        assert end is not None
        assert (end["end"], end["step"]) == ("finished", STEPS)
    executors.train(tasks, store, options, lambda: False, said.append)
    assert said[-1] == "2 of 2 points are finished and skipped"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_point_of_a_lost_worker_resumes_and_equals_its_single_run(
    config: Config,
    store: data.Store,
    singles: list[tuple[Listener, loop.Outcome]],
    tmp_path: pathlib.Path,
) -> None:
    (task,) = _tasks(config, store, tmp_path, POINTS[:1])
    done = run_python("-c", LOST_ONCE, str(task.folder))
    assert "[(0, '0')]" in done.stdout, done.stderr[-2000:]
    assert "resuming after step " in (task.folder / LOG).read_text()
    found, expected = _heard(task.folder), singles[0][0]
    # The record in which the worker was lost holds the steps since then only.
    _close(Listener(found.records[-4:]), Listener(expected.records[-4:]))
    _close(Listener([], found.validations), Listener([], expected.validations))

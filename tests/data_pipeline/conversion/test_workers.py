"""Jobs that hang, crash or eat memory cost only themselves."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import time
from typing import Any

import numpy as np
import pytest

from data_pipeline.conversion import workers
from data_pipeline.conversion.workers import Limits, run_isolated

NO_HURRY = Limits(cpu_seconds=1e6, wall_seconds=1e6, memory_bytes=2**30)


def misbehave(order: str) -> Any:
    """Do what a job's text says; runs in a child process."""
    if order == "loop":
        while True:
            pass
    if order == "wait":
        time.sleep(600)
    if order == "nap":
        time.sleep(0.5)
    if order == "eat":
        return np.zeros(2**40, np.uint8)
    if order == "eat a little more":
        return int(np.ones(2**30 + 2**20, np.uint8)[0])
    if order == "answer too large":
        return bytes(700 * 2**20)
    if order == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if order == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "raise":
        raise KeyError("missing")
    if order.startswith("killed once "):
        path = pathlib.Path(order.removeprefix("killed once "))
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return order, os.getpid()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, workers.Outcome]:
    """Outcomes of misbehaviour between jobs that behave, on two workers."""
    orders = ["a", "b", "eat", "answer too large", "segfault", "killed", "raise", "c"]
    jobs = ((order, order) for order in [*orders, "eat a little more"])
    return dict(run_isolated(misbehave, jobs, num_workers=2, limits=NO_HURRY))


def test_jobs_that_behave_are_answered(outcomes: dict[str, workers.Outcome]) -> None:
    assert len(outcomes) == 9
    assert [outcomes[order].value[0] for order in "abc"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("order", "reason", "detail"),
    [
        ("eat", workers.OUT_OF_MEMORY, "more than 1 GiB"),
        ("answer too large", workers.OUT_OF_MEMORY, "more than 1 GiB"),
        ("eat a little more", workers.OUT_OF_MEMORY, "more than 1 GiB"),
        ("segfault", workers.CRASHED, f"exit code {-signal.SIGSEGV}"),
        ("killed", workers.OUT_OF_MEMORY, "ended by the system"),
        ("raise", workers.FAILED, "KeyError: 'missing'"),
    ],
)
def test_each_misbehaviour_has_its_reason(
    outcomes: dict[str, workers.Outcome], order: str, reason: str, detail: str
) -> None:
    assert outcomes[order] == workers.Outcome(None, reason, detail)


@pytest.mark.parametrize(
    ("order", "limits", "detail"),
    [
        ("loop", dataclasses.replace(NO_HURRY, cpu_seconds=0.2), "0.2 s of processor time"),
        ("wait", dataclasses.replace(NO_HURRY, wall_seconds=0.2), "0.2 s waiting"),
    ],
)
def test_a_job_that_does_not_end_is_ended(order: str, limits: Limits, detail: str) -> None:
    # Only the one limit that the job must reach: on a busy machine the other could come first.
    (found,) = run_isolated(misbehave, [(0, order)], num_workers=1, limits=limits)
    assert found == (0, workers.Outcome(None, workers.OUT_OF_TIME, detail))


def test_waiting_takes_no_processor_time() -> None:
    # So a busy machine, which makes every job wait, does not end any.
    limits = dataclasses.replace(NO_HURRY, cpu_seconds=0.2)
    ((_, outcome),) = run_isolated(misbehave, [(0, "nap")], num_workers=1, limits=limits)
    assert outcome.reason is None


def test_a_job_whose_child_was_killed_is_tried_again(tmp_path: pathlib.Path) -> None:
    jobs = enumerate(["a", f"killed once {tmp_path / 'mark'}", "b"])
    done = dict(run_isolated(misbehave, jobs, num_workers=2, limits=NO_HURRY))
    assert sorted(done) == [0, 1, 2]
    assert all(outcome.reason is None for outcome in done.values())
    assert (tmp_path / "mark").exists()


def test_set_up_is_no_jobs_time() -> None:
    limits = dataclasses.replace(NO_HURRY, cpu_seconds=0.5)
    done = dict(
        run_isolated(misbehave, [(0, "a")], num_workers=1, limits=limits, setup=take_a_second)
    )
    assert done[0].value[0] == "a"


def take_a_second() -> None:
    """Take more processor time than a job may."""
    end = time.process_time() + 1.0
    while time.process_time() < end:
        pass


def test_a_child_serves_many_jobs() -> None:
    done = dict(run_isolated(misbehave, enumerate("abcdef"), num_workers=2, limits=NO_HURRY))
    assert [done[i].value[0] for i in range(6)] == list("abcdef")
    assert len({outcome.value[1] for outcome in done.values()}) <= 2


def test_jobs_are_drawn_only_when_a_child_is_free() -> None:
    drawn = []

    def jobs() -> Any:
        for number in range(20):
            drawn.append(number)
            yield number, str(number)

    results = run_isolated(misbehave, jobs(), num_workers=2, limits=NO_HURRY)
    next(results)
    assert len(drawn) <= 5
    results.close()


def test_no_jobs_start_no_child() -> None:
    assert list(run_isolated(misbehave, [], num_workers=2)) == []


class Unreadable:
    """A function that a child cannot take in."""

    def __call__(self, payload: Any) -> Any:
        """Return the payload."""
        return payload

    def __setstate__(self, state: Any) -> None:
        """Refuse to be unpickled."""
        raise OSError("unreadable on purpose")

    def __getstate__(self) -> dict[str, int]:
        """Have a state, so that it is restored."""
        return {"state": 1}


def test_a_child_that_cannot_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="a worker process ended at its start, code 1"):
        list(run_isolated(Unreadable(), [(0, "a")], num_workers=1, limits=NO_HURRY))


def test_a_child_that_does_not_get_ready_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START_SECONDS", 0.5)
    with pytest.raises(RuntimeError, match=r"a worker process did not start in 0\.5 s"):
        list(run_isolated(misbehave, [(0, "a")], num_workers=1, limits=NO_HURRY, setup=sleep))


def sleep() -> None:
    """Keep a child from its first job."""
    time.sleep(600)

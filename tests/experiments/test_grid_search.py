"""The sweep command: what it refuses, what it writes, and how it resumes."""

from __future__ import annotations

import csv
import json
import math
import pathlib
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree
from typing import Any

import pytest
from absl import flags

from data_pipeline import cli
from experiments import evaluate, grid_search
from experiments.cli import config_flags
from experiments.sweep import executors, report
from experiments.sweep.axes import Axis, make_points, parse_axes
from experiments.sweep.measures import TOKENS, Scoring
from experiments.sweep.points import (
    END,
    GroupProgress,
    PointRun,
    ended,
    groups_of,
    write_end,
)
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.storage import run_folder
from musicvae_jax.tasks import get_task
from musicvae_jax.training import callbacks, loop
from tests.support.commands import run_command
from tests.support.synthetic_store import write_store

NO_STATE: Any = None
SMALL = (
    "--encoder_sizes=8",
    "--decoder_sizes=8",
    "--z_size=4",
    "--batch_size=16",
    "--sampling_schedule=constant",
    "--sampling_rate=0",
    "--dtype=float32",
    "--train_steps=6",
    "--log_every=2",
    "--eval_every=3",
    "--save_every=3",
)


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    counts = {"train": 40, "validation": 12, "test": 0}
    return write_store(tmp_path_factory.mktemp("data") / "store", "mel_2bar", counts)


@pytest.fixture(scope="module")
def base() -> Config:
    return get_task("mel_2bar").config


def _checked(store_dir: pathlib.Path, *arguments: str) -> Any:
    values = flags.FlagValues()
    cli.define_flags(grid_search.Options, values)
    config_flags.define(values)
    values(["grid_search", f"--data_dir={store_dir}", "--run_dir=unused", *SMALL, *arguments])
    return grid_search.checked_sweep(cli.options_from_flags(grid_search.Options, values), values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "sweep: no axis is given; write for example --grid=beta=0.1,0.2"),
        (("beta",), "sweep: axis 'beta' has no values"),
        (("beta=",), "sweep: axis 'beta=' has no values"),
        (("betta=1",), "no configuration field is named 'betta'; did you mean beta?"),
        (("quality=1",), "no configuration field is named 'quality'; see --help"),
        (("task=mel_2bar",), "task cannot be an axis"),
        (("beta=0.1", "beta=0.2"), "there are two axes beta; give all values in one"),
        (("beta=0.1,0.10",), "beta has the value 0.1 twice"),
        (("beta=0.1,x",), "beta=x is not a number"),
        (("seed=1.5",), "seed=1.5 is not a whole number"),
        (("encoder_sizes=8x8",), "encoder_sizes=8x8 is not layer sizes with + between them"),
        (("beta=0.1,-1",), "point beta=-1: beta: -1.0 is out of range, it must be 0 or more"),
        (("beta_steps=10,20",), "beta_steps has no effect with beta_schedule=annealed"),
        (("conductor_sizes=8",), "it needs hierdec or hier"),
        (("architecture=flat,deep",), "architecture: 'deep' is not one of flat, hierdec"),
        (("architecture=waveform_vae",), "waveform_vae models sound, the task is mel_2bar; use"),
        (("batch_size=16,64",), "40 training rows are fewer than one batch of 64"),
    ],
)
def test_a_wrong_sweep_is_refused(
    store_dir: pathlib.Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        _checked(store_dir, *(f"--grid={text}" for text in arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--executor=fast", "'fast' is not one of auto, vmap, local, ray"),
        ("--workers=0", "workers: 0 is out of range"),
        ("--score_split=test", "has no rows of 'test'"),
        ("--score_draws=1", "score_draws: 1 is out of range"),
    ],
)
def test_wrong_options_are_refused(store_dir: pathlib.Path, argument: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _checked(store_dir, "--grid=beta=0.1", argument)


def test_axes_combine_with_the_last_changing_fastest(base: Config) -> None:
    axes = parse_axes(["encoder_sizes=8,8+4", "beta=0.1, 1", "clip_mode=value"])
    points = make_points(base, axes)
    assert [point.name for point in points] == [
        "encoder_sizes=8,beta=0.1,clip_mode=value",
        "encoder_sizes=8,beta=1,clip_mode=value",
        "encoder_sizes=8+4,beta=0.1,clip_mode=value",
        "encoder_sizes=8+4,beta=1,clip_mode=value",
    ]
    assert points[3].config == base.replace(encoder_sizes=(8, 4), beta=1.0, clip_mode="value")


def test_an_axis_of_a_boolean_field_has_booleans() -> None:
    axes = parse_axes(["remat=0,1"])
    assert axes[0].values == (False, True)
    points = make_points(get_task("mel_2bar").config, axes)
    assert [point.config.run.remat for point in points] == [False, True]
    assert parse_axes(["remat=false,TRUE"])[0].values == (False, True)
    with pytest.raises(InputError, match="remat=2 is not 0, 1, false or true"):
        parse_axes(["remat=2"])


def test_points_that_differ_in_numbers_are_one_group(base: Config) -> None:
    names = ["learning_rate=1e-3,1e-2", "seed=0,1", "z_size=4,8", "stop_patience=0,2"]
    points = make_points(base, parse_axes(names))
    groups = groups_of(PointRun(point, pathlib.Path()) for point in points)
    assert [len(group) for group in groups] == [8, 8]
    assert {task.config.model.z_size for task in groups[0]} == {4}


def test_a_schedule_may_be_an_axis_beside_its_numbers(base: Config) -> None:
    points = make_points(base, parse_axes(["beta_schedule=constant,linear", "beta_steps=9"]))
    assert len(points) == 2


def _report(step: int, loss: float) -> callbacks.Progress:
    return callbacks.Progress(step, {"loss": loss}, 100.0, 15.0, True)


def test_a_group_prints_one_line_per_record_also_when_a_point_has_ended() -> None:
    lines: list[str] = []
    group = GroupProgress(30, lines.append)
    for name in ("a", "b", "c"):
        group.started(name)
    for name, loss in (("a", 3.0), ("b", 2.0), ("c", math.nan)):
        assert not lines
        group.trained(name, _report(10, loss))
    assert lines == [
        "step      10/30  3 points  lowest loss 2.000 (b)  100 examples/s each  left 15s"
    ]
    for step in (20, 30):  # c has diverged
        group.trained("a", _report(step, 1.0))
        group.trained("b", _report(step, 4.0))
    assert [line.split()[1] for line in lines] == ["10/30", "20/30", "30/30"]
    assert all("2 points  lowest loss 1.000 (a)" in line for line in lines[1:])


def test_a_group_prints_what_was_reported_last() -> None:
    lines: list[str] = []
    group = GroupProgress(30, lines.append)
    for name in ("a", "b"):
        group.started(name)
    group.trained("b", _report(30, 1.0))  # a has stopped early
    assert not lines
    group.flush()
    assert len(lines) == 1


def _run(store_dir: pathlib.Path, folder: pathlib.Path, *arguments: str) -> Any:
    folders = (f"--data_dir={store_dir}", f"--run_dir={folder}")
    return run_command("experiments.grid_search", *SMALL, *arguments, *folders)


@pytest.mark.slow
def test_the_command_trains_scores_and_resumes(
    store_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder, axis = tmp_path / "sweep", "--grid=beta=0.1,0.5,0.9"
    first = _run(store_dir, folder, axis, "--executor=vmap")
    assert first.returncode == 0, first.stderr
    assert re.search(r"^3 points in one program on .*; compiling$", first.stdout, re.MULTILINE)
    assert [line.split()[1] for line in first.stdout.splitlines() if "lowest loss" in line] == [
        "2/6",
        "4/6",
        "6/6",
    ]
    assert "each device computes its points one after the other" in first.stdout
    again = _run(store_dir, folder, axis, "--executor=vmap")
    assert again.returncode == 0, again.stderr
    assert "3 of 3 points are finished and skipped" in again.stdout
    assert "scored" not in again.stdout
    assert again.stdout.split("rank")[1] == first.stdout.split("rank")[1]
    with (folder / "results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    found = json.loads((folder / "results.json").read_text())
    assert [row["point"] for row in rows] == [row["point"] for row in found["points"]]
    assert {row["point"] for row in rows} == {"beta=0.1", "beta=0.5", "beta=0.9"}
    assert {row["end"] for row in rows} == {"finished"}
    accuracies = [float(row["sampled_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert rows[0]["point"] in again.stdout.split("rank")[1].splitlines()[1]
    # A point is a run like any other.
    run_dir = found["points"][0]["run_dir"]
    assert run_folder.read_config(run_dir).run.train_steps == 6
    text = evaluate.evaluate(evaluate.Options(run_dir, split="validation"))
    assert "validation split, 12 examples (all)" in text
    page = (folder / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") == 4 + 1 + 4
    xml.etree.ElementTree.fromstring(page.split("\n", 1)[1])


def test_a_wrong_sweep_ends_with_one_line_and_exit_code_2(
    store_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = _run(store_dir, tmp_path / "sweep", "--grid=beta=0.1", "--grid=beta=0.2")
    assert done.returncode == 2
    assert done.stderr == "error: sweep: there are two axes beta; give all values in one\n"
    assert not (tmp_path / "sweep").exists()


def test_the_end_of_a_point_is_recorded_and_valid_for_its_limits(
    tmp_path: pathlib.Path, base: Config
) -> None:
    (point,) = make_points(base, parse_axes(["beta=1"]))
    task = PointRun(point, tmp_path)
    for outcome, end in (
        (loop.Outcome(NO_STATE, 4, True), None),
        (loop.Outcome(NO_STATE, 9, False), "finished"),
        (loop.Outcome(NO_STATE, 9, False, exhausted=True), "stopped early"),
        (loop.Outcome(NO_STATE, 9, False, cause="not finite"), "stood still"),
    ):
        write_end(tmp_path, point.config, outcome)
        found = ended(task)
        assert (found and found["end"]) == end
    # Earlier versions had another name for it.
    path = tmp_path / END
    path.write_text(path.read_text().replace("stood still", "diverged"))
    earlier = ended(task)
    assert earlier is not None
    assert earlier["end"] == "stood still"
    longer = point._replace(config=point.config.replace(train_steps=300_000))
    assert ended(PointRun(longer, tmp_path)) is None


def test_when_a_point_fails_the_processes_of_the_others_end(
    tmp_path: pathlib.Path, base: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [PointRun(p, tmp_path / p.name) for p in make_points(base, parse_axes(["beta=1,2"]))]
    programs = iter(["import time; time.sleep(600)", "raise SystemExit(1)"])
    started: list[subprocess.Popen[bytes]] = []

    def start(task: PointRun, core: int) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", next(programs)]))
        return started[-1]

    monkeypatch.setattr(executors, "_start", start)
    options, store = executors.Options(executor="local", num_workers=2), NO_STATE
    with pytest.raises(InputError, match="point beta=2 failed: exit code 1"):
        executors.train(tasks, store, options, lambda: False, lambda _: None)
    try:
        assert started[0].poll() == -signal.SIGTERM
    finally:
        started[0].kill()


def test_a_point_that_stood_still_comes_last_with_its_cause(
    tmp_path: pathlib.Path, base: Config
) -> None:
    axes = [Axis("beta", (0.5, 1.0)), Axis("seed", (0, 1))]
    tasks = []
    for n, point in enumerate(make_points(base, axes)):
        folder = tmp_path / str(n)
        folder.mkdir()
        outcome = loop.Outcome(NO_STATE, 5, False, cause="" if n else "not finite")
        write_end(folder, point.config, outcome)
        tasks.append(PointRun(point, folder))
    figures = {"teacher_forced_accuracy": 0.5, "greedy_accuracy": 0.4, "sampled_error": 0.01}
    figures |= {"kl_bits": 9.0, "elbo_nats": -70.0, "distortion_nats": 60.0, "active_units": 3}
    scores = {
        task.point.name: figures | {"step": 5, "z_size": 4, "sampled_accuracy": n / 10}
        for n, task in enumerate(tasks)
        if n
    }
    rows = report.results(tasks, scores)
    assert [row["point"] for row in rows] == [
        "beta=1,seed=1",
        "beta=1,seed=0",
        "beta=0.5,seed=1",
        "beta=0.5,seed=0",
    ]
    scoring = Scoring("validation", 0, 3)
    lines = report.table(rows, scoring, TOKENS).splitlines()
    assert "0.3000 ± 0.0100" in lines[1]
    assert max(map(len, lines[:4])) <= 100
    assert lines[4].endswith("stood still")
    about = {"command": "c <&>", "data": "d"} | scoring._asdict()
    page = report.report(rows, axes, tasks, about)
    assert "beta=0.5,seed=0: stood still; not finite" in page
    assert "c &lt;&amp;&gt;" in page


def test_a_sweep_whose_points_all_stood_still_has_exit_code_3(
    tmp_path: pathlib.Path,
    store_dir: pathlib.Path,
    base: Config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    axes = parse_axes(["beta=0.5,1"])
    tasks = [PointRun(point, tmp_path / point.name) for point in make_points(base, axes)]
    cause = "the last 100 steps changed no parameter"
    for task in tasks:
        task.folder.mkdir()
        write_end(task.folder, task.config, loop.Outcome(NO_STATE, 100, False, cause=cause))
    options = grid_search.Options(data_dir="data", run_dir=str(tmp_path))
    store = data.open_store(store_dir)
    with pytest.raises(SystemExit, match=r"^3$"):
        grid_search.compare(options, store, axes, tasks, "command")
    printed = capsys.readouterr()
    assert printed.out.count("  stood still\n") == 2
    assert printed.err.startswith("error: every point was ended because its steps changed no")
    assert (tmp_path / "report.html").read_text().count(f"stood still; {cause}") == 2

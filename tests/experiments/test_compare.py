from __future__ import annotations

import csv
import io
import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from experiments import compare
from experiments.cli import run_record
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.storage import run_folder
from musicvae_jax.tasks import get_task
from tests.support.commands import run_here
from tests.support.synthetic_store import write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> data.Store:
    return data.open_store(write_store(tmp_path_factory.mktemp("data") / "store", "mel_2bar"))


def _run(folder: pathlib.Path, store: data.Store, beta: float, losses: list[Any]) -> pathlib.Path:
    config = get_task("mel_2bar").config.replace(beta=beta)
    folder = run_folder.open_run_folder(folder, config, store)
    records = [
        {"step": 10 * n, "split": "validation", "loss": loss, "accuracy": n / 10}
        for n, loss in enumerate(losses, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def test_a_start_is_written_down_each_time(store: data.Store, tmp_path: pathlib.Path) -> None:
    assert run_record.read_starts(tmp_path) == []
    run_record.write_start(tmp_path, store)
    run_record.write_start(tmp_path, store, init_from="there")
    first, second = run_record.read_starts(tmp_path)
    assert first["data"]["sha256"] == store.meta["sha256"]
    assert first["data"]["fingerprint"] == store.fingerprint
    assert first["machine"]["devices"] == ["cpu"] * len(first["machine"]["devices"])
    assert first["packages"]["jax"]
    assert first["python"] == sys.version.split()[0]
    assert "command" in first
    assert (first.get("init_from"), second["init_from"]) == (None, "there")


def test_the_commit_is_that_of_the_folder(tmp_path: pathlib.Path) -> None:
    assert run_record.git_state(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert run_record.git_state(tmp_path) == {"commit": head.stdout.strip(), "changed": False}
    (tmp_path / "file").write_text("two")
    found = run_record.git_state(tmp_path)
    assert found is not None
    assert found["changed"]


def test_what_differs_is_named_and_figures_are_side_by_side(
    store: data.Store, tmp_path: pathlib.Path
) -> None:
    first = _run(tmp_path / "first", store, 0.1, [30.0, 20.0, 25.0])
    second = _run(tmp_path / "second", store, 0.5, [40.0, None])
    run_record.write_start(first, store, init_from="elsewhere")
    scores = {"accuracy": {"overall": 0.75}}
    evaluation: dict[str, Any] = {"sampled": scores, "teacher_forced": scores, "greedy": scores}
    evaluation |= {"cross_entropy": {"overall": 0.5}, "kl_bits": 9.5}
    evaluation |= {"elbo_nats": -20.25, "active_units": 4}
    (second / "evaluation_test.json").write_text(json.dumps(evaluation))
    lines = compare.compare([str(first), str(second)]).splitlines()
    cells = {line[:30].strip(): line.split()[-2:] for line in lines if line}
    assert lines[0].split()[-2:] == ["first", "second"]
    assert cells["beta"] == ["0.1", "0.5"]
    assert "z_size" not in cells
    assert cells["begun from"] == ["elsewhere", "-"]
    assert cells["best validation at step"] == ["20", "10"]
    assert cells["validation loss, best"] == ["20", "40"]
    assert cells["test: sampled accuracy"] == ["-", "0.75"]
    assert cells["test: ELBO, nats"] == ["-", "-20.25"]


def test_tables_for_documents_and_spreadsheets(store: data.Store, tmp_path: pathlib.Path) -> None:
    runs = [
        str(_run(tmp_path / name, store, beta, losses))
        for name, beta, losses in (("a|b", 0.1, [1.0 / 3.0, None]), ("c", 0.5, [2.0]))
    ]
    found = compare.read(runs)
    markdown = compare.as_markdown(found).splitlines()
    assert markdown[:3] == [
        r"| configuration, where it differs | a\|b | c |",
        "| --- | ---: | ---: |",
        "| beta | 0.1 | 0.5 |",
    ]
    lines = list(csv.reader(io.StringIO(compare.as_csv(found))))
    assert lines[:2] == [["table", "name", "a|b", "c"], ["configuration", "beta", "0.1", "0.5"]]
    cells = {line[1]: line[2:] for line in lines if line[0] == "figures"}
    assert cells["validation loss, best"] == [str(1.0 / 3.0), "2.0"]
    assert cells["validation kl_bits, best"] == ["", ""]

    done = run_here("experiments.compare", *runs, "--format=csv", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == compare.as_csv(found)
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(written) == {f"comparison.{end}" for end in ("txt", "md", "csv", "png")}
    assert written["comparison.txt"].decode() == compare.as_text(found)
    assert written["comparison.png"].startswith(b"\x89PNG")


def test_the_picture_has_a_line_for_each_run_with_scores() -> None:
    records = [
        [
            {"split": "train", "step": 1, "loss": 9.0, "accuracy": 0.0},
            {"split": "validation", "step": 2, "loss": 4.0, "accuracy": 0.5},
            {"split": "validation", "step": 4, "loss": None, "accuracy": 0.25},
        ],
        [{"split": "validation", "step": 3, "loss": 5.0}],
        [],
    ]
    loss, accuracy = compare._panels(["a", "b", "c"], records)
    assert list(loss.lines) == ["a", "b"]
    assert (loss.lines["a"].x, loss.lines["b"].y) == ([2, 4], [5.0])
    assert np.isnan(loss.lines["a"].y[1])
    assert list(accuracy.lines) == ["a"]
    assert compare._panels(["c"], [[]]) == []


def test_tables_fit_100_columns(store: data.Store, tmp_path: pathlib.Path) -> None:
    folders = []
    for number in range(9):
        folder = _run(tmp_path / f"a rather long name {number}", store, 0.1, [1.0 / 3.0])
        start = {"python": "3.12", "packages": {}, "git": {"commit": f"{number}" * 40}}
        start |= {"machine": {"devices": ["cpu"], "host": "host"}, "note": f"{number}" * 60}
        (folder / "starts.jsonl").write_text(json.dumps(start) + "\n")
        (folder / "evaluation_validation.json").write_text('{"seed_bars": 1}')
        folders.append(str(folder))
    text = compare.as_text(compare.read(folders))
    assert max(map(len, text.splitlines())) <= 100
    shown = re.findall(r"(\d+)…\d+", "".join(re.findall("^note.*$", text, re.MULTILINE)))
    assert [part[0] for part in shown] == [str(number) for number in range(9)]
    wide = compare.as_text(compare.read(folders[:2]))
    assert f"{'1' * 15}…{'1' * 15}" in wide
    assert max(map(len, wide.splitlines())) <= 100


def test_names_are_whole_where_only_the_root_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "read_config", lambda _: get_task("mel_2bar").config)
    monkeypatch.setattr(compare, "_facts", lambda _: {})
    monkeypatch.setattr(compare, "_figures", lambda path: {"steps": len(path.name)})
    lines = compare.compare(["/first/run", "/second/run"]).splitlines()
    assert lines[-2].split() == ["figures", "first/run", "second/run"]


def test_equal_runs_differ_in_nothing(store: data.Store, tmp_path: pathlib.Path) -> None:
    runs = [str(_run(tmp_path / name, store, 0.1, [1.0])) for name in "ab"]
    text = compare.compare(runs)
    assert "configuration, where it differs: nothing" in text
    assert "circumstances, where they differ: nothing" in text


def test_what_is_no_run_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="give two or more run folders"):
        compare.compare(["one"])
    with pytest.raises(InputError, match="is not a run folder"):
        compare.compare([str(tmp_path), str(tmp_path)])


def test_folders_are_arguments_of_the_command() -> None:
    done = run_here("experiments.compare", "nowhere", "neither")
    assert done.returncode == 2
    assert done.stderr.startswith("error: run_dir: nowhere is not a run folder")


def test_the_scores_of_sweep_points_are_read(store: data.Store, tmp_path: pathlib.Path) -> None:
    scores = {"split": "validation", "sampled_accuracy": 0.25, "kl_bits": 12.5, "active_units": 3}
    for name, beta in (("a", 0.1), ("b", 0.5)):
        folder = _run(tmp_path / name, store, beta, [3.0])
        (folder / "scores.json").write_text(json.dumps(scores))
    text = compare.compare([str(tmp_path / "a"), str(tmp_path / "b")])
    lines = {line.split("  ")[0]: line.split()[-2:] for line in text.splitlines()}
    assert lines["validation, sweep: sampled accuracy"] == ["0.25", "0.25"]
    assert lines["validation, sweep: KL, bits"] == ["12.5", "12.5"]
    assert "validation, sweep: greedy accuracy" not in lines

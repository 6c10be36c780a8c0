"""A store is complete or not there, and its bytes follow its rows."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from data_pipeline.selection import store
from data_pipeline.selection.splits import Selection
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS, get_task


def random_rows(task_name: str, num_rows: int) -> np.ndarray:
    """Draw rows of a task."""
    task = get_task(task_name)
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, t.num_classes, (num_rows, task.num_steps)) for t in task.tracks]
    return np.stack(columns, axis=-1).reshape(num_rows, *task.row_shape).astype(task.token_dtype)


@pytest.mark.parametrize("task_name", list(TASKS))
def test_written_rows_are_plain_arrays(
    tmp_path: pathlib.Path, task_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_CHUNK_BYTES", 5_000)  # several chunks
    task, rows = get_task(task_name), random_rows(task_name, 30)
    rows[:, 3:] = 0
    chosen = np.random.default_rng(1).permutation(30)[:23]
    written = store.write_rows(tmp_path / "a.npy", rows, chosen, task)
    read = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(read, rows[chosen])
    assert read.dtype == task.token_dtype
    np.save(tmp_path / "b.npy", rows[chosen])
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert written.num_rows == 23
    assert written.sha256 == hashlib.sha256((tmp_path / "b.npy").read_bytes()).hexdigest()
    silent = (rows[chosen].reshape(-1, len(task.tracks)) == 0).sum(axis=0)
    assert written.no_events == tuple(silent.tolist())


def test_an_empty_split_can_be_mapped(tmp_path: pathlib.Path) -> None:
    task = get_task("trio_16bar")
    store.write_rows(tmp_path / "a.npy", random_rows("trio_16bar", 2), np.zeros(0, int), task)
    assert np.load(tmp_path / "a.npy", mmap_mode="r").shape == (0, 256, 3)


def make_store(folder: pathlib.Path, seed: int = 0) -> dict[str, Any]:
    """Write a small store of two rows; return its meta.json."""
    task, rows = get_task("mel_2bar"), random_rows("mel_2bar", 2)
    chosen = {"train": np.array([1]), "validation": np.array([0]), "test": np.zeros(0, int)}
    written = store.write_splits(folder, rows, Selection(chosen, {}, {}), task)
    value = store.meta(task, written, [{"name": "a", "md5": "0"}], {"split_seed": seed})
    store.write_json(folder / store.META, value)
    return value


def test_meta_says_what_the_trainer_checks(tmp_path: pathlib.Path) -> None:
    value = make_store(tmp_path)
    assert json.loads((tmp_path / "meta.json").read_text()) == value
    assert value["format"] == "musicvae-tokens-1"
    assert value["task"] == "mel_2bar"
    assert value["row_shape"] == [32]
    assert value["counts"] == {"train": 1, "validation": 1, "test": 0}
    assert set(value["sha256"]) == {"train.npy", "validation.npy", "test.npy"}
    tokens = {"0": "no event", "1": "note off", "2..89": "pitch 21..108 on"}
    assert value["vocabulary"] == [
        {"track": "melody", "kind": "melody", "num_classes": 90, "tokens": tokens}
    ]
    assert {"note-seq", "numpy"} <= set(value["versions"])


def test_a_folder_appears_when_it_is_complete(tmp_path: pathlib.Path) -> None:
    output = tmp_path / "new" / "place"
    with store.work_folder(output) as folder:
        (folder / "spool").write_text("work")
        (folder / store.STORE / "file").write_text("text")
        assert not output.exists()
        assert folder.parent == output.parent
    assert [path.name for path in output.iterdir()] == ["file"]
    assert list(output.parent.iterdir()) == [output]


def test_an_empty_folder_is_filled(tmp_path: pathlib.Path) -> None:
    output = tmp_path / "empty"
    output.mkdir()
    with store.work_folder(output) as folder:
        (folder / store.STORE / "file").write_text("text")
    assert [path.name for path in output.iterdir()] == ["file"]


def fail(output: pathlib.Path, error: BaseException) -> None:
    """Raise an error in the middle of the work."""
    with store.work_folder(output) as folder:
        (folder / "spool").touch()
        (folder / store.STORE / "half").touch()
        raise error


def test_nothing_is_left_when_the_input_is_wrong(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="no rows"):
        fail(tmp_path / "a", InputError("no rows"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), MemoryError("stop")])
def test_the_work_is_kept_when_it_is_interrupted(
    tmp_path: pathlib.Path, error: BaseException
) -> None:
    with pytest.raises(type(error), match="stop"):
        fail(tmp_path / "a", error)
    with store.work_folder(tmp_path / "a") as folder:
        assert sorted(os.listdir(folder)) == [".unfinished", "spool", "store"]
        assert os.listdir(folder / store.STORE) == []


def test_a_full_disk_is_reported_and_keeps_the_converted_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"the disk of .* is full; free some, then run the same"):
        fail(tmp_path / "a", OSError(errno.ENOSPC, "No space left on device"))
    assert (tmp_path / ".a.unfinished" / "spool").exists()
    with pytest.raises(OSError, match="Input/output error"):
        fail(tmp_path / "a", OSError(errno.EIO, "Input/output error"))


def test_what_a_killed_run_converted_is_kept(tmp_path: pathlib.Path) -> None:
    script = (
        "import os, pathlib, sys; from data_pipeline.selection import store\n"
        "with store.work_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'spool').touch(); (folder / 'store' / 'half').touch()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    output = tmp_path / "a"
    killed = subprocess.run([sys.executable, "-c", script, str(output)], check=False)
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    assert sorted(os.listdir(left)) == [".unfinished", "spool", "store"]
    with store.work_folder(output) as folder:
        assert sorted(os.listdir(folder)) == [".unfinished", "spool", "store"]
        assert os.listdir(folder / "store") == []
    assert list(tmp_path.iterdir()) == [output]


def test_a_run_killed_after_the_last_step_is_cleared(tmp_path: pathlib.Path) -> None:
    left = tmp_path / ".a.unfinished"
    left.mkdir()
    (left / ".unfinished").touch()
    (left / "spool").touch()
    store.clear_leftover(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    store.clear_leftover(tmp_path / "a")
    left.mkdir()  # killed in the very last step
    store.clear_leftover(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_has_just_written_is_kept(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "meta.json").touch()
    with (
        pytest.raises(InputError, match="another process has just written"),
        store.work_folder(tmp_path / "a"),
    ):
        pass
    store.clear_leftover(tmp_path / "a")  # as the next run does
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "meta.json").exists()


def test_two_writers_do_not_meet(tmp_path: pathlib.Path) -> None:
    with store.work_folder(tmp_path / "a") as folder:
        (folder / store.STORE / "file").touch()
        with (
            pytest.raises(InputError, match="another process is writing to"),
            store.work_folder(tmp_path / "a"),
        ):
            pass
        assert (folder / store.STORE / "file").exists()
    assert (tmp_path / "a" / "file").exists()


def test_a_strangers_folder_in_the_way_is_kept(tmp_path: pathlib.Path) -> None:
    stranger = tmp_path / ".a.unfinished"
    stranger.mkdir()
    (stranger / "thesis.tex").touch()
    with (
        pytest.raises(InputError, match="is in the way, remove it or choose another --output"),
        store.work_folder(tmp_path / "a"),
    ):
        pass
    assert (stranger / "thesis.tex").exists()


def test_a_place_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="file/a cannot be written: Not a directory"),
        store.work_folder(tmp_path / "file" / "a"),
    ):
        pass


def test_held_knows_stores_from_other_things(tmp_path: pathlib.Path) -> None:
    output = tmp_path / "out"
    assert store.held(output) == {}
    output.mkdir()
    assert store.held(output) == {}
    value = make_store(output)
    assert store.held(output) == {".": value}
    (tmp_path / "several" / "mel_2bar").mkdir(parents=True)
    value = make_store(tmp_path / "several" / "mel_2bar")
    assert store.held(tmp_path / "several") == {"mel_2bar": value}


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other"}'])
def test_held_refuses_other_things(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(InputError, match=r"holds something else \(meta.json\), choose another"):
        store.held(tmp_path)
    for name in "abcd":
        (tmp_path / name).touch()
    (tmp_path / "meta.json").unlink()
    with pytest.raises(InputError, match=r"holds something else \(a, b, c, ...\)"):
        store.held(tmp_path)
    with pytest.raises(InputError, match="a is a file, --output must name a folder"):
        store.held(tmp_path / "a")


def test_an_existing_store_is_compared(tmp_path: pathlib.Path) -> None:
    stores = {".": make_store(tmp_path)}
    sources, options = [{"name": "a", "md5": "0"}], {"split_seed": 0}
    store.check_held(tmp_path, stores, sources, options)
    with pytest.raises(InputError, match="made with other --split_seed; give --overwrite"):
        store.check_held(tmp_path, stores, sources, {"split_seed": 1})
    with pytest.raises(InputError, match="made with other --split_seed, sources;"):
        store.check_held(tmp_path, stores, [], {"split_seed": 1})
    with (tmp_path / "train.npy").open("ab") as stream:
        stream.write(b"1")
    with pytest.raises(InputError, match=r"train.npy is missing or damaged; give --overwrite"):
        store.check_held(tmp_path, stores, sources, options)

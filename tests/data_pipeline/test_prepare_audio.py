"""Folders of sound files to stores of samples."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import soundfile

from data_pipeline import prepare_audio
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.tasks import SoundTask, get_task, sound_task
from tests.support.commands import run_python
from tests.support.sound_folder import SAMPLE_RATE, sine, write_folder


def _prepare(folder: pathlib.Path, output: pathlib.Path, **options: Any) -> str:
    settings: dict[str, Any] = {"rate": 400, "seconds": 1} | options
    return prepare_audio.prepare(
        prepare_audio.Options(input=str(folder), output=str(output), **settings)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_folder(tmp_path_factory.mktemp("sound") / "clips")


def test_rows_are_the_sound_at_the_new_rate(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = _prepare(folder, tmp_path / "store")
    assert "20 of 20 files" in text
    assert "labels: high 20, low 20" in text
    store = data.open_store(tmp_path / "store")
    data.check_content(store)
    assert store.task == get_task("sound_400hz_1s") == sound_task(400, 1)
    assert (store.task.row_shape, store.task.token_dtype) == ((400,), "int16")
    # 20 files of two seconds each; each split has files of its own.
    assert sum(store.meta["counts"].values()) == 40
    assert min(store.meta["counts"].values()) > 0
    lines = (tmp_path / "store" / "manifest.jsonl").read_text().splitlines()
    manifest = [json.loads(line) for line in lines]
    by_name = {line["file"]: line for line in manifest}
    first = by_name["low/00.wav"]
    before = [
        line
        for line in manifest
        if line["split"] == first["split"] and line["file"] < first["file"]
    ]
    place = sum(line["rows"] for line in before)
    row = store.splits[first["split"]][place]
    labels = np.load(tmp_path / "store" / f"{first['split']}.labels.npy")
    assert store.meta["labels"][labels[place]] == "low"
    expected = 0.3 * np.sin(2 * np.pi * 40.3 * np.arange(400) / 400) * 2**15
    np.testing.assert_allclose(row[50:350], expected[50:350], atol=0.01 * 2**15)


def test_equal_inputs_give_equal_stores(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("one", "other"):
        _prepare(folder, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert not list(tmp_path.glob(".*"))
    for name in files:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "other" / name).read_bytes()


def test_what_is_left_out_is_counted(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    sounds = {
        "good": sine(50, 1.6),  # the last 0.6 s are filled up
        "repeats": sine(70, 2.0),  # its second second is its first
        "short": sine(60, 0.4),
        "silent": np.zeros(SAMPLE_RATE, np.float32),
        "infinite": np.full(SAMPLE_RATE, np.inf, np.float32),
    }
    for name, sound in sounds.items():
        soundfile.write(folder / f"{name}.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    (folder / "stereo.flac").parent.mkdir(exist_ok=True)
    both = np.stack([sine(80, 1.0), -sine(80, 1.0, 0.25)], axis=1)
    soundfile.write(folder / "stereo.flac", both, SAMPLE_RATE)
    (folder / "copy.wav").write_bytes((folder / "good.wav").read_bytes())
    (folder / "damaged.mp3").write_bytes(b"this is no sound" * 100)
    (folder / "empty.ogg").write_bytes(b"")
    (folder / "notes.txt").write_text("no sound")
    text = _prepare(folder, tmp_path / "store")
    assert "3 of 9 files" in text
    about = json.loads((tmp_path / "store" / "meta.json").read_text())
    assert about["labels"] == ["clips"]
    assert sum(about["counts"].values()) == 4
    assert about["left_out"] == {
        "copies of another file": 1,
        "damaged files": 2,
        "files of another type": 1,
        "files shorter than half a row": 1,
        "files with no rows of their own": 1,
        "files with values that are not finite": 1,
        "repeated rows": 1,
        "silent rows": 1,
    }
    rows = np.concatenate([np.load(tmp_path / "store" / f"{s}.npy") for s in data.SPLITS])
    assert (np.abs(rows[:, 250:]).max(axis=1) == 0).sum() == 1
    quarter = [row for row in rows if abs(np.abs(row[50:350]).max() - 0.125 * 2**15) < 500]
    assert len(quarter) == 1  # the mean of both channels


def test_what_cannot_be_done_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"input: .* is not a folder"):
        _prepare(tmp_path / "nowhere", tmp_path / "store")
    with pytest.raises(InputError, match="empty holds no sound files"):
        _prepare(tmp_path / "empty", tmp_path / "store")
    with pytest.raises(InputError, match="gives no rows: 1 damaged files"):
        _prepare(tmp_path / "bad", tmp_path / "store")
    with pytest.raises(InputError, match="rate: 7 is out of range"):
        _prepare(folder, tmp_path / "store", rate=7)
    with pytest.raises(InputError, match=r"split: .* must be percentages"):
        _prepare(folder, tmp_path / "store", split=(50.0, 10.0, 10.0))
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.glob(".store*"))
    _prepare(folder, tmp_path / "store")
    with pytest.raises(InputError, match="holds a store; give --overwrite"):
        _prepare(folder, tmp_path / "store")
    _prepare(folder, tmp_path / "store", overwrite=True, rate=200)
    assert data.open_store(tmp_path / "store").task.row_shape == (200,)


def test_the_command_says_what_it_wrote(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    options = [f"--input={folder}", f"--output={tmp_path / 'store'}", "--rate=400", "--seconds=2"]
    done = run_python("-m", "data_pipeline.prepare_audio", *options)
    assert done.returncode == 0, done.stderr
    assert "sound_400hz_2s, 20 of 20 files" in done.stdout
    task = data.open_store(tmp_path / "store").task
    assert isinstance(task, SoundTask)
    assert (task.sample_rate, task.seconds) == (400, 2)

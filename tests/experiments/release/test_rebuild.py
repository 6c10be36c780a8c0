"""The rows of the packaged models are made again from clones and archives of their sources."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from data_pipeline import prepare
from data_pipeline.options import Options as PrepareOptions
from data_pipeline.render.files import concatenate, midi_bytes
from experiments.release import rebuild
from musicvae_jax.config import InputError
from musicvae_jax.tasks import FIRST_NOTE_ON

PACKS = {"freedoom": range(6), "freedoom_history": range(6, 9), "groove": range(9, 12)}


def _song(number: int) -> bytes:
    rows = np.zeros((4, 32), np.uint8)
    rows[:, ::4] = np.random.default_rng(number).integers(FIRST_NOTE_ON + 20, 60, (4, 8))
    return midi_bytes(concatenate(rows, "mel_2bar", rest_bars=0))


def _write(folder: pathlib.Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"song {number}.mid").write_bytes(_song(number))


def _commit(clone: pathlib.Path) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (("add", "-A"), (*who, "commit", "-qm", "songs")):
        subprocess.run(["git", "-C", str(clone), *command], check=True)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder per source, and a store of them all."""
    folder = tmp_path_factory.mktemp("packs")
    for name, numbers in PACKS.items():
        _write(folder / name, numbers)
    inputs = tuple(str(folder / name) for name in PACKS)
    prepare.prepare(
        PrepareOptions(inputs=inputs, tasks=("mel_2bar",), output=str(folder / "store"))
    )
    return folder


@pytest.fixture(scope="module")
def models(packs: pathlib.Path) -> dict[str, dict[str, Any]]:
    return {"mel_2bar": json.loads((packs / "store" / "meta.json").read_text())}


@pytest.fixture
def sources(tmp_path: pathlib.Path) -> pathlib.Path:
    """A clone with a history and files of other songs, and an archive."""
    folder = tmp_path / "sources"
    clone = folder / "freedoom"
    clone.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    _write(clone / "music", PACKS["freedoom_history"])
    _commit(clone)
    shutil.rmtree(clone / "music")
    _write(clone / "levels", range(6))
    _write(clone / "levels", range(20, 23))
    _commit(clone)
    _write(tmp_path / "zipped", PACKS["groove"])
    shutil.make_archive(str(folder / "groove"), "zip", tmp_path / "zipped")
    return folder


def test_rows_from_a_clone_its_history_and_an_archive_are_equal(
    sources: pathlib.Path,
    packs: pathlib.Path,
    models: dict[str, dict[str, Any]],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = rebuild.Options(sources=str(sources), output=str(tmp_path / "data"))
    text = rebuild.rebuild(options, models, packs / "store" / "split.json")
    assert text == "mel_2bar: 3 of 3 equal"
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == [
        "freedoom: 6 of 6 files",
        "freedoom_history: 3 of 3 files",
        "groove: 3 of 3 files",
    ]


def test_rows_that_differ_and_sources_that_are_missing_are_reported(
    sources: pathlib.Path,
    packs: pathlib.Path,
    models: dict[str, dict[str, Any]],
    tmp_path: pathlib.Path,
) -> None:
    options = rebuild.Options(sources=str(sources), output=str(tmp_path / "data"))
    split = packs / "store" / "split.json"
    (tmp_path / "zipped" / "song 9.mid").unlink()
    shutil.make_archive(str(sources / "groove"), "zip", tmp_path / "zipped")
    with pytest.raises(InputError, match=r"output: mel_2bar/train.npy.* differ from the rows of"):
        rebuild.rebuild(options, models, split)
    (sources / "groove.zip").unlink()
    with pytest.raises(InputError, match=r"no folder or archive groove \(Groove MIDI Dataset 1"):
        rebuild.rebuild(options, models, split)


def test_the_packaged_models_say_what_their_rows_were_made_from() -> None:
    data = rebuild.packaged_data()
    assert set(data) == {"mel_2bar", "drums_2bar"}
    for entry in data.values():
        assert entry["options"] == data["mel_2bar"]["options"]
        assert entry["sources"] == data["mel_2bar"]["sources"]

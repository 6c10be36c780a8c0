"""A corpus to latents: the same as encoding row by row, in any number of attempts."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from typing import Any

import jax
import numpy as np
import pytest

from data_pipeline.render import files
from experiments import encode
from experiments.encode import Options
from experiments.encoding import shards
from experiments.encoding.inputs import Place, open_corpus
from musicvae_jax.config import InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import TASKS
from tests.support.prepared import content
from tests.support.synthetic_store import write_store

TASK = TASKS["mel_2bar"]
COUNTS = {"train": 40, "validation": 0, "test": 13}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run folder with one checkpoint of a tiny untrained model."""
    folder = tmp_path_factory.mktemp("run")
    sizes = {"z_size": 4, "encoder_sizes": (8,), "decoder_sizes": (8,)}
    config = TASK.config.replace(**sizes, init="default")
    params = jax.jit(build_model(config).init)(jax.random.key(0))
    with Checkpoints(folder, create=True) as checkpoints:
        checkpoints.save(1, params, {"count": np.zeros(1)}, config)
    return str(folder)


@pytest.fixture(scope="module")
def vae(run_dir: str) -> MusicVAE:
    return MusicVAE.restore(run_dir)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_store(tmp_path_factory.mktemp("data") / "tokens", "mel_2bar", COUNTS))


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Files of 2, 0, 5 and 1 rows, one of them unreadable, and a tunebook of 2 tunes."""
    folder = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    for name, bars in (("a", 3), ("c", 6), ("d", 2), ("short", 1)):
        row = np.zeros(16 * bars, np.uint8)
        row[::4] = rng.integers(30, 60, 4 * bars)
        files.write_midi(folder / f"{name}.mid", row, "mel_2bar")
    (folder / "b.mid").write_bytes(b"MThd no more")
    tune = "X:{}\nM:{}\nL:1/4\nQ:1/4=120\nK:C\nCDEF|GABc|cBAG|\n"
    (folder / "e.abc").write_text(tune.format(1, "4/4") + "\n" + tune.format(2, "3/4"))
    return str(folder)


def options(run_dir: str, given: str, output: pathlib.Path, **more: Any) -> Options:
    fields: dict[str, Any] = {"batch_size": 8, "shard_rows": 11} | more
    return Options(run_dir=run_dir, inputs=(given,), output=str(output), **fields)


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All shards, one after the other."""
    parts = [np.load(path) for path in sorted(folder.glob("latents-*.npz"))]
    names = ("mu", "sigma", "file_name", "bar", "row", "skipped")
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def test_a_store_is_encoded_row_by_row(
    run_dir: str, store: str, vae: MusicVAE, tmp_path: pathlib.Path
) -> None:
    said = encode.run(options(run_dir, store, tmp_path / "out"))
    assert "53 rows in 5 shards; now 53 in" in said
    assert "examples/s" in said
    found = read(tmp_path / "out")
    rows = np.concatenate([np.load(pathlib.Path(store) / f"{s}.npy") for s in COUNTS])
    expected = vae.encode(rows)
    np.testing.assert_allclose(found["mu"], expected.mu, atol=1e-5)
    np.testing.assert_allclose(found["sigma"], expected.sigma, atol=1e-5)
    assert found["mu"].dtype == found["sigma"].dtype == np.float32
    assert found["file_name"].tolist() == ["train"] * 40 + ["test"] * 13
    assert found["row"].tolist() == [*range(40), *range(13)]
    assert set(found["bar"].tolist()) == {-1}
    record = json.loads((tmp_path / "out" / "encode.json").read_text())
    assert (record["done"], record["rows"], record["task"]) == (True, 53, "mel_2bar")
    assert encode.run(options(run_dir, store, tmp_path / "out")).endswith("found finished")


def test_one_split(run_dir: str, store: str, tmp_path: pathlib.Path) -> None:
    encode.run(options(run_dir, store, tmp_path / "out", split="test", shard_rows=13))
    found = read(tmp_path / "out")
    assert found["file_name"].tolist() == ["test"] * 13
    assert len(list((tmp_path / "out").glob("*.npz"))) == 1


def test_files_are_encoded_with_their_bars(
    run_dir: str, songs: str, vae: MusicVAE, tmp_path: pathlib.Path
) -> None:
    said = encode.run(options(run_dir, songs, tmp_path / "out", shard_rows=4))
    found = read(tmp_path / "out")
    names = [name.split("/")[-1] for name in found["file_name"].tolist()]
    assert names == ["a.mid"] * 2 + ["c.mid"] * 5 + ["d.mid"] + ["e.abc#1"] * 2
    assert found["bar"].tolist() == [1, 2, 1, 2, 3, 4, 5, 1, 1, 2]
    assert found["row"].tolist() == [0, 1, 0, 1, 2, 3, 4, 0, 0, 1]
    reasons = {name.split("/")[-1]: reason for name, reason in found["skipped"].tolist()}
    assert sorted(reasons) == ["b.mid", "e.abc#2", "short.mid"]
    assert (reasons["short.mid"], reasons["e.abc#2"]) == ("too short", "not 4/4")
    assert "without rows: unreadable MIDI 1, not 4/4 1, too short 1" in said
    row = np.zeros(32, np.uint8)
    row[::4] = 41 + np.array([0, 2, 4, 5, 7, 9, 11, 12])
    np.testing.assert_allclose(found["mu"][-2], vae.encode(row).mu, atol=1e-5)


@pytest.mark.parametrize("kind", ["store", "songs"])
@pytest.mark.parametrize("shard_rows", [1, 4, 10])
def test_what_was_stopped_anywhere_ends_with_the_same_bytes(
    run_dir: str, kind: str, shard_rows: int, tmp_path: pathlib.Path, request: Any
) -> None:
    given = request.getfixturevalue(kind)
    asked = {"shard_rows": shard_rows} | ({"split": "test"} if kind == "store" else {})
    encode.run(options(run_dir, given, tmp_path / "whole", **asked))
    whole = content(tmp_path / "whole")
    num = len(whole) - 1
    for kept in {0, 1, num // 2, num}:
        folder = tmp_path / f"kept_{kept}"
        folder.mkdir()
        for number in range(kept):
            name = shards.shard_path(folder, number).name
            (folder / name).write_bytes(whole[name])
        record = json.loads(whole["encode.json"]) | {"done": False}
        (folder / "encode.json").write_text(json.dumps(record))
        encode.run(options(run_dir, given, folder, **asked))
        assert content(folder) == whole


def test_a_signal_stops_between_shards(
    run_dir: str, store: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, made = shards.write_shard, []

    def write_and_stop(path: pathlib.Path, *rest: Any) -> None:
        write(path, *rest)
        made.append(path.name)
        if len(made) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(shards, "write_shard", write_and_stop)
    asked = options(run_dir, store, tmp_path / "out")
    with pytest.raises(SystemExit) as stopped:
        encode.run(asked)
    assert stopped.value.code == 143
    assert made == ["latents-00000.npz", "latents-00001.npz"]
    assert "53 rows in 5 shards; now 31 in" in encode.run(asked)


def test_reading_goes_on_in_the_middle_of_a_file(songs: str) -> None:
    corpus = open_corpus((songs,), None, "4/4", TASK)
    blocks = list(corpus.blocks(Place(2, 3)))
    assert [len(block.rows) for block in blocks] == [2, 1, 2, 0]
    whole = list(corpus.blocks(Place(0, 0)))
    np.testing.assert_array_equal(blocks[0].rows, whole[2].rows[3:])
    assert (blocks[0].first, blocks[0].after) == ((2, 3), (3, 0))


def test_what_does_not_fit_is_refused(
    run_dir: str, store: str, songs: str, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    encode.run(options(run_dir, store, out, split="test"))
    with pytest.raises(InputError, match="holds latents with another input; name another folder"):
        encode.run(options(run_dir, store, out))
    with pytest.raises(InputError, match="with another input, shard_rows, batch_size; name"):
        encode.run(options(run_dir, songs, out, shard_rows=3, batch_size=4))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "song.txt").write_text("la")
    with pytest.raises(InputError, match="holds files that are not latents"):
        encode.run(options(run_dir, store, tmp_path / "mine"))
    with pytest.raises(InputError, match=r"output: .*song.txt is a file"):
        encode.run(options(run_dir, store, tmp_path / "mine" / "song.txt"))
    drums = str(write_store(tmp_path / "drums", "drums_2bar"))
    with pytest.raises(InputError, match="holds rows of drums_2bar, the model is of mel_2bar"):
        encode.run(options(run_dir, drums, tmp_path / "new"))
    with pytest.raises(InputError, match="split: only a token store has splits"):
        encode.run(options(run_dir, songs, tmp_path / "new", split="test"))
    with pytest.raises(InputError, match="is a token store; encode it by itself"):
        encode.run(Options(run_dir=run_dir, inputs=(store, songs), output=str(tmp_path / "new")))
    with pytest.raises(InputError, match="batch_size: 0 is out of range"):
        encode.run(options(run_dir, store, tmp_path / "new", batch_size=0))
    with pytest.raises(InputError, match="meter: 'any old' is not one of 4/4, any"):
        encode.run(options(run_dir, store, tmp_path / "new", meter="any old"))
    short = str(pathlib.Path(songs) / "short.mid")
    with pytest.raises(InputError, match="input: no row of mel_2bar found: too short 1"):
        encode.run(options(run_dir, short, tmp_path / "new"))
    assert not (tmp_path / "new").exists()

"""Songs stay together, published splits hold, and interrupted work is used where it fits."""

from __future__ import annotations

import gzip
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from data_pipeline import prepare
from data_pipeline.options import read_split_file
from data_pipeline.render.files import concatenate, midi_bytes
from data_pipeline.selection.splits import SPLITS
from musicvae_jax.config import InputError
from musicvae_jax.pretrained import packaged
from musicvae_jax.tasks import FIRST_NOTE_ON
from tests.support.prepared import content, manifest, run


@pytest.fixture(scope="module")
def versions_of_songs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Fifteen songs, each in three files that share most rows and differ in one token."""
    root = tmp_path_factory.mktemp("songs") / "versions"
    root.mkdir()
    for number in range(15):
        rng = np.random.default_rng(number)
        rows = np.zeros((6, 32), np.uint8)
        rows[:, ::2] = rng.integers(FIRST_NOTE_ON + 20, 60, (6, 16))
        for version in range(3):
            rows[-1, 0] = FIRST_NOTE_ON + 20 + version
            data = midi_bytes(concatenate(rows, "mel_2bar", rest_bars=0))
            (root / f"{number}-{version}.mid").write_bytes(data)
    return root


def test_files_of_one_song_share_a_split(
    versions_of_songs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run(versions_of_songs, tmp_path / "song", tasks=("drums_2bar", "mel_2bar"))
    report = json.loads((tmp_path / "song" / "report.json").read_text())
    assert (report["songs"]["songs"], report["songs"]["files"]) == (15, 45)
    lines = manifest(tmp_path / "song")
    for number in range(15):
        names = [f"versions/{number}-{version}.mid" for version in range(3)]
        assert len({lines[name]["split"] for name in names}) == 1
    assert {line["split"] for line in lines.values()} == set(SPLITS)
    near = report["tasks"][1]["near_duplicates_of_train_in_test"]
    assert near["song"]["near"] < near["file"]["near"]
    pins = json.loads((tmp_path / "song" / "split.json").read_text())
    assert pins == {line["md5"]: line["split"] for line in lines.values()}
    # The split does not depend on the tasks.
    run(versions_of_songs, tmp_path / "other", tasks=("mel_2bar",))
    assert json.loads((tmp_path / "other" / "split.json").read_text()) == pins


def test_a_published_split_is_kept(versions_of_songs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run(versions_of_songs, tmp_path / "first", split_by="file")
    pins = json.loads((tmp_path / "first" / "split.json").read_text())
    md5s = sorted(pins)
    some = {md5: pins[md5] for md5 in md5s[::2]}
    (tmp_path / "pins.json").write_text(json.dumps(some))
    fields = {"split_file": str(tmp_path / "pins.json"), "split_seed": 9}
    run(versions_of_songs, tmp_path / "second", **fields)
    found = json.loads((tmp_path / "second" / "split.json").read_text())
    assert {md5: found[md5] for md5 in some} == some
    lines = manifest(tmp_path / "second").values()
    of_song: dict[str, set[str]] = {}
    for line in lines:
        if line["md5"] in some:
            of_song.setdefault(line["name"].split("-")[0], set()).add(line["split"])
    for line in lines:
        pinned = of_song.get(line["name"].split("-")[0])
        assert pinned is None or line["split"] in pinned
    (tmp_path / "pins.json").write_text(json.dumps(pins))
    with pytest.raises(InputError, match="made with other --split_file;"):
        run(versions_of_songs, tmp_path / "second", **fields)


@pytest.mark.parametrize("split_by", ["song", "file"])
def test_pins_of_files_that_are_not_there_are_not_kept(
    versions_of_songs: pathlib.Path, tmp_path: pathlib.Path, split_by: str
) -> None:
    (tmp_path / "pins.json").write_text(json.dumps({"0" * 32: "test"}))
    pins = str(tmp_path / "pins.json")
    run(versions_of_songs, tmp_path / "out", split_file=pins, split_by=split_by)
    found = json.loads((tmp_path / "out" / "split.json").read_text())
    assert set(found) == {line["md5"] for line in manifest(tmp_path / "out").values()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "split_file: .* cannot be read: No such file"),
        ("{", "split_file: .* is not JSON: "),
        ('{"0": "training"}', "must map the md5 of files to train, validation, test"),
        ("[]", "must map the md5 of files to train, validation, test"),
    ],
)
def test_a_wrong_split_file_is_refused(
    tmp_path: pathlib.Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "pins.json").write_text(text)
    with pytest.raises(InputError, match=message):
        run(tmp_path, tmp_path / "out", split_file=str(tmp_path / "pins.json"))
    assert not (tmp_path / "out").exists()


def test_a_compressed_split_file_is_read(tmp_path: pathlib.Path) -> None:
    pins = {"0" * 32: "test", "1" * 32: "train"}
    path = tmp_path / "pins.json.gz"
    whole = gzip.compress(json.dumps(pins).encode())
    path.write_bytes(whole)
    assert read_split_file(str(path)) == pins
    for damaged in (whole[:-9], b"no gzip"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"split_file: .*pins.json.gz cannot be read: "):
            read_split_file(str(path))


def test_the_split_of_the_packaged_models_is_readable() -> None:
    found = read_split_file(str(packaged.SONGS))
    assert len(found) == 6_333
    assert set(found.values()) == set(SPLITS)


def stop_at_the_end(
    monkeypatch: pytest.MonkeyPatch, collection: pathlib.Path, output: pathlib.Path
) -> None:
    """Interrupt a run when all is converted and the store is half written."""

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "write_manifest", interrupted)
        with pytest.raises(KeyboardInterrupt, match="stopped"):
            run(collection, output)


def test_what_was_converted_is_used_only_for_files_still_there(
    versions_of_songs: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    place = tmp_path / "versions"
    shutil.copytree(versions_of_songs, place)
    stop_at_the_end(monkeypatch, place, tmp_path / "out")
    for path in place.glob("1*.mid"):
        path.unlink()
    shutil.copy(versions_of_songs / "11-0.mid", place / "new.mid")
    shutil.copy(versions_of_songs / "2-0.mid", place / "again.mid")
    run(place, tmp_path / "out")
    assert "resuming: 45 files are already converted" in capsys.readouterr().err
    run(place, tmp_path / "direct")
    assert content(tmp_path / "out") == content(tmp_path / "direct")
    assert not (tmp_path / ".out.unfinished").exists()


def test_other_options_begin_anew(
    versions_of_songs: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    stop_at_the_end(monkeypatch, versions_of_songs, tmp_path / "out")
    run(versions_of_songs, tmp_path / "out", meter="any", split_by="file")
    assert "starting over: the interrupted run had different options" in capsys.readouterr().err
    run(versions_of_songs, tmp_path / "direct", meter="any", split_by="file")
    assert content(tmp_path / "out") == content(tmp_path / "direct")

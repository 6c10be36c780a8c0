from __future__ import annotations

import json
import pathlib

import pytest

from musicvae_jax.storage import checksums


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"abc")
    (tmp_path / "two").write_bytes(b"")
    checksums.write(tmp_path)
    return tmp_path


def test_each_file_has_its_sha256(folder: pathlib.Path) -> None:
    listed = json.loads((folder / checksums.CHECKSUMS).read_text())
    assert listed == {
        "sha256": {
            # of "abc", FIPS 180-2 appendix B.1, and of nothing
            "a/one": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "two": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        }
    }
    assert checksums.fault(folder) is None
    checksums.write(folder)
    assert json.loads((folder / checksums.CHECKSUMS).read_text()) == listed


def test_what_is_wrong_is_named(folder: pathlib.Path) -> None:
    (folder / "a" / "one").write_bytes(b"abd")
    assert checksums.fault(folder) == "damaged, a/one is not what was written"
    (folder / "a" / "one").unlink()
    assert checksums.fault(folder) == "half-written, a/one is missing"
    for text in ("", "[]", '{"sha256": 1}', '{"sha'):
        (folder / checksums.CHECKSUMS).write_text(text)
        assert checksums.fault(folder) == "damaged, checksums.json cannot be read"
    (folder / checksums.CHECKSUMS).unlink()
    assert checksums.fault(folder) == "half-written, it has no checksums.json"

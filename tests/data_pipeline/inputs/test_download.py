"""Downloads against a server on loopback: resumed, checked, or refused in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import http.server
import io
import json
import pathlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from data_pipeline.inputs import corpora, download, sources
from data_pipeline.inputs.download import Remote, default_cache, fetch
from musicvae_jax.config import InputError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclasses.dataclass
class Behaviour:
    """What the server does, and what it was asked.

    Attributes:
      content: what it has.
      tag: its ETag.
      cut_after: bytes of each answer until the connection is cut; None never.
      ranges: whether it answers with parts.
      status: of every answer, or None for the right one.
      says_length: whether it states a Content-Length.
      asked: the Range header of each request.
    """

    content: bytes = CONTENT
    tag: str = '"one"'
    cut_after: int | None = None
    ranges: bool = True
    status: int | None = None
    says_length: bool = True
    asked: list[str | None] = dataclasses.field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file as its server's behaviour says."""

    def do_GET(self) -> None:
        """Answer a request."""
        how: Behaviour = vars(self.server)["behaviour"]
        asked = self.headers["Range"]
        how.asked.append(asked)
        if how.status is not None:
            self.send_error(how.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and how.ranges else 0
        if self.headers["If-Range"] not in (None, how.tag):
            start = 0
        if start >= len(how.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            last = len(how.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(how.content)}")
        if how.says_length:
            self.send_header("Content-Length", str(len(how.content) - start))
        self.send_header("ETag", how.tag)
        self.end_headers()
        end = None if how.cut_after is None else start + how.cut_after
        with contextlib.suppress(ConnectionError):  # who asked may have gone
            self.wfile.write(how.content[start:end])

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def _direct_and_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Behaviour]]:
    """A server's address and its behaviour."""
    monkeypatch.setattr(download, "_SPARE_BYTES", 0)
    behaviour = Behaviour()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        vars(running)["behaviour"] = behaviour
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/music.zip", behaviour
        running.shutdown()
        thread.join()


def remote(url: str, sha256: str | None = SHA256, size: int | None = len(CONTENT)) -> Remote:
    """Describe the server's file."""
    return Remote(url, "music.zip", size, sha256)


def names(folder: pathlib.Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(server: tuple[str, Behaviour], tmp_path: pathlib.Path) -> None:
    url, how = server
    path = fetch(remote(url), tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert fetch(remote(url), tmp_path / "cache") == path
    assert how.asked == [None]
    assert names(tmp_path / "cache") == ["music.zip", "music.zip.json"]
    record = json.loads((tmp_path / "cache" / "music.zip.json").read_text())
    assert record == {"url": url, "size": 3_000_000, "sha256": SHA256, "checksum": "stated"}


def test_a_cut_connection_is_resumed(server: tuple[str, Behaviour], tmp_path: pathlib.Path) -> None:
    url, how = server
    how.cut_after = 1_200_000
    assert fetch(remote(url), tmp_path).read_bytes() == CONTENT
    assert how.asked == [None, "bytes=1200000-", "bytes=2400000-"]


def test_the_next_run_resumes(server: tuple[str, Behaviour], tmp_path: pathlib.Path) -> None:
    url, how = server
    how.cut_after, how.tag = 1_000_000, '"two"'
    (tmp_path / "music.zip.part").write_bytes(CONTENT[:500_000])
    (tmp_path / "music.zip.part.tag").write_text('"two"')
    assert fetch(remote(url), tmp_path).read_bytes() == CONTENT
    assert how.asked[0] == "bytes=500000-"


def test_another_version_begins_anew(server: tuple[str, Behaviour], tmp_path: pathlib.Path) -> None:
    url, how = server
    (tmp_path / "music.zip.part").write_bytes(b"old" * 1000)
    (tmp_path / "music.zip.part.tag").write_text('"old"')
    assert fetch(remote(url), tmp_path).read_bytes() == CONTENT
    assert how.asked == ["bytes=3000-"]


def test_a_server_without_ranges_or_lengths(
    server: tuple[str, Behaviour], tmp_path: pathlib.Path
) -> None:
    url, how = server
    how.ranges = how.says_length = False
    (tmp_path / "music.zip.part").write_bytes(CONTENT[:500_000])
    assert fetch(remote(url, size=None), tmp_path).read_bytes() == CONTENT


def test_what_is_longer_than_the_file_begins_anew(
    server: tuple[str, Behaviour], tmp_path: pathlib.Path
) -> None:
    url, how = server
    (tmp_path / "music.zip.part").write_bytes(bytes(len(CONTENT) + 1))
    assert fetch(remote(url), tmp_path).read_bytes() == CONTENT
    assert how.asked == ["bytes=3000001-", None]


def test_a_wrong_checksum_deletes_what_came(
    server: tuple[str, Behaviour], tmp_path: pathlib.Path
) -> None:
    url, how = server
    how.content = CONTENT[:-1] + b"?"
    with pytest.raises(InputError, match=f"has the wrong checksum: .* expected {SHA256} .stated"):
        fetch(remote(url), tmp_path)
    assert not (tmp_path / "music.zip").exists()
    how.content = CONTENT
    assert fetch(remote(url), tmp_path).read_bytes() == CONTENT


def test_an_unstated_checksum_is_that_of_the_first_download(
    server: tuple[str, Behaviour], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    url, how = server
    path = fetch(remote(url, None, None), tmp_path)
    assert f"music.zip: no checksum is published; its sha256 is {SHA256}" in capsys.readouterr().err
    path.unlink()
    how.content = CONTENT + b"more"
    with pytest.raises(InputError, match=r"wrong checksum: .* \(first download\)"):
        fetch(remote(url, None, None), tmp_path)


@pytest.mark.parametrize(("status", "times"), [(404, 1), (503, 5)])
def test_a_missing_file_is_reported(
    server: tuple[str, Behaviour], tmp_path: pathlib.Path, status: int, times: int
) -> None:
    url, how = server
    how.status = status
    with pytest.raises(InputError, match=f"music.zip cannot be downloaded: {status} .*--input"):
        fetch(remote(url), tmp_path)
    assert len(how.asked) == times


def test_a_server_that_does_not_answer_is_reported(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"downloaded: .*refused.*; run the same command"):
        fetch(remote("http://127.0.0.1:1/music.zip"), tmp_path)


def test_a_disk_without_room_is_seen_before(
    server: tuple[str, Behaviour], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, how = server
    how.cut_after = 1_000_000
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_500_000))
    message = "music.zip needs 0.00 GiB free in .*, there are 0.00: free some or choose another"
    with pytest.raises(InputError, match=message):
        fetch(remote(url), tmp_path)
    assert (tmp_path / "music.zip.part").stat().st_size == 0


class FullDisk(io.FileIO):
    """A file on a disk with little room."""

    def write(self, octets: Any) -> int:
        """Write up to two megabytes."""
        if self.seek(0, io.SEEK_END) + len(octets) > 2_500_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(octets)


def test_a_disk_that_fills_up_keeps_what_came(
    server: tuple[str, Behaviour], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, how = server

    @contextlib.contextmanager
    def full(path: pathlib.Path, remote: Remote) -> Iterator[FullDisk]:
        with FullDisk(str(path), "ab+") as part:
            yield part

    with monkeypatch.context() as patched:
        patched.setattr(download, "_locked", full)
        with pytest.raises(InputError, match=r"the disk of .* is full; free some and run the same"):
            fetch(remote(url), tmp_path)
    left = (tmp_path / "music.zip.part").read_bytes()
    assert 1_000_000 < len(left) < 2_500_000
    assert fetch(remote(url), tmp_path).read_bytes() == CONTENT
    assert how.asked == [None, f"bytes={len(left)}-"]


def test_two_downloads_do_not_meet(tmp_path: pathlib.Path) -> None:
    file = remote("http://127.0.0.1:1/")
    with (
        download._locked(tmp_path / "music.zip.part", file),
        pytest.raises(InputError, match=r"another process is downloading music\.zip"),
    ):
        fetch(file, tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/a cannot be written: Not a directory"):
        fetch(remote("http://127.0.0.1:1/"), tmp_path / "file" / "a")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert default_cache() == pathlib.Path("/some/where/musicvae_jax")


def test_a_downloaded_corpus_is_read(
    server: tuple[str, Behaviour],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    url, how = server
    archive = tmp_path / "made"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mid").write_bytes(b"a")
    how.content = pathlib.Path(
        shutil.make_archive(str(archive), "zip", tmp_path / "in")
    ).read_bytes()
    there = dataclasses.replace(
        corpora.CORPORA["groove"], remote=Remote(url, "groove.zip", None, None)
    )
    monkeypatch.setitem(corpora.CORPORA, "groove", there)
    (source,) = sources.open_sources([], ["groove"], str(tmp_path / "cache"))
    (entry,) = sources.entries(source)
    assert (entry.name, entry.data) == ("groove/a.mid", b"a")
    assert source.corpus == there
    assert "groove: licence CC BY 4.0" in capsys.readouterr().err


def test_stated_addresses_and_checksums() -> None:
    remotes = {name: c.remote for name, c in corpora.CORPORA.items() if c.remote is not None}
    assert set(remotes) == {"lakh_full", "lakh_matched", "lakh_clean", "groove", "pop909"}
    assert len({r.url for r in remotes.values()}) == len({r.name for r in remotes.values()}) == 5
    for name, found in remotes.items():
        assert found.name.endswith((".tar.gz", ".zip"))
        assert (found.sha256 is None) == (name == "pop909")
        assert found.sha256 is None or len(bytes.fromhex(found.sha256)) == 32

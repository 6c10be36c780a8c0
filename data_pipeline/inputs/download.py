"""Download files into a cache folder: resume interrupted downloads, verify complete ones."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, BinaryIO

from data_pipeline.progress_bar import progress_bar
from musicvae_jax.config import InputError

_ATTEMPTS = 5  # without a byte of progress
_PAUSE_SECONDS = 2.0
_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 2**20
_SPARE_BYTES = 2**28  # of disk, left free

_CUT = (OSError, http.client.HTTPException)


@dataclasses.dataclass(frozen=True)
class Remote:
    """A file on the web.

    Attributes:
      url: where it is.
      name: what it is called in the cache.
      size: in bytes; None when unknown.
      sha256: hexadecimal; None if none is published: the first download's is kept.
    """

    url: str
    name: str
    size: int | None
    sha256: str | None


def default_cache() -> pathlib.Path:
    """Return the user's cache folder for corpora."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(root) / "musicvae_jax"


def fetch(remote: Remote, folder: pathlib.Path) -> pathlib.Path:
    """Return the file in the cache, downloaded if it is not there yet.

    An interrupted download resumes where it stopped, in this call or the next one.

    Raises:
      InputError: it cannot be downloaded, has a wrong checksum, or the disk is too full.
    """
    path = folder / remote.name
    if _is_complete(path):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{remote.name}.part", remote) as part:
            if not _is_complete(path):
                _download(remote, part)
                record = _check(remote, part, path)
                _record_path(path).write_text(json.dumps(record, indent=1) + "\n")
                os.rename(part.name, path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise InputError(f"corpus: {folder} cannot be written: {error.strerror}") from error
        raise InputError(
            f"corpus: the disk of {folder} is full; free some and run the same command "
            "again, or choose another --cache_dir"
        ) from error
    return path


def _record_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.json")


def _is_complete(path: pathlib.Path) -> bool:
    """Tell whether a file was downloaded completely, in which case its checksum was verified."""
    try:
        record = json.loads(_record_path(path).read_text())
        return path.stat().st_size == int(record["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def _locked(path: pathlib.Path, remote: Remote) -> Iterator[BinaryIO]:
    """Open the unfinished file; no two processes write to it."""
    with path.open("ab+") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"corpus: another process is downloading {remote.name}") from None
        yield part


def _download(remote: Remote, part: BinaryIO) -> None:
    """Complete the unfinished file; retry as long as data arrives."""
    left, problem = _ATTEMPTS, ""
    while left:
        before = part.seek(0, os.SEEK_END)
        try:
            if _receive(remote, part):
                return
            problem = "the connection was cut"
        except urllib.error.HTTPError as error:
            problem = f"{error.code} {error.reason}"
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.truncate(0)  # what we have is not what is there now
            elif error.code < 500:
                break
        except _CUT as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            problem = str(getattr(error, "reason", "") or error) or type(error).__name__
        left = _ATTEMPTS if part.seek(0, os.SEEK_END) > before else left - 1
        time.sleep(_PAUSE_SECONDS if left else 0)
    raise InputError(
        f"corpus: {remote.url} cannot be downloaded: {problem}; run the same command "
        f"again to resume, or get {remote.name} in another way and pass it with --input"
    )


def _receive(remote: Remote, part: BinaryIO) -> bool:
    """Request the missing bytes and write them; tell whether the file is complete."""
    have = part.seek(0, os.SEEK_END)
    if have and have == remote.size:
        return True
    request = urllib.request.Request(remote.url, headers={"User-Agent": "musicvae-jax"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        with contextlib.suppress(OSError):
            if tag := _tag_path(part).read_text():
                request.add_header("If-Range", tag)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        begins = str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT or not begins:
            part.truncate(0)
            have = 0
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        # Weak ETags do not distinguish versions.
        _tag_path(part).write_text("" if tag.startswith("W/") else tag)
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        _check_space(remote, part, (total or remote.size or 0) - have)
        settings: dict[str, Any] = {"desc": remote.name, "unit": "B", "unit_scale": True}
        with progress_bar(initial=have, total=total or remote.size, **settings) as bar:
            while chunk := answer.read(_CHUNK_BYTES):
                part.write(chunk)
                part.flush()
                bar.update(len(chunk))
    # Without a Content-Length, the end of the response is the end of the file.
    return total is None or part.seek(0, os.SEEK_END) >= total


def _tag_path(part: BinaryIO) -> pathlib.Path:
    """Return the file with the identifier (ETag or date) of the partly downloaded version."""
    return pathlib.Path(f"{part.name}.tag")


def _check_space(remote: Remote, part: BinaryIO, missing: int) -> None:
    folder = pathlib.Path(part.name).parent
    free = shutil.disk_usage(folder).free
    if missing + _SPARE_BYTES > free:
        needed = (missing + _SPARE_BYTES) / 2**30
        raise InputError(
            f"corpus: {remote.name} needs {needed:.2f} GiB free in {folder}, there are "
            f"{free / 2**30:.2f}: free some or choose another --cache_dir"
        )


def _check(remote: Remote, part: BinaryIO, path: pathlib.Path) -> dict[str, Any]:
    """Compare size and checksum with the published ones, otherwise with the first download's.

    Returns:
      What to keep beside the file.
    """
    with open(part.name, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    size = part.seek(0, os.SEEK_END)
    expected, by = remote.sha256, "stated"
    if expected is None:
        by = "first download"
        with contextlib.suppress(OSError, ValueError, KeyError):
            expected = json.loads(_record_path(path).read_text())["sha256"]
    if expected is not None and found != expected:
        part.truncate(0)
        raise InputError(
            f"corpus: {remote.url} has the wrong checksum: sha256 {found} ({size:,} bytes), "
            f"expected {expected} ({by}); the download was deleted"
        )
    if remote.sha256 is None:
        print(f"{remote.name}: no checksum is published; its sha256 is {found}", file=sys.stderr)
    _tag_path(part).unlink(missing_ok=True)
    return {"url": remote.url, "size": size, "sha256": found, "checksum": by}

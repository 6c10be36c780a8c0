"""Files inside tar and zip archives, read one after the other without unpacking.

A damaged archive yields the files that can be read and one entry that names the archive.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import io
import lzma
import mmap
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from data_pipeline.reading.notes import MUSIC_SUFFIXES

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVE_ENDINGS = (*TAR_ENDINGS, ".zip")

# Larger files are not songs, and reading them would only cost memory.
MAX_FILE_BYTES = 64 * 2**20

NOT_MUSIC = "not a music file"
FOLDER = "a folder, not a file"
LINK = "a link, not a file"
TOO_LARGE = f"larger than {MAX_FILE_BYTES // 2**20} MiB"
DAMAGED_ARCHIVE = "damaged archive"
DAMAGED_MEMBER = "damaged inside its archive"
NESTED = "an archive inside an archive"
ENCRYPTED = "encrypted"

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file of an input, or the reason why it is skipped.

    Attributes:
      name: path inside the input, beginning with the input's own name.
      data: the file's bytes; None when it is skipped.
      reason: why it is skipped, a short fixed text; None if it is read.
      detail: the exact problem.
      position: bytes of the input read so far, for showing progress.
    """

    name: str
    data: bytes | None = None
    reason: str | None = None
    detail: str = ""
    position: int = 0


def is_music(name: str) -> bool:
    """Tell by its extension, in any letter case, whether a file may contain notes."""
    return name.lower().endswith(MUSIC_SUFFIXES)


def is_archive(name: str) -> bool:
    """Tell by its extension, in any letter case, whether a file is a supported archive."""
    return name.lower().endswith(ARCHIVE_ENDINGS)


def without_ending(name: str) -> str:
    """Return the name of an archive without its extension, other names as they are."""
    return next((name[: -len(e)] for e in ARCHIVE_ENDINGS if name.lower().endswith(e)), name)


def printable(name: str) -> str:
    """Write a file name so that it can be printed and stored, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def archive_entries(path: str, name: str) -> Iterator[Entry]:
    """Yield the files of an archive in stored order; `name` is put before their own names."""
    if os.path.getsize(path) == 0:
        yield Entry(name, reason=DAMAGED_ARCHIVE, detail="empty file")
    elif path.lower().endswith(".zip"):
        yield from _zip_entries(path, name)
    else:
        yield from _tar_entries(path, name)


def read_limited(stream: IO[bytes], name: str, position: int = 0) -> Entry:
    """Read a file of at most `MAX_FILE_BYTES`; a larger one is skipped unread."""
    data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        return Entry(name, reason=TOO_LARGE, position=position)
    return Entry(name, data, position=position)


def _refusal(name: str, is_folder: bool, is_file: bool) -> str | None:
    """Return why a member is not read; folders are reported only if named like music files."""
    if is_folder:
        return FOLDER
    if is_archive(name):
        return NESTED
    if not is_music(name):
        return NOT_MUSIC
    return None if is_file else LINK


class _Member(tarfile.TarInfo):
    """A tar member that records how the archive ended: `tarfile` treats damage as the end."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Member:
        """Read the next header; the last error stays on the archive as `ending`."""
        try:
            return super().fromtarfile(tarfile)
        except Exception as error:
            vars(tarfile)["ending"] = str(error)
            raise


class _Salvaging(io.BufferedIOBase):
    """A compressed stream that returns all readable data before it raises an error."""

    def __init__(self, stream: gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile) -> None:
        super().__init__()
        self._stream = stream
        self._error: Exception | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer at the end or before the damage."""
        wanted = 2**20 if size is None or size < 0 else size
        parts: list[bytes] = []
        while wanted and self._error is None:
            try:
                part = self._stream.read1(wanted)
            except _DAMAGE as error:
                self._error = error
                break
            if not part:
                break
            parts.append(part)
            wanted -= len(part)
        if self._error is not None and not parts:
            raise self._error
        return b"".join(parts)


def _decompressed(raw: IO[bytes]) -> IO[bytes] | _Salvaging:
    """Decompress a stream according to its first bytes and verify its checksum."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return _Salvaging(gzip.GzipFile(fileobj=raw))
    if magic.startswith(b"BZh"):
        return _Salvaging(bz2.BZ2File(raw))
    if magic.startswith(b"\xfd7zXZ\x00"):
        return _Salvaging(lzma.LZMAFile(raw))
    return raw


def _tar_entries(path: str, name: str) -> Iterator[Entry]:
    with open(path, "rb") as raw:
        stream = _decompressed(raw)
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
                yield from _tar_members(archive, name, raw)
                ending = vars(archive).get("ending", "")
            if ending != "end of file header":
                detail = f"cut short or damaged ({ending})"
                yield Entry(name, reason=DAMAGED_ARCHIVE, detail=detail, position=raw.tell())
            while stream.read(2**20):
                pass  # the checksum stands at the very end
        except _DAMAGE as error:
            yield Entry(name, reason=DAMAGED_ARCHIVE, detail=str(error), position=raw.tell())


def _tar_members(archive: tarfile.TarFile, name: str, raw: IO[bytes]) -> Iterator[Entry]:
    for member in archive:
        full = f"{name}/{printable(member.name)}"
        reason = _refusal(member.name, member.isdir(), member.isreg())
        if reason is None and member.size > MAX_FILE_BYTES:
            reason = TOO_LARGE
        stream = archive.extractfile(member) if reason is None else None
        if stream is not None:
            yield read_limited(stream, full, raw.tell())
        elif reason != FOLDER or is_music(member.name):
            yield Entry(full, reason=reason, position=raw.tell())


def _zip_entries(path: str, name: str) -> Iterator[Entry]:
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        # A zip without its central directory is still a sequence of members.
        yield Entry(name, reason=DAMAGED_ARCHIVE, detail=str(error))
        yield from _scan_zip(path, name)
        return
    with archive:
        position = 0
        for info in archive.infolist():
            position += info.compress_size
            entry = _zip_member(archive, info, f"{name}/{printable(info.filename)}", position)
            if entry.reason != FOLDER or is_music(info.filename.rstrip("/")):
                yield entry


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, position: int) -> Entry:
    reason = _refusal(info.filename, info.is_dir(), True)
    if reason is None and info.flag_bits & 1:
        reason = ENCRYPTED
    if reason is not None:
        return Entry(name, reason=reason, position=position)
    try:
        with archive.open(info) as stream:
            return read_limited(stream, name, position)
    # zipfile raises NotImplementedError for a compression that it does not know.
    except (*_DAMAGE, NotImplementedError, RuntimeError) as error:
        return Entry(name, reason=DAMAGED_MEMBER, detail=str(error), position=position)


_ZIP_HEADER = struct.Struct("<4s5H3I2H")  # signature ... method ... crc, sizes, two lengths


def _scan_zip(path: str, name: str) -> Iterator[Entry]:
    """Yield the members of a zip by their own headers, in file order."""
    with open(path, "rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as view:
        at = view.find(b"PK\x03\x04")
        while 0 <= at <= len(view) - _ZIP_HEADER.size:
            fields = _ZIP_HEADER.unpack_from(view, at)
            flags, method, crc, packed, name_size, extra_size = (
                fields[i] for i in (2, 3, 6, 7, 9, 10)
            )
            start = at + _ZIP_HEADER.size + name_size
            member = view[at + _ZIP_HEADER.size : start].decode("utf-8", "backslashreplace")
            start += extra_size
            reason = _refusal(member, member.endswith("/"), True)
            full = f"{name}/{member}"
            if reason is None and flags & 1:
                reason = ENCRYPTED
            if reason is None:
                data = _zip_data(view, start, packed, method)
                checked = data is not None and (flags & 8 or zlib.crc32(data) == crc)
                reason = None if checked else DAMAGED_MEMBER
                yield Entry(full, data if checked else None, reason, position=start)
            elif reason != FOLDER:
                yield Entry(full, reason=reason, position=start)
            at = view.find(b"PK\x03\x04", max(start + packed, at + 4))


def _zip_data(view: mmap.mmap, start: int, packed: int, method: int) -> bytes | None:
    """Return the bytes of a member; None if damaged, too large or of unknown compression."""
    if method == 0:
        data = view[start : start + min(packed, MAX_FILE_BYTES)]
        return data if len(data) == packed else None
    inflate = zlib.decompressobj(-15)
    try:
        data = inflate.decompress(view[start : start + MAX_FILE_BYTES], MAX_FILE_BYTES)
    except zlib.error:
        return None
    return data if method == 8 and inflate.eof else None

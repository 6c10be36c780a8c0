"""Finished conversions on disk, so that an interrupted run resumes.

A record is the outcome of one file or tune. Its rows are appended to one spool per kind of row,
before the record. Each record has its length and checksums of itself and of its rows. Whenever the
process is killed, all records before the first damaged one are valid.
"""

from __future__ import annotations

import array
import json
import pathlib
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

Key = tuple[str, str]

_HEAD = struct.Struct("<II")  # length of the text, its CRC-32
_FLUSH_SECONDS = 0.25
_MAX_RECORD = 2**28


class Spool:
    """A file of rows of one kind, in the order of their records.

    Attributes:
      counts: rows of each record.
      file: the open file.
    """

    def __init__(self, path: pathlib.Path, dtype: str, row_shape: tuple[int, ...]) -> None:
        self.counts = array.array("q")
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._shape = row_shape
        self._path = path
        self.file = path.open("ab+")

    def append(self, rows: np.ndarray) -> int:
        """Add the rows [N, *row_shape] of the next record; return their checksum."""
        octets = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        self.file.write(octets)
        self.counts.append(len(rows))
        return zlib.crc32(octets)

    def recover(self, count: int, checksum: int) -> bool:
        """Accept the next rows of an existing file as those of one record, if they are complete."""
        octets = self.file.read(count * self._row_bytes)
        if len(octets) != count * self._row_bytes or zlib.crc32(octets) != checksum:
            return False
        self.counts.append(count)
        return True

    def cut(self) -> None:
        """Delete everything after the rows of the last record."""
        self.file.flush()
        self.file.truncate(sum(self.counts) * self._row_bytes)
        self.file.seek(0, 2)

    def rows(self) -> np.ndarray:
        """Return all rows so far, memory-mapped [N, *row_shape]."""
        self.file.flush()
        shape = (sum(self.counts), *self._shape)
        if not shape[0]:  # an empty file cannot be mapped
            return np.zeros(shape, self._dtype)
        return np.memmap(self._path, self._dtype, "r", shape=shape)

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize


class Journal:
    """Records and their rows in a folder; continues those of an interrupted process.

    Attributes:
      records: the facts of each record and its numbers of rows.
      spools: rows by kind.
      num_found: valid records of an interrupted process.
      discarded: an interrupted process had another header, so its records were deleted.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        kinds: Mapping[str, tuple[str, tuple[int, ...]]],
        header: Mapping[str, Any],
    ) -> None:
        """Open a journal, or start one.

        Args:
          folder: existing folder of the journal.
          kinds: for each kind of row its dtype and shape.
          header: the options that determine the records; JSON values.
        """
        self.records: list[dict[str, Any]] = []
        self.discarded = False
        self._header = json.loads(json.dumps(header))
        self._place: dict[Key, int] = {}
        self._file = (folder / "journal").open("ab+")
        self.spools = {name: Spool(folder / f"{name}.spool", *kind) for name, kind in kinds.items()}
        self._recover()
        self.num_found = len(self.records)
        self._flushed = time.monotonic()

    def _recover(self) -> None:
        """Read the valid records and delete everything after them."""
        self._file.seek(0)
        for spool in self.spools.values():
            spool.file.seek(0)
        texts = _texts(self._file)
        header, end = next(texts, (None, 0))
        if header != self._header:
            self.discarded = header is not None
            texts, end = iter(()), 0
        for record, position in texts:
            rows, checksums = record["rows"], record["checksums"]
            whole = [s.recover(rows[n], checksums[n]) for n, s in self.spools.items()]
            if not all(whole):
                for spool, taken in zip(self.spools.values(), whole, strict=True):
                    if taken:
                        spool.counts.pop()
                break
            self._remember(record)
            end = position
        self._file.truncate(end)
        self._file.seek(0, 2)
        for spool in self.spools.values():
            spool.cut()
        if not end:
            self._write(self._header)

    def find(self, key: Key) -> int | None:
        """Return the number of the record of a file, or None."""
        return self._place.get(key)

    def add(self, key: Key, rows: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> int:
        """Add a record; return its number.

        Args:
          key: the file's md5 and kind.
          rows: [N, *row_shape] of each kind; a kind that is missing has none.
          facts: JSON values.
        """
        counts, checksums = {}, {}
        for name, spool in self.spools.items():
            part = rows.get(name)
            counts[name] = 0 if part is None else len(part)
            checksums[name] = 0 if part is None else spool.append(part)
            if part is None:
                spool.counts.append(0)
        record = {"key": key, "rows": counts, "checksums": checksums, "facts": facts}
        self._write(record)
        number = self._remember(record)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()
        return number

    def flush(self) -> None:
        """Write all buffers: rows first, so that no record lacks its rows."""
        for spool in self.spools.values():
            spool.file.flush()
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Close all files without deleting them."""
        try:
            self.flush()
        finally:
            for spool in self.spools.values():
                spool.file.close()
            self._file.close()

    def _remember(self, record: Mapping[str, Any]) -> int:
        md5, kind = record["key"]
        self._place[md5, kind] = len(self.records)
        self.records.append({"rows": record["rows"], **record["facts"]})
        return len(self.records) - 1

    def _write(self, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, separators=(",", ":")).encode("ascii")
        self._file.write(_HEAD.pack(len(text), zlib.crc32(text)) + text)


def _texts(stream: IO[bytes]) -> Iterator[tuple[Any, int]]:
    """Yield each whole record and the position after it, up to the first damaged one."""
    position = 0
    while len(head := stream.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        text = stream.read(length) if length <= _MAX_RECORD else b""
        if len(text) != length or zlib.crc32(text) != checksum:
            return
        position += _HEAD.size + length
        yield json.loads(text), position

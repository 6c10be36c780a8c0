"""Checksums of a folder's files, to detect damaged or incomplete ones.

`checksums.json` has the SHA-256 of every other file in a folder and is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

CHECKSUMS = "checksums.json"


def write(folder: pathlib.Path, known: Mapping[str, str] | None = None) -> None:
    """Write the checksums of all files below a folder atomically.

    Args:
      folder: where the files are.
      known: file, relative to the folder, to its SHA-256 as it was computed while the file was
        written; these files are not read.
    """
    digests = {str(path.relative_to(folder)): "" for path in _files(folder)}
    for name in digests:
        digests[name] = (known or {}).get(name) or _digest(folder / name)
    partial = folder / (CHECKSUMS + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump({"sha256": digests}, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, folder / CHECKSUMS)


def fault(folder: pathlib.Path, without: str | None = None) -> str | None:
    """Describe what is wrong with a folder that has checksums, or return None.

    Args:
      folder: where `write` was called.
      without: a folder in it whose files are not read.
    """
    try:
        listed = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))["sha256"].items()
    except FileNotFoundError:
        return f"half-written, it has no {CHECKSUMS}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"damaged, {CHECKSUMS} cannot be read"
    for name, expected in listed:
        if without is not None and pathlib.PurePath(name).parts[0] == without:
            continue
        path = folder / name
        if not path.is_file():
            return f"half-written, {name} is missing"
        if _digest(path) != expected:
            return f"damaged, {name} is not what was written"
    return None


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """List the files to compute checksums of."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not path.name.startswith(CHECKSUMS))


def _digest(path: pathlib.Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

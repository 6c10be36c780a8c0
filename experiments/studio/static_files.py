"""The page's files: read once at the start, so that no request reaches the disk."""

from __future__ import annotations

import gzip
import hashlib
import os
import pathlib
from typing import NamedTuple

SOUNDFONT = "/soundfont"  # the one path of the file that --soundfont names
FOLDER = pathlib.Path(__file__).parent
INDEX = "static/index.html"
# Of everything else nothing is served: licences and manifests are for readers of the repository.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}


class StaticFile(NamedTuple):
    """A file as it is sent: its content, the same compressed or None, its media type and a hash."""

    content: bytes
    compressed: bytes | None
    media_type: str
    etag: str


def load(
    folder: pathlib.Path = FOLDER, soundfont: str | os.PathLike[str] | None = None
) -> dict[str, StaticFile]:
    """Read the folders `static` and `vendor`: path of a request to file, "/" for the page.

    Args:
      folder: where the two folders are.
      soundfont: file to serve as `SOUNDFONT`; not compressed, which would take seconds.
    """
    found = {}
    for path in sorted([*(folder / "static").rglob("*"), *(folder / "vendor").rglob("*")]):
        if path.is_file() and path.suffix in MEDIA_TYPES:
            content = path.read_bytes()
            compressed = gzip.compress(content, mtime=0)
            file = StaticFile(content, compressed, MEDIA_TYPES[path.suffix], _etag(content))
            found[f"/{path.relative_to(folder).as_posix()}"] = file
    if f"/{INDEX}" in found:
        found["/"] = found[f"/{INDEX}"]
    if soundfont is not None:
        content = pathlib.Path(soundfont).read_bytes()
        found[SOUNDFONT] = StaticFile(content, None, "application/octet-stream", _etag(content))
    return found


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'

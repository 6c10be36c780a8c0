"""The page's files: read once at the start, so that no request reaches the disk."""

from __future__ import annotations

import gzip
import hashlib
import pathlib
from typing import NamedTuple

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
    """A file as it is sent: its content, the same compressed, its media type and a hash."""

    content: bytes
    compressed: bytes
    media_type: str
    etag: str


def load(folder: pathlib.Path = FOLDER) -> dict[str, StaticFile]:
    """Read the folders `static` and `vendor`: path of a request to file, "/" for the page."""
    found = {}
    for path in sorted([*(folder / "static").rglob("*"), *(folder / "vendor").rglob("*")]):
        if path.is_file() and path.suffix in MEDIA_TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            compressed = gzip.compress(content, mtime=0)
            file = StaticFile(content, compressed, MEDIA_TYPES[path.suffix], etag)
            found[f"/{path.relative_to(folder).as_posix()}"] = file
    if f"/{INDEX}" in found:
        found["/"] = found[f"/{INDEX}"]
    return found

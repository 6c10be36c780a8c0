"""Write files that appear under their name only once they are complete."""

from __future__ import annotations

import os
import pathlib


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write to a temporary name beside the file, then rename."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

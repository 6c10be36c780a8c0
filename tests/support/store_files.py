"""What two stores have in common when they were made in different ways."""

from __future__ import annotations

import pathlib

from data_pipeline.selection.store import RUN


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Return the bytes of all files of a store that must not depend on how it was made."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != RUN]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}

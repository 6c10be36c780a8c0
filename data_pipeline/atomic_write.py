"""Write files that appear under their name only once they are complete."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Mapping

import numpy as np


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write to a temporary name beside the file, then rename.

    Raises:
      OSError: the file cannot be written; it names the file.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        # Errors of a full disk come without the file's name.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as an .npz file.

    Raises:
      OSError: see `write_whole`.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue())

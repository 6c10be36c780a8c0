"""Checks of the folder that a command will write, before it computes."""

from __future__ import annotations

import os
import pathlib

from musicvae_jax.config import InputError


def check_writable(path: str | pathlib.Path, flag: str) -> pathlib.Path:
    """Return the folder, which need not exist yet, if files can be written there.

    Raises:
      InputError: it is a file, or it cannot be written; the message begins with `flag`.
    """
    folder = pathlib.Path(path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{flag}: {folder} is a file, it must be a folder")
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        raise InputError(f"{flag}: {folder} cannot be written, {existing} is read-only")
    return folder

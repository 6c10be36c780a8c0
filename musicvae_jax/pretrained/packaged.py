"""The models of this package by name."""

from __future__ import annotations

import pathlib

from musicvae_jax.config import InputError

FOLDER = pathlib.Path(__file__).resolve().parent
SUFFIX = ".safetensors"
# The split of every file that the models were trained on or tested with, for prepare --split_file.
SONGS = FOLDER / "splits" / "songs.json.gz"


def names() -> list[str]:
    """List the models by name."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def path_of(name: str) -> pathlib.Path:
    """Return the file of a model.

    Raises:
      InputError: there is no such model; the message lists those there are.
    """
    if name not in names():
        known = ", ".join(names()) or "none"
        raise InputError(f"model: there is no {name!r} in this package; there are: {known}")
    return FOLDER / f"{name}{SUFFIX}"


def card_of(name: str) -> pathlib.Path:
    """Return the card of a model: its data, its licences and its scores.

    Raises:
      InputError: there is no such model.
    """
    return path_of(name).with_suffix(".md")

"""Initialise a model from the parameters of another, as far as they fit.

An array fits when it has the name and the shape of the new model's. One of as many numbers in
another shape is reshaped. All else starts as drawn for a new run: rows and columns of an LSTM
kernel mean other things when a size changes, so that nothing is cut or padded.
"""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import numpy as np

from musicvae_jax.config import Config, InputError
from musicvae_jax.storage import checkpoints

Tree = Any


class Report(NamedTuple):
    """What became of each array; names are paths in the tree, "encoder/mu/kernel".

    Attributes:
      taken: as they were.
      reshaped: names with "(old shape) -> (new shape)".
      new: of the new model alone, or of another shape, with the reason.
      left: of the old model alone.
    """

    taken: tuple[str, ...]
    reshaped: dict[str, str]
    new: dict[str, str]
    left: tuple[str, ...]

    def lines(self) -> list[str]:
        """Write the report, a line for each array that was not simply taken."""
        found = [
            f"taken {len(self.taken)} arrays, reshaped {len(self.reshaped)}, "
            f"new {len(self.new)}, left {len(self.left)}"
        ]
        found += [f"  reshaped {name}: {how}" for name, how in self.reshaped.items()]
        found += [f"  new {name}: {why}" for name, why in self.new.items()]
        return found + [f"  left {name}: the new model has none" for name in self.left]


def take_over(params: Tree, old: Tree) -> tuple[Tree, Report]:
    """Put the old model's arrays into a new model's parameters, where they fit.

    Args:
      params: of the new model, as drawn.
      old: of the old one.

    Returns:
      the parameters to start from, and what became of each array.

    Raises:
      InputError: no array fits.
    """
    mine, theirs = _flat(params), _flat(old)
    taken: list[str] = []
    reshaped: dict[str, str] = {}
    new: dict[str, str] = {}
    for name, value in mine.items():
        if name not in theirs:
            new[name] = "the old model has none"
            continue
        source = np.asarray(theirs[name], value.dtype)
        change = f"{source.shape} -> {value.shape}"
        if source.shape == value.shape:
            taken.append(name)
        elif _without_ones(source.shape) == _without_ones(value.shape):
            reshaped[name] = change
        else:
            new[name] = f"of another shape, {change}"
            continue
        mine[name] = source.reshape(value.shape)
    left = tuple(name for name in theirs if name not in mine)
    if not taken and not reshaped:
        raise InputError("init_from: none of its arrays has a shape of this model; give its sizes")
    return _nested(mine), Report(tuple(taken), reshaped, new, left)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its axes of length 1."""
    return tuple(size for size in shape if size != 1)


def _flat(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Name the arrays of a nested dict by their paths."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{prefix}{name}/") if inner else {prefix + name: value}
    return found


def _nested(flat: dict[str, Any]) -> Tree:
    """Undo `_flat`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, name = path.split("/")
        place = tree
        for part in outer:
            place = place.setdefault(part, {})
        place[name] = value
    return tree


def read_start(place: str | pathlib.Path) -> tuple[Config, Tree, int]:
    """Read the parameters of a run folder's best checkpoint, or of RUN/checkpoints/STEP.

    Returns:
      the old run's configuration, its parameters and their step.

    Raises:
      InputError: there is no such checkpoint.
    """
    path = pathlib.Path(place)
    if path.name.isdecimal() and path.parent.name == checkpoints.FOLDER:
        return checkpoints.restore_params(path.parent.parent, path.name)
    try:
        return checkpoints.restore_params(path, "best")
    except InputError as error:
        raise InputError(f"init_from: {path}: {error}") from error

"""Initialise a model with the parameters of another, where names and shapes match.

An array whose shape differs only in axes of length 1 is reshaped. All others keep their random
initial values. Nothing is cropped or padded, because the rows and columns of an LSTM kernel change
their meaning when a size changes.
"""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import numpy as np

from musicvae_jax.config import Config, InputError
from musicvae_jax.storage import checkpoints

Tree = Any


class Report(NamedTuple):
    """How each array was initialised. Names are paths in the tree, such as "encoder/mu/kernel".

    Attributes:
      taken: names of the arrays copied unchanged.
      reshaped: name to "(old shape) -> (new shape)".
      new: name to the reason why the array keeps its random values.
      left: names of the arrays that only the old model has.
    """

    taken: tuple[str, ...]
    reshaped: dict[str, str]
    new: dict[str, str]
    left: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the report as lines: a summary, then each array that was not copied unchanged."""
        found = [
            f"taken {len(self.taken)} arrays, reshaped {len(self.reshaped)}, "
            f"new {len(self.new)}, left {len(self.left)}"
        ]
        found += [f"  reshaped {name}: {how}" for name, how in self.reshaped.items()]
        found += [f"  new {name}: {why}" for name, why in self.new.items()]
        return found + [f"  left {name}: the new model has none" for name in self.left]


def take_over(params: Tree, old: Tree) -> tuple[Tree, Report]:
    """Copy the old model's arrays into a new model's parameters, where they fit.

    Args:
      params: randomly initialised parameters of the new model.
      old: parameters of the old model.

    Returns:
      the parameters to start from, and a report on each array.

    Raises:
      InputError: no array fits.
    """
    target, available = _flat(params), _flat(old)
    taken: list[str] = []
    reshaped: dict[str, str] = {}
    new: dict[str, str] = {}
    for name, value in target.items():
        if name not in available:
            new[name] = "the old model has none"
            continue
        source = np.asarray(available[name], value.dtype)
        change = f"{source.shape} -> {value.shape}"
        if source.shape == value.shape:
            taken.append(name)
        elif _squeezed(source.shape) == _squeezed(value.shape):
            reshaped[name] = change
        else:
            new[name] = f"of another shape, {change}"
            continue
        target[name] = source.reshape(value.shape)
    left = tuple(name for name in available if name not in target)
    if not taken and not reshaped:
        raise InputError("init_from: none of its arrays has a shape of this model; give its sizes")
    return _nested(target), Report(tuple(taken), reshaped, new, left)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop the axes of length 1 from a shape."""
    return tuple(size for size in shape if size != 1)


def _flat(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested dict: path to array."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{prefix}{name}/") if inner else {prefix + name: value}
    return found


def _nested(flat: dict[str, Any]) -> Tree:
    """Invert `_flat`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, name = path.split("/")
        place = tree
        for part in outer:
            place = place.setdefault(part, {})
        place[name] = value
    return tree


def read_start(place: str | pathlib.Path) -> tuple[Config, Tree, int]:
    """Read the parameters of a run folder's best checkpoint, or those of RUN/checkpoints/STEP.

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

"""Magenta's MusicVAE checkpoints: from a file to a model, and back.

A training checkpoint holds each variable, Adam's two moments of it (`NAME/Adam`, `NAME/Adam_1`),
the powers `beta1_power` and `beta2_power`, and `global_step`. Architecture and layer sizes follow
from names and shapes.

Reference: magenta/models/music_vae, its graph's variable names; tf.train.AdamOptimizer, its slots.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from musicvae_jax.config import Config, InputError
from musicvae_jax.interop.bundle_index import Entry
from musicvae_jax.interop.task_inference import infer_task
from musicvae_jax.interop.tensor_bundle import TensorBundle
from musicvae_jax.models.registry import Params
from musicvae_jax.models.variables import params_from_variables, variables_from_params
from musicvae_jax.tasks import get_task

_SLOTS = ("/Adam", "/Adam_1")
_ADAM_B1, _ADAM_B2 = 0.9, 0.999  # the reference's, fixed in its code


class Adam(NamedTuple):
    """Adam's state: the moments, shaped as the parameters, and the updates made."""

    first_moment: Params
    second_moment: Params
    updates: int


class ReferenceCheckpoint(NamedTuple):
    """A model of the reference.

    Attributes:
      source: name of the file it was read from.
      config: the task's default configuration with the model's sizes and `init="reference"`.
      params: parameters, float32 NumPy arrays or `Variable`s.
      step: `global_step`; 0 where the checkpoint has none.
      adam: the optimiser's state; None where it was not asked for or is not in the checkpoint.
      is_seekable: whether variables may be read in any order, and from several threads.
    """

    source: str
    config: Config
    params: Params
    step: int
    adam: Adam | None
    is_seekable: bool = True


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable that is read when it is asked for; a leaf for JAX.

    Attributes:
      bundle: an open checkpoint.
      name: its name there.
      shape: its dimensions.
    """

    bundle: TensorBundle
    name: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The type of what is read."""
        return np.dtype(np.float32)

    @property
    def entry(self) -> Entry:
        """Where its bytes are."""
        return self.bundle.entries[self.name]

    def read(self) -> np.ndarray:
        """Read it, and verify its checksum."""
        return np.asarray(self.bundle.read(self.name), self.dtype)

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield its bytes in parts, each overwritten by the next, and verify its checksum."""
        if self.entry.dtype == self.dtype.name:
            yield from self.bundle.pieces(self.name)
        else:
            yield np.ascontiguousarray(self.read()).reshape(-1).view(np.uint8)


def read_checkpoint(
    path: str | os.PathLike[str], task: str | None = None, *, with_adam: bool = False
) -> ReferenceCheckpoint:
    """Read a model from a checkpoint of the reference; arguments and errors as `open_checkpoint`.

    Returns:
      the model, its parameters and Adam's moments as float32 NumPy arrays.
    """
    with open_checkpoint(path, task, with_adam=with_adam) as found:
        return read(found)


def read(found: ReferenceCheckpoint) -> ReferenceCheckpoint:
    """Read all variables of an open checkpoint, in the order of their bytes."""
    trees = [found.params, *(found.adam or ())[:2]]
    leaves: list[Variable] = jax.tree.leaves(trees)
    leaves.sort(key=lambda leaf: (leaf.entry.shard, leaf.entry.offset))
    arrays = {leaf.name: leaf.read() for leaf in leaves}
    params, *moments = [jax.tree.map(lambda leaf: arrays[leaf.name], tree) for tree in trees]
    adam = found.adam and Adam(moments[0], moments[1], found.adam.updates)
    return found._replace(params=params, adam=adam)


@contextlib.contextmanager
def open_checkpoint(
    path: str | os.PathLike[str], task: str | None = None, *, with_adam: bool = False
) -> Iterator[ReferenceCheckpoint]:
    """Open a checkpoint of the reference.

    Names and shapes are checked before any tensor is read.

    Args:
      path: a prefix, an index file, a folder (its newest checkpoint) or a tar file.
      task: name of the task; None infers it.
      with_adam: also find the optimiser's state, if there is one.

    Yields:
      the model; its parameters and Adam's moments are `Variable`s.

    Raises:
      InputError: the checkpoint cannot be read, is not of a supported model or of this task, or
        fits several tasks and none was given.
    """
    with TensorBundle(path) as bundle:
        unread = {name: Variable(bundle, name, e.shape) for name, e in bundle.entries.items()}
        try:
            task = task or infer_task(unread)
            model, params = params_from_variables(unread, task)
            _check_types(bundle, params)
        except InputError as error:
            raise InputError(f"checkpoint: {bundle.name}: {error}") from error
        # The reference trains with Adam, whatever this project's default is.
        config = dataclasses.replace(get_task(task).config, model=model).replace(optimiser="adam")
        step = int(_scalar(bundle, "global_step", 0))
        adam = None
        if with_adam and any(name.endswith(_SLOTS[0]) for name in unread):
            _check_slots(bundle, params)
            moments = [
                jax.tree.map(lambda leaf, slot=slot: unread[leaf.name + slot], params)
                for slot in _SLOTS
            ]
            adam = Adam(moments[0], moments[1], _updates(bundle, step))
        yield ReferenceCheckpoint(
            bundle.name, config, params, step, adam, is_seekable=bundle.is_seekable
        )


def _check_types(bundle: TensorBundle, tree: Params) -> None:
    """Check that the parameters are floats."""
    for leaf in jax.tree.leaves(tree):
        dtype = bundle.entries[leaf.name].dtype
        if dtype not in ("float32", "float16", "bfloat16", "float64"):
            raise InputError(f"{leaf.name} is {dtype}, it must be float32")


def _check_slots(bundle: TensorBundle, tree: Params) -> None:
    """Check that each parameter has both moments, of its shape."""
    for leaf in jax.tree.leaves(tree):
        for slot in _SLOTS:
            entry = bundle.entries.get(leaf.name + slot)
            if entry is None or entry.shape != leaf.shape or entry.dtype != "float32":
                raise InputError(
                    f"checkpoint: {bundle.name}: {leaf.name + slot} is missing or of another "
                    "shape or type, though other variables have it"
                )


def _scalar(bundle: TensorBundle, name: str, default: float) -> float:
    """Read a number, `default` where there is none."""
    entry = bundle.entries.get(name)
    if entry is None:
        return default
    value = bundle.read(name) if entry.shape == () and entry.dtype != "string" else None
    if value is None or not np.isfinite(value) or not 0 <= float(value) < 2**31:
        raise InputError(f"checkpoint: {bundle.name}: {name} is not a number from 0 to 2**31 - 1")
    return value.item()


def _updates(bundle: TensorBundle, step: int) -> int:
    """Return how many updates Adam made: `global_step`, unless the powers say otherwise.

    The powers are products of float32 numbers and underflow to 0, so they only count where they
    differ from those of `global_step` by more than rounding.
    """
    for name, decay, rounding in (("beta1_power", _ADAM_B1, 0.001), ("beta2_power", _ADAM_B2, 0.1)):
        power = _scalar(bundle, name, 0.0)
        if 1e-30 < power < 1:
            found = math.log(power) / math.log(decay) - 1
            return step if abs(found - step) <= 0.5 + rounding * step else round(found)
    return step


def tensors(params: Params, step: int, adam: Adam | None = None) -> dict[str, np.ndarray]:
    """Return the tensors of a checkpoint of the reference, by name: inverse of `read_checkpoint`.

    Args:
      params: parameters.
      step: optimiser steps done.
      adam: the optimiser's state; None for a checkpoint that is not trained further.
    """
    trees = {"": params}
    if adam is not None:
        trees |= dict(zip(_SLOTS, adam[:2], strict=True))
    found = {
        name + suffix: np.asarray(value)
        for suffix, tree in trees.items()
        for name, value in variables_from_params(tree).items()
    }
    found["global_step"] = np.array(step, np.int64)
    if adam is not None:
        found["beta1_power"] = _power(_ADAM_B1, adam.updates + 1)
        found["beta2_power"] = _power(_ADAM_B2, adam.updates + 1)
    return found


def _power(base: float, exponent: int) -> np.ndarray:
    """Multiply as TensorFlow's optimiser does: in float32, to 0 once numbers are not normal."""
    power, factor = np.float32(1), np.float32(base)
    for _ in range(exponent):
        power = power * factor
        if power < np.finfo(np.float32).tiny:
            return np.array(0, np.float32)
    return np.array(power)

"""Magenta's MusicVAE checkpoints: from a file to a model, and back.

A training checkpoint holds each variable, Adam's two moments of it (`NAME/Adam`, `NAME/Adam_1`),
the powers `beta1_power` and `beta2_power`, and `global_step`. Architecture and layer sizes follow
from names and shapes.

Reference: magenta/models/music_vae, its graph's variable names; tf.train.AdamOptimizer, its slots.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import NamedTuple

import jax
import numpy as np

from musicvae_jax.config import Config, InputError
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
      params: parameters, float32 NumPy arrays.
      step: `global_step`; 0 where the checkpoint has none.
      adam: the optimiser's state; None where it was not asked for or is not in the checkpoint.
    """

    source: str
    config: Config
    params: Params
    step: int
    adam: Adam | None


@dataclasses.dataclass(frozen=True)
class _Unread:
    """A variable of which only name and shape are known; a leaf for JAX."""

    name: str
    shape: tuple[int, ...]


def read_checkpoint(
    path: str | os.PathLike[str], task: str | None = None, *, with_adam: bool = False
) -> ReferenceCheckpoint:
    """Read a model from a checkpoint of the reference.

    Names and shapes are checked before any tensor is read.

    Args:
      path: a prefix, an index file, a folder (its newest checkpoint) or a tar file.
      task: name of the task; None infers it.
      with_adam: also read the optimiser's state, if there is one.

    Raises:
      InputError: the checkpoint is damaged or not of a supported model, or names and shapes fit
        several tasks and `task` is None.
    """
    with TensorBundle(path) as bundle:
        unread = {name: _Unread(name, entry.shape) for name, entry in bundle.entries.items()}
        try:
            task = task or infer_task(unread)
            model, tree = params_from_variables(unread, task)
            _check_types(bundle, tree)
        except InputError as error:
            raise InputError(f"checkpoint: {bundle.name}: {error}") from error
        config = dataclasses.replace(get_task(task).config, model=model)
        slots: tuple[str, ...] = ()
        if with_adam and any(name.endswith(_SLOTS[0]) for name in unread):
            slots = _SLOTS
            _check_slots(bundle, tree)
        step = _scalar(bundle, "global_step", 0)
        params, *moments = _read_trees(bundle, tree, ("", *slots))
        adam = None
        if moments:
            adam = Adam(moments[0], moments[1], _updates(bundle, int(step)))
        return ReferenceCheckpoint(bundle.name, config, params, int(step), adam)


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


def _read_trees(bundle: TensorBundle, tree: Params, suffixes: tuple[str, ...]) -> list[Params]:
    """Read the variables with each suffix, in the order of their bytes (for compressed files)."""
    names = [leaf.name + suffix for leaf in jax.tree.leaves(tree) for suffix in suffixes]
    entries = bundle.entries
    names.sort(key=lambda name: (entries[name].shard, entries[name].offset))
    arrays = {name: np.asarray(bundle.read(name), np.float32) for name in names}
    return [
        jax.tree.map(lambda leaf, suffix=suffix: arrays[leaf.name + suffix], tree)
        for suffix in suffixes
    ]


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

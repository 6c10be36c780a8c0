"""The device mesh and where arrays lie on it. Knows no model.

The mesh has two axes:

* "data": each position trains on its own rows of the batch.
* "model": all positions train on the same rows, and each holds a part of every large parameter:
  of the last axis, which is the gates of an LSTM kernel [inputs + H, 4H] and the units of any
  other one. A product then gives each device its own columns. Those of a recurrent kernel are
  brought together at every step, because the kernel's columns go i, j, f, o and a unit needs one
  of each: this axis is for models that one device cannot hold, not for speed.

`param_sharding` says what the data axis does with parameters and the optimiser's moments:
"replicated" keeps a copy at each position; with "fsdp" each keeps a part, and parameters are
brought together over the data axis for a forward and backward pass (`gathered`), which takes
the memory of one copy of them while it runs. Whatever is chosen changes the rounding of a run
and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from musicvae_jax.config import InputError

DATA_AXIS, MODEL_AXIS = "data", "model"
# Arrays of fewer numbers (biases, counters) are held whole: cutting them would save nothing.
MIN_CUT = 1024

Tree = Any


def make_mesh(devices: Sequence[jax.Device] | None = None, model_parallel: int = 1) -> Mesh:
    """Return the mesh [data, model] of all devices (or those given).

    Args:
      devices: neighbours come to lie along the model axis, so that it stays within a machine
        where it can.
      model_parallel: length of the model axis; the data axis takes the rest.

    Raises:
      InputError: `model_parallel` does not divide the number of devices.
    """
    chosen = jax.devices() if devices is None else list(devices)
    if len(chosen) % model_parallel:
        raise InputError(
            f"model_parallel: {model_parallel} does not divide the {len(chosen)} devices"
        )
    return Mesh(np.asarray(chosen).reshape(-1, model_parallel), (DATA_AXIS, MODEL_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def along_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Return the sharding of an array cut along `axis`, one piece per position of "data"."""
    return NamedSharding(mesh, PartitionSpec(*([None] * axis), DATA_AXIS))


def of_tree(mesh: Mesh, tree: Tree, param_sharding: str) -> Tree:
    """Return where each array of a training state lies, in a tree like `tree`.

    Moments lie as their parameters do, for the shape alone decides.

    Args:
      mesh: the mesh.
      tree: anything with a `shape` at its leaves.
      param_sharding: "replicated" or "fsdp".
    """
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, spec(mesh, leaf.shape, param_sharding)), tree
    )


def spec(mesh: Mesh | AbstractMesh, shape: tuple[int, ...], param_sharding: str) -> PartitionSpec:
    """Say which axes of an array of this shape are cut.

    "model" cuts the last axis; with "fsdp", "data" cuts the longest of the other axes, or the
    last one further. What cannot be cut into equal parts stays whole.
    """
    axes: list[tuple[str, ...]] = [()] * len(shape)
    if math.prod(shape) < MIN_CUT or not shape:
        return PartitionSpec()
    left, last = list(shape), len(shape) - 1
    model, data = mesh.shape[MODEL_AXIS], mesh.shape[DATA_AXIS]
    if model > 1 and shape[-1] % model == 0:
        axes[last] = (MODEL_AXIS,)
        left[last] //= model
    if param_sharding == "fsdp" and data > 1:
        # An axis that is cut already comes last.
        order = sorted(range(len(shape)), key=lambda axis: (len(axes[axis]), -left[axis]))
        cut = next((axis for axis in order if left[axis] % data == 0), None)
        if cut is not None:
            axes[cut] = (*axes[cut], DATA_AXIS)
    return PartitionSpec(*(names or None for names in axes))


def gathered(mesh: Mesh, params: Tree) -> Tree:
    """Bring parameters together over the data axis, inside a compiled program.

    Done once before the recurrences: left to itself, the compiler would do it at each of their
    steps.
    """
    return jax.lax.with_sharding_constraint(params, of_tree(mesh, params, "replicated"))


def place(
    sharding: NamedSharding, shape: tuple[int, ...], read: Callable[[Any], np.ndarray]
) -> jax.Array:
    """Make an array of which this process reads only what its own devices hold.

    Args:
      sharding: where it lies.
      shape: of the whole array.
      read: is given an index (a slice for each axis) and returns that part.
    """
    return jax.make_array_from_callback(shape, sharding, read)


def place_rows(sharding: NamedSharding, rows: np.ndarray, numbers: np.ndarray) -> jax.Array:
    """Make the array of some rows; each process reads those that its own devices hold.

    Args:
      sharding: cuts none of the rows.
      rows: [N, T(, K)], may be a memory-mapped file.
      numbers: integer [...], which rows.

    Returns:
      [..., T(, K)].
    """
    axes = numbers.ndim
    return place(
        sharding, numbers.shape + rows.shape[1:], lambda index: rows[numbers[index[:axes]]]
    )


def check_divides(mesh: Mesh, rows: int, name: str) -> None:
    """Check that `rows` rows can be shared out evenly along the data axis.

    Raises:
      InputError: they cannot; the message begins with `name`.
    """
    size = mesh.shape[DATA_AXIS]
    if rows % size:
        devices = f"{size} devices" if mesh.size == size else f"{size} groups of devices"
        raise InputError(f"{name}: {rows} rows cannot be shared evenly by {devices}")

"""The device mesh and the sharding of arrays over it, for any model.

The mesh has two axes:

* "data": each position trains on its own rows of the batch.
* "model": all positions train on the same rows, and each holds a shard of every large parameter.
  Parameters are split along their last axis: the gates of an LSTM kernel [inputs + H, 4H], the
  units of any other kernel. Each device then computes its own columns of a product. A recurrent
  product is gathered at every step, because the columns are ordered i, j, f, o and each unit needs
  all four gates. This axis is for models that do not fit on one device, not for speed.

`param_sharding` determines how parameters and the optimiser's moments use the data axis:
"replicated" keeps a copy at each position. "fsdp" keeps a shard at each position and gathers the
parameters for the forward and backward pass (`gathered`), which temporarily takes the memory of one
copy. The mesh and `param_sharding` affect only the rounding of a run.
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
# Arrays with fewer elements (biases, counters) are replicated: sharding them would save nothing.
MIN_SHARDED_SIZE = 1024

Tree = Any


def make_mesh(devices: Sequence[jax.Device] | None = None, model_parallel: int = 1) -> Mesh:
    """Create the mesh [data, model].

    Args:
      devices: devices of the mesh, all by default. Neighbours are placed along the model axis, to
        keep it within one machine if possible.
      model_parallel: length of the model axis.

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
    """Return the sharding of an array that every device holds entirely."""
    return NamedSharding(mesh, PartitionSpec())


def along_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Return the sharding of an array split along `axis` over the data axis of the mesh."""
    return NamedSharding(mesh, PartitionSpec(*([None] * axis), DATA_AXIS))


def of_tree(mesh: Mesh, tree: Tree, param_sharding: str) -> Tree:
    """Return the shardings of a training state, in a tree like `tree`.

    The sharding depends only on the shape, so moments are sharded like their parameters.

    Args:
      mesh: the mesh.
      tree: a tree whose leaves have a `shape`.
      param_sharding: "replicated" or "fsdp".
    """
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, spec(mesh, leaf.shape, param_sharding)), tree
    )


def spec(mesh: Mesh | AbstractMesh, shape: tuple[int, ...], param_sharding: str) -> PartitionSpec:
    """Return which axes of an array of this shape are split.

    "model" splits the last axis. With "fsdp", "data" splits the longest of the other axes, or the
    last one further. Axes that do not divide evenly are not split.
    """
    axes: list[tuple[str, ...]] = [()] * len(shape)
    if math.prod(shape) < MIN_SHARDED_SIZE or not shape:
        return PartitionSpec()
    left, last = list(shape), len(shape) - 1
    model, data = mesh.shape[MODEL_AXIS], mesh.shape[DATA_AXIS]
    if model > 1 and shape[-1] % model == 0:
        axes[last] = (MODEL_AXIS,)
        left[last] //= model
    if param_sharding == "fsdp" and data > 1:
        # Prefer axes that are not split yet.
        order = sorted(range(len(shape)), key=lambda axis: (len(axes[axis]), -left[axis]))
        cut = next((axis for axis in order if left[axis] % data == 0), None)
        if cut is not None:
            axes[cut] = (*axes[cut], DATA_AXIS)
    return PartitionSpec(*(names or None for names in axes))


def gathered(mesh: Mesh, params: Tree) -> Tree:
    """Gather parameters over the data axis, inside a compiled program.

    This happens once before the recurrences; otherwise the compiler would gather at every step.
    """
    return jax.lax.with_sharding_constraint(params, of_tree(mesh, params, "replicated"))


def place(
    sharding: NamedSharding, shape: tuple[int, ...], read: Callable[[Any], np.ndarray]
) -> jax.Array:
    """Create an array; this process reads only the parts that its own devices hold.

    Args:
      sharding: sharding of the array.
      shape: global shape.
      read: called with an index (a slice for each axis); returns that part.
    """
    return jax.make_array_from_callback(shape, sharding, read)


def place_rows(sharding: NamedSharding, rows: np.ndarray, indices: np.ndarray) -> jax.Array:
    """Create an array of selected rows; each process reads those that its own devices hold.

    Args:
      sharding: sharding that does not split individual rows.
      rows: [N, T(, K)], possibly memory-mapped.
      indices: integer [...], indices of the rows.

    Returns:
      [..., T(, K)].
    """
    axes = indices.ndim
    return place(
        sharding, indices.shape + rows.shape[1:], lambda index: rows[indices[index[:axes]]]
    )


def check_divides(mesh: Mesh, rows: int, name: str) -> None:
    """Check that `rows` rows can be split evenly along the data axis.

    Raises:
      InputError: they cannot; the message begins with `name`.
    """
    size = mesh.shape[DATA_AXIS]
    if rows % size:
        devices = f"{size} devices" if mesh.size == size else f"{size} groups of devices"
        raise InputError(f"{name}: {rows} rows cannot be shared evenly by {devices}")

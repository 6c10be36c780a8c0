"""The device mesh and where arrays lie on it. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from musicvae_jax.config import InputError

DATA_AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh of all devices (or those given) along the data axis."""
    chosen = jax.devices() if devices is None else list(devices)
    return Mesh(np.asarray(chosen), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def along_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Return the sharding of an array cut along `axis`, one piece per device."""
    return NamedSharding(mesh, PartitionSpec(*([None] * axis), DATA_AXIS))


def check_divides(mesh: Mesh, rows: int, name: str) -> None:
    """Check that `rows` rows can be shared out evenly.

    Raises:
      InputError: the number of devices does not divide `rows`; the message begins with `name`.
    """
    if rows % mesh.size:
        raise InputError(f"{name}: {rows} rows cannot be shared evenly by {mesh.size} devices")

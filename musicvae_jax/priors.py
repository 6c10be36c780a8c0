"""Densities over z that `latent/fitted_prior.py` fits and files hold: their arrays, checked.

A `Mixture` of Gaussians is fitted in seconds, a `Flow` in minutes.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from musicvae_jax.config import InputError


class Mixture(NamedTuple):
    """A mixture of M Gaussians over z.

    Attributes:
      weights: [M] float32, their sum is 1.
      means: [M, Z] float32.
      scales: [M, Z, Z] float32, lower triangular: Cholesky factors of the covariances.
    """

    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray


class Flow(NamedTuple):
    """A normalising flow over z: L affine coupling layers (Dinh et al. 2017) of H hidden units.

    A layer reads the first Z1 = Z // 2 dimensions of its order, and from them computes by how much
    it shifts and scales the other Z2 (`latent/flow.py`).

    Attributes:
      shift: [Z] float32, subtracted from z before the layers.
      scale: [Z] float32, above 0; z is divided by it then.
      orders: [L, Z] int32, the dimensions in the order of each layer.
      kernels_in: [L, Z1, H] float32.
      biases_in: [L, H] float32.
      kernels_hidden: [L, H, H] float32.
      biases_hidden: [L, H] float32.
      kernels_out: [L, H, 2 Z2] float32: shifts, then logarithms of scales.
      biases_out: [L, 2 Z2] float32.
    """

    shift: np.ndarray
    scale: np.ndarray
    orders: np.ndarray
    kernels_in: np.ndarray
    biases_in: np.ndarray
    kernels_hidden: np.ndarray
    biases_hidden: np.ndarray
    kernels_out: np.ndarray
    biases_out: np.ndarray


FittedPrior: TypeAlias = Mixture | Flow


def check(prior: FittedPrior, z_size: int | None = None) -> None:
    """Check that the arrays are a density over z.

    Args:
      prior: arrays from a file.
      z_size: Z of the model; None takes that of the arrays.

    Raises:
      InputError: a type, a shape or a value is wrong; the message names the array.
    """
    if isinstance(prior, Mixture):
        _check_mixture(prior, z_size)
    else:
        _check_flow(prior, z_size)


def _check_mixture(prior: Mixture, z_size: int | None) -> None:
    num = prior.weights.shape[0] if prior.weights.ndim == 1 else 0
    if z_size is None:
        z_size = prior.means.shape[-1] if prior.means.ndim else 0
    if not num or not z_size:
        raise InputError("prior: it has no weights, or its means have no dimensions")
    _check_arrays(prior, ((num,), (num, z_size), (num, z_size, z_size)))
    if (prior.weights < 0).any() or abs(prior.weights.sum() - 1) > 1e-3:
        raise InputError("prior: weights must be 0 or more, and their sum 1")
    if (np.diagonal(prior.scales, axis1=1, axis2=2) <= 0).any() or np.triu(prior.scales, 1).any():
        raise InputError("prior: scales must be lower triangular with a positive diagonal")


def _check_flow(prior: Flow, z_size: int | None) -> None:
    L, H = prior.biases_in.shape if prior.biases_in.ndim == 2 else (0, 0)
    if z_size is None:
        z_size = prior.shift.shape[0] if prior.shift.ndim == 1 else 0
    if not (L and H and z_size > 1):
        raise InputError("prior: it has no layers, or its shift has fewer than two dimensions")
    Z, Z1 = z_size, z_size // 2
    Z2 = Z - Z1
    shapes = (
        *((Z,), (Z,), (L, Z)),
        *((L, Z1, H), (L, H), (L, H, H), (L, H), (L, H, 2 * Z2), (L, 2 * Z2)),
    )
    _check_arrays(prior, shapes)
    if (prior.scale <= 0).any():
        raise InputError("prior: scale must be above 0")
    if (np.sort(prior.orders, axis=1) != np.arange(Z)).any():
        raise InputError("prior: orders must hold every dimension once in each layer")


def _check_arrays(prior: FittedPrior, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Check that arrays are finite, float32 (orders: int32), and of these shapes."""
    for name, array, shape in zip(prior._fields, prior, shapes, strict=True):
        kind = "int32" if name == "orders" else "float32"
        if array.dtype != kind or array.shape != shape:
            raise InputError(
                f"prior: {name} are {array.dtype} {list(array.shape)}, they must be {kind} "
                f"{list(shape)}"
            )
        if not np.isfinite(array).all():
            raise InputError(f"prior: {name} are not all finite")

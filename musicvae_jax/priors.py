"""Mixtures of Gaussians over z: what `latent/fitted_prior.py` fits and what files hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from musicvae_jax.config import InputError


class FittedPrior(NamedTuple):
    """A mixture of M Gaussians over z.

    Attributes:
      weights: [M] float32, their sum is 1.
      means: [M, Z] float32.
      scales: [M, Z, Z] float32, lower triangular: Cholesky factors of the covariances.
    """

    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray


def check(prior: FittedPrior, z_size: int | None = None) -> None:
    """Check that the arrays are a mixture over z.

    Args:
      prior: arrays from a file.
      z_size: Z of the model; None takes that of the means.

    Raises:
      InputError: a type, a shape or a value is wrong; the message names the array.
    """
    num = prior.weights.shape[0] if prior.weights.ndim == 1 else 0
    if z_size is None:
        z_size = prior.means.shape[-1] if prior.means.ndim else 0
    if not num or not z_size:
        raise InputError("prior: it has no weights, or its means have no dimensions")
    shapes = ((num,), (num, z_size), (num, z_size, z_size))
    for name, array, shape in zip(prior._fields, prior, shapes, strict=True):
        if array.dtype != np.float32 or array.shape != shape:
            raise InputError(
                f"prior: {name} are {array.dtype} {list(array.shape)}, they must be float32 "
                f"{list(shape)}"
            )
        if not np.isfinite(array).all():
            raise InputError(f"prior: {name} are not all finite")
    if (prior.weights < 0).any() or abs(prior.weights.sum() - 1) > 1e-3:
        raise InputError("prior: weights must be 0 or more, and their sum 1")
    if (np.diagonal(prior.scales, axis1=1, axis2=2) <= 0).any() or np.triu(prior.scales, 1).any():
        raise InputError("prior: scales must be lower triangular with a positive diagonal")

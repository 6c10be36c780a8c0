"""Properties of the latent space: active units, posterior against prior, a projection.

References: Fréchet distance of Gaussians is Dowson and Landau 1982; maximum mean discrepancy is
Gretton et al. 2012, "A kernel two-sample test", equation 3 (unbiased, so it may be below 0).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from musicvae_jax.analysis.comparison import Halves, Interval, Values, interval

COMPONENTS = 32  # principal components that sets of latents are compared on
_PRIOR_DRAWS = 24


class Units(NamedTuple):
    """What each latent unit carries.

    Attributes:
      variance: float64 [Z], of the posterior's mean over rows; a unit above 0.01 is active.
      kl_nats: float64 [Z], mean over rows.
    """

    variance: np.ndarray
    kl_nats: np.ndarray


class Components(NamedTuple):
    """Principal components of points.

    Attributes:
      mean: float64 [Z].
      directions: float64 [Z, P], of length 1.
      variance_share: float64 [P].
    """

    mean: np.ndarray
    directions: np.ndarray
    variance_share: np.ndarray

    def place(self, points: np.ndarray) -> np.ndarray:
        """Return the coordinates [N, P] of points [N, Z]."""
        return (np.asarray(points, np.float64) - self.mean[None, :]) @ self.directions


def units(mu: np.ndarray, sigma: np.ndarray) -> Units:
    """Measure the units of posteriors, [N, Z] each."""
    mu, sigma = np.asarray(mu, np.float64), np.asarray(sigma, np.float64)
    kl = 0.5 * (mu**2 + sigma**2 - 1.0) - np.log(sigma)
    return Units(mu.var(axis=0), kl.mean(axis=0))


def principal_components(points: np.ndarray, count: int) -> Components:
    """Find the directions in which points [N, Z] vary most; at most `count`, N - 1 and Z."""
    points = np.asarray(points, np.float64)
    mean = points.mean(axis=0)
    _, spread, directions = np.linalg.svd(points - mean[None, :], full_matrices=False)
    count = min(count, points.shape[1], max(len(points) - 1, 1))
    # The sign of a direction is arbitrary: its largest part is positive.
    directions = directions[:count]
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(count), largest])[:, None]
    power = spread**2
    return Components(mean, directions.T, power[:count] / max(power.sum(), 1e-30))


def frechet(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray
) -> np.ndarray:
    """Return the squared Fréchet distance of Gaussians.

    Args:
      mean_a: [..., P].
      cov_a: [..., P, P].
      mean_b: [..., P].
      cov_b: [..., P, P].

    Returns:
      float64 [...], 0 or more.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    inner = np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0.0)
    traces = np.trace(cov_a, axis1=-2, axis2=-1) + np.trace(cov_b, axis1=-2, axis2=-1)
    distance = ((mean_a - mean_b) ** 2).sum(axis=-1) + traces - 2 * np.sqrt(inner).sum(axis=-1)
    return np.maximum(distance, 0.0)


def kernel(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    """Compare points [N, P] and [M, P]: Gaussian kernels of three widths, [N, M] float64.

    Args:
      a: points.
      b: points.
      scale: mean squared distance of two points; the widths are half of it, it, and its double.
    """
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    ratio = np.maximum(squares, 0.0) / max(scale, 1e-30)
    return (np.exp(-2 * ratio) + np.exp(-ratio) + np.exp(-ratio / 2)) / 3


def mmd(
    weights_a: np.ndarray,
    weights_b: np.ndarray,
    kernels: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """Return the squared maximum mean discrepancy of drawn sets, unbiased.

    Args:
      weights_a: 0 or 1, [R, N]: m rows of the first set in each draw.
      weights_b: [R, M], likewise.
      kernels: of the first set with itself [N, N], the second with itself [M, M], and the first
        with the second [N, M].

    Returns:
      float64 [R].
    """
    a, b = np.asarray(weights_a, np.float64), np.asarray(weights_b, np.float64)
    count_a, count_b = a.sum(axis=1), b.sum(axis=1)
    own = [
        ((w @ k) * w).sum(axis=1) - w @ np.diagonal(k)
        for w, k in ((a, kernels[0]), (b, kernels[1]))
    ]
    cross = ((a @ kernels[2]) * b).sum(axis=1)
    return (
        own[0] / (count_a * (count_a - 1))
        + own[1] / (count_b * (count_b - 1))
        - 2 * cross / (count_a * count_b)
    )


def set_distances(
    real: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> Values:
    """Compute how far sets of points are apart in each draw, as `comparison.draw_distances` asks.

    Args:
      real: points [N, P] and weights [R, N].
      other: points [M, P] and weights [R, M].

    Returns:
      "frechet" and "mmd" (both squared), [R] each.
    """
    (a, weights_a), (b, weights_b) = real, other
    scale = 2 * float(a.var(axis=0).sum())
    kernels = (kernel(a, a, scale), kernel(b, b, scale), kernel(a, b, scale))
    return {
        "frechet": frechet(*_moments(a, weights_a), *_moments(b, weights_b)),
        "mmd": mmd(weights_a, weights_b, kernels),
    }


def _moments(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean [R, P] and covariance [R, P, P] of drawn points."""
    count = weights.sum(axis=1, dtype=np.float64)
    size = points.shape[1]
    mean = weights @ points / count[:, None]
    products = (points[:, :, None] * points[:, None, :]).reshape(len(points), size * size)
    second = (weights @ products / count[:, None]).reshape(-1, size, size)
    cov = second - mean[:, :, None] * mean[:, None, :]
    return mean, cov * (count / np.maximum(count - 1, 1))[:, None, None]


def against_prior(
    z: np.ndarray, halves: Halves, generator: np.random.Generator
) -> dict[str, dict[str, Interval]]:
    """Compare z drawn from the posteriors of rows with draws of the prior, N(0, 1).

    Args:
      z: [N, Z], one draw for each row.
      halves: draws of m of the rows.
      generator: of the prior's draws.

    Returns:
      For "frechet" (of a set of m points from N(0, 1)) and "mmd" (of two sets of m points), the
      interval of the "posterior" and that of the "prior" itself: what as many draws of the prior
      have by chance.
    """
    z = np.asarray(z, np.float64)
    size, dims = int(halves.first[0].sum()), z.shape[1]
    found: dict[str, list[float]] = {"posterior": [], "prior": []}
    kernels: dict[str, list[float]] = {"posterior": [], "prior": []}
    for weights in halves.first[:_PRIOR_DRAWS]:
        one, two = generator.standard_normal((2, size, dims))
        for name, points in (("posterior", z[weights > 0]), ("prior", one)):
            found[name].append(_from_standard(points))
            every = np.ones((1, size))
            sets = (kernel(points, points, 2 * dims), kernel(two, two, 2 * dims))
            cross = kernel(points, two, 2 * dims)
            kernels[name].append(float(mmd(every, every, (*sets, cross))[0]))
    return {
        "frechet": {name: interval(np.array(values)) for name, values in found.items()},
        "mmd": {name: interval(np.array(values)) for name, values in kernels.items()},
    }


def _from_standard(points: np.ndarray) -> float:
    """Return the squared Fréchet distance of points [N, Z] from N(0, 1)."""
    spread = np.linalg.svd(points - points.mean(axis=0)[None, :], compute_uv=False)
    deviations = np.zeros(points.shape[1])
    deviations[: len(spread)] = spread / np.sqrt(max(len(points) - 1, 1))
    return float((points.mean(axis=0) ** 2).sum() + ((deviations - 1.0) ** 2).sum())


def unit_probes(z: np.ndarray, chosen: np.ndarray, amount: float) -> np.ndarray:
    """Set one unit after the other to both ends of its range.

    Args:
      z: [N, Z], the places to start from.
      chosen: int [P], units.
      amount: set to minus this, and to this.

    Returns:
      float32 [P, 2, N, Z].
    """
    probes = np.broadcast_to(z, (len(chosen), 2, *z.shape)).astype(np.float32)
    probes[np.arange(len(chosen)), 0, :, chosen] = -amount
    probes[np.arange(len(chosen)), 1, :, chosen] = amount
    return probes


def unit_effects(tokens: np.ndarray) -> np.ndarray:
    """Return how much each unit changes: the share of steps that differ between its two ends.

    Args:
      tokens: decoded probes, [P, 2, N, T] or [P, 2, N, T, K].

    Returns:
      float64 [P].
    """
    differ = tokens[:, 0] != tokens[:, 1]
    if differ.ndim == 4:
        differ = differ.any(axis=-1)
    return differ.mean(axis=(1, 2))

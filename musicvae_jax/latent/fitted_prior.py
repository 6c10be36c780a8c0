"""A density fitted to the latent vectors of training rows, to draw from instead of N(0, I).

A model trained with a small weight on the KL divergence reconstructs well, but its posteriors,
taken together, are far from the prior N(0, I): z drawn from the prior lie where the decoder never
learned to decode. A density fitted to encoded rows after training closes that gap (ex-post density
estimation: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 4).

There are two families. A mixture of Gaussians takes seconds; the number of components is the one
with the highest likelihood of held-out rows. A normalising flow (`latent/flow.py`) takes minutes
and is better where the mixture limits the samples (docs/latent.md). N(0, I) itself is a candidate,
so that the fitted prior is never the worse of the two on held-out rows.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.config import InputError
from musicvae_jax.latent import flow
from musicvae_jax.priors import FittedPrior, Flow, Mixture, check

FILE = "fitted_prior.npz"
# Format of the file by what it holds. The first had mixtures only.
FORMATS: dict[str, type[FittedPrior]] = {"musicvae-prior-1": Mixture, "musicvae-prior-2": Flow}
COMPONENTS = (1, 2, 5, 10, 20, 50)
FITTED, STANDARD = "fitted", "standard"
MIXTURE, FLOW = FAMILIES = ("mixture", "flow")
PRIORS = (FITTED, STANDARD)
# Added to the variances, so that a component cannot shrink to a point.
SMALLEST_VARIANCE = 1e-4
# An iteration that gains less than this, in nats per row, is the last.
TOLERANCE = 1e-2


class Record(NamedTuple):
    """A fitted prior as a run folder keeps it.

    Attributes:
      prior: the density.
      step: of the checkpoint whose latent vectors it was fitted to.
      about: other facts, such as the held-out log-likelihoods.
    """

    prior: FittedPrior
    step: int
    about: dict[str, Any]


def standard(z_size: int) -> Mixture:
    """Return N(0, I) of Z dimensions as a mixture of one."""
    return Mixture(
        np.ones(1, np.float32),
        np.zeros((1, z_size), np.float32),
        np.eye(z_size, dtype=np.float32)[None],
    )


def fit(
    z: np.ndarray,
    held_out: np.ndarray,
    components: Sequence[int] = COMPONENTS,
    seed: int = 0,
) -> tuple[Mixture, dict[str, float]]:
    """Fit mixtures by expectation-maximisation and keep the best one.

    Numbers of components that leave fewer than 2 Z rows to each are not tried: their covariances
    would be arbitrary.

    Args:
      z: [N, Z], one draw from the posterior of each training row.
      held_out: [M, Z], likewise of rows that decide how many components to take.
      components: numbers of components to try, in rising order; the first that makes
        `held_out` less likely than the one before is the last.
      seed: random seed of the initial assignment (k-means).

    Returns:
      the prior, and the mean log-likelihood of `held_out`, nats per row, of each candidate:
      "standard" for N(0, I), otherwise the number of components.

    Raises:
      InputError: there are fewer than 2 Z rows, or none held out.
    """
    N, Z = z.shape
    if N < 2 * Z or not len(held_out):
        raise InputError(
            f"prior: {N} training and {len(held_out)} held-out rows are too few for {Z} "
            f"dimensions: {2 * Z} and 1 are needed"
        )
    candidates = {STANDARD: standard(Z)}
    scores = {STANDARD: _score(candidates[STANDARD], held_out)}
    last = -math.inf
    for count in components:
        if count * 2 * Z > N:
            continue
        name = str(count)
        candidates[name] = _fitted(z, count, seed)
        scores[name] = _score(candidates[name], held_out)
        if scores[name] < last:
            break
        last = scores[name]
    return candidates[max(scores, key=lambda name: scores[name])], scores


def fit_flow(
    mu: np.ndarray,
    sigma: np.ndarray,
    held_out: np.ndarray,
    settings: flow.Settings | None = None,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda step, score: None,
) -> tuple[FittedPrior, dict[str, float]]:
    """Fit a flow to posteriors, and keep it unless N(0, I) is better.

    The arguments are those of `flow.fit`.

    Returns:
      the prior, and the mean log-likelihood of `held_out`, nats per row, of N(0, I) ("standard")
      and of the flow ("flow").

    Raises:
      InputError: z has one dimension; a layer of a flow reads half of them.
    """
    if mu.shape[1] < 2:
        raise InputError("prior: a flow needs two dimensions of z or more; fit a mixture")
    found = flow.fit(mu, sigma, held_out, settings, seed, report)
    candidates: dict[str, FittedPrior] = {STANDARD: standard(mu.shape[1]), FLOW: found}
    scores = {name: _score(candidate, held_out) for name, candidate in candidates.items()}
    return candidates[max(scores, key=lambda name: scores[name])], scores


def _score(prior: FittedPrior, held_out: np.ndarray) -> float:
    """Return the mean log-likelihood, nats per row."""
    return float(np.mean(log_density(prior, held_out)))


def _fitted(z: np.ndarray, count: int, seed: int) -> Mixture:
    """Fit a mixture of `count` Gaussians."""
    # Takes a second to import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(count, tol=TOLERANCE, reg_covar=SMALLEST_VARIANCE, random_state=seed)
    with warnings.catch_warnings():
        # After the last iteration the mixture is as good as any other candidate.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(z.astype(np.float64))
    return Mixture(
        mixture.weights_.astype(np.float32),
        mixture.means_.astype(np.float32),
        np.linalg.cholesky(mixture.covariances_).astype(np.float32),
    )


def log_density(prior: FittedPrior, z: np.ndarray) -> jax.Array:
    """Compute log p(z), nats: [N] float32 for z [N, Z]."""
    if isinstance(prior, Flow):
        return flow.log_density(prior, z)
    return _mixture_log_density(prior, z)


@jax.jit
def _mixture_log_density(prior: Mixture, z: np.ndarray) -> jax.Array:
    def of_one(weight: jax.Array, mean: jax.Array, scale: jax.Array) -> jax.Array:
        unit = jax.scipy.linalg.solve_triangular(
            scale, (jnp.asarray(z) - mean[None, :]).T, lower=True
        )
        log_volume = jnp.sum(jnp.log(jnp.diagonal(scale)))
        constant = 0.5 * mean.shape[0] * jnp.log(2 * jnp.pi)
        return jnp.log(weight) - 0.5 * jnp.sum(unit**2, axis=0) - log_volume - constant

    return jax.nn.logsumexp(jax.vmap(of_one)(*map(jnp.asarray, prior)), axis=0)


def sample(prior: FittedPrior, key: jax.Array, num: int) -> jax.Array:
    """Draw z [num, Z] float32."""
    if isinstance(prior, Flow):
        return flow.sample(prior, key, num)
    return _mixture_sample(prior, key, num)


@functools.partial(jax.jit, static_argnames="num")
def _mixture_sample(prior: Mixture, key: jax.Array, num: int) -> jax.Array:
    component_key, noise_key = jax.random.split(key)
    log_weights = jnp.log(jnp.asarray(prior.weights))
    chosen = jax.random.categorical(component_key, log_weights, shape=(num,))
    noise = jax.random.normal(noise_key, (num, prior.means.shape[1]))

    def draw(component: jax.Array, unit: jax.Array) -> jax.Array:
        return jnp.asarray(prior.means)[component] + jnp.asarray(prior.scales)[component] @ unit

    # One at a time: a batched product would copy a [Z, Z] factor for every draw.
    return jax.lax.map(lambda pair: draw(*pair), (chosen, noise))


def draw(prior: FittedPrior | None, key: jax.Array, num: int, z_size: int) -> jax.Array:
    """Draw z [num, Z] float32 from a fitted prior, or from N(0, I) without one."""
    if prior is None:
        return jax.random.normal(key, (num, z_size))
    return sample(prior, key, num)


def save(run_dir: str | pathlib.Path, record: Record) -> pathlib.Path:
    """Write a prior into the run folder, whole or not at all; return the file."""
    written = next(name for name, kind in FORMATS.items() if isinstance(record.prior, kind))
    about = {"format": written, "step": record.step} | record.about
    buffer = io.BytesIO()
    arrays = record.prior._asdict()
    np.savez(buffer, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    path = pathlib.Path(run_dir) / FILE
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(buffer.getvalue())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load(run_dir: str | pathlib.Path) -> Record | None:
    """Read the prior of a run folder, None where there is none.

    Raises:
      InputError: the file is damaged or of another format, or its arrays are no density.
    """
    path = pathlib.Path(run_dir) / FILE
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if not isinstance(about, dict):
                raise ValueError(about)
            kind = FORMATS[str(about.pop("format"))]
            prior = kind(*(np.asarray(file[name]) for name in kind._fields))
        step = about.pop("step")
        if type(step) is not int:
            raise ValueError(step)
        check(prior)
        return Record(prior, step, about)
    # An InputError is a ValueError.
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = f" ({error})" if isinstance(error, InputError) else ""
        raise InputError(
            f"prior: {path} is not of format {' or '.join(FORMATS)}{reason}; make it again with "
            "musicvae fit_prior"
        ) from error

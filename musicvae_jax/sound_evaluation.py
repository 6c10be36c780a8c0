"""Evaluation of a model of sound on a split: signal-to-noise ratio, spectra, ELBO."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax import data, metrics, objectives
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import VAE, build_vae

# Length and distance of the windows of a spectrum, in samples; a shorter row is one window.
WINDOW, HOP = 256, 128
LEAST_POWER = 1e-8  # added to the power spectrum of a window: 80 dB below a full-scale sine

FULL_SCALE = 2**15
Track = Callable[[Sequence[Any], str], Iterable[Any]]


class SoundEvaluation(NamedTuple):
    """Scores of one split, means over its rows.

    Attributes:
      examples: number of rows, all those of the split.
      snr_db: signal-to-noise ratio of the reconstruction from z = mu.
      log_spectral_distance_db: distance of its spectra, see `log_spectral_distance_db`.
      cross_entropy: nats per sample, with sampled z.
      kl_bits: bits per example.
      elbo_nats: nats per example, with one sample of z.
      active_units: number of latent units whose mean has a variance above 0.01.
      z_size: number of latent units.
    """

    examples: int
    snr_db: float
    log_spectral_distance_db: float
    cross_entropy: float
    kl_bits: float
    elbo_nats: float
    active_units: int
    z_size: int


def log_spectral_distance_db(signal: jax.Array, other: jax.Array) -> jax.Array:
    """Compute the log-spectral distance of signals [B, T] float: [B], decibels.

    The root mean square over frequencies of the difference of the log power spectra, averaged over
    windows (Hann, `WINDOW` samples every `HOP`).

    Reference: Gray and Markel 1976, "Distance measures for speech processing".
    """
    difference = _log_powers(signal) - _log_powers(other)
    return jnp.mean(jnp.sqrt(jnp.mean(difference**2, axis=-1)), axis=-1)


def _log_powers(signal: jax.Array) -> jax.Array:
    """Compute the log power spectra of windows: [B, T] -> [B, windows, frequencies], decibels."""
    size = min(WINDOW, signal.shape[1])
    starts = np.arange(0, signal.shape[1] - size + 1, HOP)
    parts = signal[:, starts[:, None] + np.arange(size)[None, :]]
    window = np.hanning(size + 1)[:-1]
    spectra = jnp.fft.rfft(parts * window[None, None, :]) * (2.0 / window.sum())
    return 10.0 * jnp.log10(jnp.abs(spectra) ** 2 + LEAST_POWER)


def evaluate(
    config: Config,
    params: Any,
    rows: np.ndarray,
    *,
    seed: int = 0,
    track: Track = lambda batches, label: batches,
) -> tuple[SoundEvaluation, np.ndarray]:
    """Score every row of a split; return the scores and the posterior means [N, Z].

    Args:
      config: configuration of the run.
      params: model parameters.
      rows: int16 [N, T].
      seed: random seed of the z sampled.
      track: wraps the sequence of batches, to show progress.

    Raises:
      InputError: the split is empty, or the model is not one of sound.
    """
    return Evaluator(config, rows, seed=seed)(params, track)


class Evaluator:
    """Evaluates any number of parameter sets of one configuration with one compilation.

    Arguments and errors are those of `evaluate`.
    """

    def __init__(self, config: Config, rows: np.ndarray, *, seed: int = 0) -> None:
        if not len(rows):
            raise InputError("split: it holds no rows, so there is nothing to evaluate")
        self._config, self._rows, self._key = config, rows, jax.random.key(seed)
        self._run = jax.jit(_scores(build_vae(config)))

    def __call__(
        self, params: Any, track: Track = lambda batches, label: batches
    ) -> tuple[SoundEvaluation, np.ndarray]:
        """Score every row with these parameters."""
        rows, sums = self._rows, dict[str, np.ndarray]()
        moments, means = metrics.LatentMoments(), []
        batch_size = min(self._config.train.batch_size, len(rows))
        for indices, mask in track(data.padded_batches(len(rows), batch_size), "scored"):
            values, mu = self._run(params, rows[indices], indices, mask, self._key)
            sums = metrics.add_sums(sums, values)
            means.append(np.asarray(mu)[mask])
            moments.add(means[-1])
        mean = {name: float(value) / len(rows) for name, value in sums.items()}
        found = SoundEvaluation(
            examples=len(rows),
            snr_db=mean["snr_db"],
            log_spectral_distance_db=mean["distance"],
            cross_entropy=mean["nats"] / rows.shape[1],
            kl_bits=mean["kl_nats"] / math.log(2.0),
            elbo_nats=-mean["nats"] - mean["kl_nats"],
            active_units=moments.active_units(),
            z_size=self._config.model.z_size,
        )
        return found, np.concatenate(means)


@functools.lru_cache(4)
def _scores(model: VAE) -> Callable[..., tuple[metrics.Counts, jax.Array]]:
    """Return the function that scores a batch: (masked sums, mu [B, Z])."""
    scores = model.scores
    if scores is None:
        raise InputError("architecture: it models tokens, not sound")

    def run(
        params: Any, rows: jax.Array, indices: jax.Array, mask: jax.Array, key: jax.Array
    ) -> tuple[metrics.Counts, jax.Array]:
        mu, sigma = posterior = model.encode(params, rows)
        # A key per row, so that noise does not depend on the batch.
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
        noise = jax.vmap(lambda row_key: jax.random.normal(row_key, mu.shape[1:]))(keys)
        drawn = model.logits(params, mu + sigma * noise, rows)
        best = model.logits(params, mu, rows)
        values = scores(best, rows)
        values["distance"] = log_spectral_distance_db(rows / FULL_SCALE, best[0][..., 0])
        values["nats"] = model.nats(drawn, rows).sum(axis=-1)
        values["kl_nats"] = objectives.kl_nats(posterior)
        return metrics.masked_sums(values, mask), mu

    return run

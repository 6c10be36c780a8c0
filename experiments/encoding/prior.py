"""Fit a prior to a trained run: encode rows, fit, keep the result in the run folder."""

from __future__ import annotations

import pathlib
import time

import jax
import numpy as np

from data_pipeline.progress_bar import progress_bar
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.latent import fitted_prior
from musicvae_jax.latent.batches import MAX_BATCH
from musicvae_jax.latent.fitted_prior import Record
from musicvae_jax.latent.musicvae import MusicVAE

# Fewer training rows are not worth a fit.
FEWEST_ROWS = 1_000
# Rows that are encoded at most, spread over all.
MOST_ROWS, MOST_HELD_OUT = 20_000, 5_000


def fit_run(
    run_dir: str | pathlib.Path,
    vae: MusicVAE,
    step: int,
    store: data.Store,
    seed: int = 0,
    rows: int = MOST_ROWS,
) -> Record:
    """Fit a prior to the training rows of a store and save it in the run folder.

    Validation rows decide on the number of components; without any, every tenth training row.

    Args:
      run_dir: folder of the run.
      vae: its model.
      step: of the model's checkpoint.
      store: the data.
      seed: random seed of the draws and of the fit.
      rows: training rows to encode at most.

    Raises:
      InputError: there are too few rows.
    """
    train, validation = store.splits["train"], store.splits["validation"]
    if len(train) < FEWEST_ROWS:
        raise InputError(
            f"prior: {store.path} has {len(train):,} training rows, at least {FEWEST_ROWS:,} "
            "are needed to fit one"
        )
    start = time.perf_counter()
    train_key, validation_key = jax.random.split(jax.random.key(seed))
    z = posterior_draws(vae, _spread(train, rows), train_key)
    if len(validation):
        held_out = posterior_draws(vae, _spread(validation, MOST_HELD_OUT), validation_key)
    else:
        held = np.arange(len(z)) % 10 == 0
        z, held_out = z[~held], z[held]
    print(f"fitting a prior to the latent vectors of {len(z):,} rows", flush=True)
    prior, scores = fitted_prior.fit(z, held_out, seed=seed)
    about = {
        "task": vae.task.name,
        "rows": len(z),
        "held_out_rows": len(held_out),
        "held_out_log_likelihood": scores,
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
    }
    record = Record(prior, step, about)
    fitted_prior.save(run_dir, record)
    return record


def posterior_draws(vae: MusicVAE, rows: np.ndarray, key: jax.Array) -> np.ndarray:
    """Draw one z from the posterior of each row: [N, Z] float32."""
    parts = []
    for start in progress_bar(range(0, len(rows), MAX_BATCH), desc="encoding"):
        mu, sigma = vae.encode(rows[start : start + MAX_BATCH])
        noise = jax.random.normal(jax.random.fold_in(key, start), mu.shape)
        parts.append(np.asarray(mu) + np.asarray(sigma) * np.asarray(noise))
    return np.concatenate(parts)


def describe(record: Record) -> str:
    """Say in a line what was fitted."""
    about = record.about
    scores = about["held_out_log_likelihood"]
    best = max(scores, key=lambda name: scores[name])
    if best == fitted_prior.STANDARD:
        return (
            f"prior: N(0, I) describes the latent vectors of {about['rows']:,} rows best "
            f"({scores[best]:.1f} nats per held-out row); it is kept"
        )
    gaussians = "one Gaussian" if best == "1" else f"a mixture of {best} Gaussians"
    return (
        f"prior: {gaussians} fitted to the latent vectors of {about['rows']:,} rows in "
        f"{about['seconds']:.0f} s: {scores[best]:.1f} nats per held-out row, N(0, I) "
        f"{scores[fitted_prior.STANDARD]:.1f}"
    )


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """Take at most this many rows, evenly spaced, into memory."""
    if len(rows) <= most:
        return np.asarray(rows)
    return np.asarray(rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)])

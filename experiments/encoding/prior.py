"""Fit a prior to a trained run: encode rows, fit, keep the result in the run folder."""

from __future__ import annotations

import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np

from data_pipeline.progress_bar import progress_bar
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.latent import fitted_prior, flow
from musicvae_jax.latent.batches import MAX_BATCH
from musicvae_jax.latent.fitted_prior import FLOW, MIXTURE, Record
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.priors import FittedPrior

# Fewer training rows are not worth a fit.
FEWEST_ROWS = 1_000
# Rows that are encoded at most, spread over all.
MOST_ROWS = {MIXTURE: 20_000, FLOW: 200_000}
MOST_HELD_OUT = 5_000


class Posteriors(NamedTuple):
    """Posteriors of rows: means and standard deviations, [N, Z] float32 each."""

    mu: np.ndarray
    sigma: np.ndarray


def fit_run(
    run_dir: str | pathlib.Path,
    vae: MusicVAE,
    step: int,
    store: data.Store,
    seed: int = 0,
    rows: int | None = None,
    family: str = MIXTURE,
    settings: flow.Settings | None = None,
) -> Record:
    """Fit a prior to the training rows of a store and save it in the run folder.

    Validation rows decide on the number of components of a mixture, and when the training of a flow
    ends; without any, every tenth training row.

    Args:
      run_dir: folder of the run.
      vae: its model.
      step: of the model's checkpoint.
      store: the data.
      seed: random seed of the draws and of the fit.
      rows: training rows to encode at most; None takes those of the family, `MOST_ROWS`.
      family: "mixture" or "flow".
      settings: of a flow.

    Raises:
      InputError: there are too few rows.
    """
    if len(store.splits["train"]) < FEWEST_ROWS:
        raise InputError(
            f"prior: {store.path} has {len(store.splits['train']):,} training rows, at least "
            f"{FEWEST_ROWS:,} are needed to fit one"
        )
    start = time.perf_counter()
    found, z, held_out = _encode_splits(vae, store, rows or MOST_ROWS[family], seed)
    print(f"fitting a prior to the latent vectors of {len(z):,} rows", flush=True)
    if family == FLOW:
        prior, scores = _fit_flow(found, held_out, settings or flow.Settings(), seed)
    else:
        prior, scores = fitted_prior.fit(z, held_out, seed=seed)
    about = {
        "task": vae.task.name,
        "rows": len(z),
        "held_out_rows": len(held_out),
        "held_out_log_likelihood": scores,
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
    }
    fitted_prior.save(run_dir, record := Record(prior, step, about))
    return record


def _encode_splits(
    vae: MusicVAE, store: data.Store, rows: int, seed: int
) -> tuple[Posteriors, np.ndarray, np.ndarray]:
    """Return the posteriors of training rows, a draw from each, and draws of held-out rows."""
    train_key, validation_key = jax.random.split(jax.random.key(seed))
    found = encoded(vae, _spread(store.splits["train"], rows))
    z, validation = draws(found, train_key), store.splits["validation"]
    if len(validation):
        held_out = encoded(vae, _spread(validation, MOST_HELD_OUT))
        return found, z, draws(held_out, validation_key)
    kept = np.arange(len(z)) % 10 != 0
    return Posteriors(found.mu[kept], found.sigma[kept]), z[kept], z[~kept]


def _fit_flow(
    posteriors: Posteriors, held_out: np.ndarray, settings: flow.Settings, seed: int
) -> tuple[FittedPrior, dict[str, float]]:
    """Fit a flow and show how far it is."""
    with progress_bar(total=settings.steps, desc="fitting", unit="step") as bar:

        def report(step: int, score: float) -> None:
            bar.set_postfix_str(f"{score:.2f} nats per held-out row", refresh=False)
            bar.update(step - bar.n)

        return fitted_prior.fit_flow(*posteriors, held_out, settings, seed, report)


def encoded(vae: MusicVAE, rows: np.ndarray) -> Posteriors:
    """Encode rows in batches, with progress."""
    starts = progress_bar(range(0, len(rows), MAX_BATCH), desc="encoding")
    parts = [vae.encode(rows[start : start + MAX_BATCH]) for start in starts]
    mu, sigma = ([np.asarray(getattr(part, name)) for part in parts] for name in ("mu", "sigma"))
    return Posteriors(np.concatenate(mu), np.concatenate(sigma))


def draws(posteriors: Posteriors, key: jax.Array) -> np.ndarray:
    """Draw one z from each posterior: [N, Z] float32."""
    mu, sigma = posteriors
    parts = []
    for start in range(0, len(mu), MAX_BATCH):
        part = slice(start, start + MAX_BATCH)
        noise = jax.random.normal(jax.random.fold_in(key, start), mu[part].shape)
        parts.append(mu[part] + sigma[part] * np.asarray(noise))
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
    names = {"1": "one Gaussian", fitted_prior.FLOW: "a flow"}
    density = names.get(best, f"a mixture of {best} Gaussians")
    return (
        f"prior: {density} fitted to the latent vectors of {about['rows']:,} rows in "
        f"{about['seconds']:.0f} s: {scores[best]:.1f} nats per held-out row, N(0, I) "
        f"{scores[fitted_prior.STANDARD]:.1f}"
    )


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """Take at most this many rows, evenly spaced, into memory."""
    if len(rows) <= most:
        return np.asarray(rows)
    return np.asarray(rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)])

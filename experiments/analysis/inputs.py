"""Inputs of an analysis: generated rows, held-out rows and latents."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np

from data_pipeline.cli import check_choices, option
from experiments.cli.run_data import open_run_data, split_rows
from experiments.cli.run_options import LARGEST_SEED, HeldOutOptions, PriorOptions, check_ranges
from experiments.generation.modes import decode
from musicvae_jax import data
from musicvae_jax.analysis import comparison, latent
from musicvae_jax.analysis.sets import Analysis, Rows
from musicvae_jax.config import InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.tasks import Task
from musicvae_jax.tokens import columns_of, events_of, onsets

SAMPLES, RECONSTRUCTIONS = "samples", "reconstructions"
PROBED_UNITS = 32
PROBE_AMOUNT = 2.0
_PROBE_STARTS = 4
_MAPPED = 1000


@dataclasses.dataclass(frozen=True)
class Options(PriorOptions, HeldOutOptions):
    """What to analyse."""

    num: int = option(1000, help="Number of samples, and largest number of held-out rows.")
    temperature: float = option(1.0, help="Temperature of samples and reconstructions.")
    train_rows: int = option(200_000, help="Training rows to search for copies; 0: all.")

    def __post_init__(self) -> None:
        """Check every field that needs neither model nor data."""
        check_choices(self)
        check_ranges(
            self,
            num=(16, 100_000),
            temperature=(0, math.inf),
            train_rows=(0, math.inf),
            seed=(0, LARGEST_SEED),
        )


class Latents(NamedTuple):
    """Properties of the latent space.

    Attributes:
      units: of the held-out rows' posteriors.
      active_units: how many have a mean that varies by more than 0.01.
      probed: the units with the greatest KL, int64 [P].
      effects: share of steps that each of them changes, float64 [P].
      against_prior: distances from the prior of posterior samples and of samples of the prior.
      compared: distances of the posterior means of each set from those of the held-out rows.
      places: the held-out rows on the first two principal components, float64 [N, 2].
      variance_share: share of the variance that each of these two has.
      density: onsets per bar of those rows, float64 [N].
    """

    units: latent.Units
    active_units: int
    probed: np.ndarray
    effects: np.ndarray
    against_prior: dict[str, dict[str, comparison.Interval]]
    compared: comparison.Compared
    places: np.ndarray
    variance_share: np.ndarray
    density: np.ndarray


class Material(NamedTuple):
    """Rows and latents that one analysis is made from.

    Attributes:
      task: what tokens mean.
      real: held-out rows.
      others: samples and reconstructions.
      train: training rows.
      mu: of the held-out rows, [N, Z].
      sigma: likewise.
    """

    task: Task
    real: Rows
    others: dict[str, Rows]
    train: np.ndarray
    mu: np.ndarray
    sigma: np.ndarray


def open_rows(options: Options, task: Task) -> tuple[data.Store, np.ndarray]:
    """Open the store, and choose held-out rows spread over the split: their places.

    Raises:
      InputError: there is no such store, it is of another task, or it holds no such rows.
    """
    store = open_run_data(options.run_dir, options.data_dir, task, options.allow_changed_data)
    held_out = split_rows(store, options.split)
    comparison.rows_per_side(len(held_out))
    if not len(store.splits["train"]):
        raise InputError(f"data_dir: {store.path} has no train rows to compare with")
    return store, data.spread_rows(len(held_out), options.num)


def gather(vae: MusicVAE, options: Options) -> Material:
    """Draw samples, reconstruct held-out rows, and read what they are compared with."""
    store, stored = open_rows(options, vae.task)
    train = store.splits["train"]
    chosen = data.spread_rows(len(train), options.train_rows)
    real = np.asarray(store.splits[options.split][stored])
    z_key, sample_key, again_key = jax.random.split(jax.random.key(options.seed), 3)
    z = vae.draw(options.num, z_key, options.prior)
    samples = decode(vae, z, sample_key, options.temperature, "samples")
    mu, sigma = (np.asarray(part) for part in vae.encode(real))
    again = decode(vae, mu, again_key, options.temperature, "reconstructions")
    others = {SAMPLES: Rows(samples), RECONSTRUCTIONS: Rows(again, is_paired=True)}
    return Material(vae.task, Rows(real, stored), others, np.asarray(train[chosen]), mu, sigma)


def look_at_latents(vae: MusicVAE, material: Material, analysis: Analysis, seed: int) -> Latents:
    """Measure the latent space on the held-out rows."""
    generator = np.random.default_rng([seed, 1])
    mu, sigma = material.mu.astype(np.float64), material.sigma.astype(np.float64)
    z = mu + sigma * generator.standard_normal(mu.shape)
    units = latent.units(mu, sigma)
    probed = np.argsort(-units.kl_nats, kind="stable")[:PROBED_UNITS]
    starts = generator.standard_normal((_PROBE_STARTS, mu.shape[1]))
    probes = latent.unit_probes(starts, probed, PROBE_AMOUNT)
    flat = probes.reshape(-1, mu.shape[1])
    tokens = decode(vae, flat, jax.random.key(0), 0.0, "units")
    steps = np.concatenate(events_of(tokens, vae.task), axis=-1)
    effects = latent.unit_effects(steps.reshape(*probes.shape[:3], *steps.shape[1:]))
    axes = latent.principal_components(mu, latent.COMPONENTS)
    encoded = {
        name: np.asarray(vae.encode(rows.tokens).mu) for name, rows in material.others.items()
    }
    drawn = comparison.draw_distances(
        latent.set_distances,
        (axes.place(mu), analysis.halves),
        {name: (axes.place(at), analysis.weights[name]) for name, at in encoded.items()},
    )
    density = [
        onsets(column, track).sum(axis=1)
        for column, track in zip(
            columns_of(material.real.tokens, material.task), material.task.tracks, strict=True
        )
    ]
    return Latents(
        units=units,
        active_units=int(np.sum(units.variance > 0.01)),
        probed=probed,
        effects=effects,
        against_prior=latent.against_prior(z, analysis.halves, generator),
        compared=comparison.summarise(drawn),
        places=axes.place(mu)[:_MAPPED, :2],
        variance_share=axes.variance_share[:2],
        density=np.sum(density, axis=0)[:_MAPPED] / material.task.num_bars,
    )

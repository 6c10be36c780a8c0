"""Fit a prior to a trained model, to sample from instead of N(0, I).

Examples:
  python -m experiments.fit_prior --run_dir=runs/mel_2bar
  python -m experiments.fit_prior --run_dir=runs/mel_2bar --family=flow

`experiments.train` does the first at its end. Training rows are encoded, and mixtures of 1 to 50
Gaussians are fitted to their latent vectors; the one with the highest likelihood of validation
rows is kept in the run folder (fitted_prior.npz), unless N(0, I) is better. `experiments.generate`
then draws samples from it; --prior=standard there takes N(0, I).

--family=flow fits a normalising flow instead, which takes minutes. docs/latent.md has measurements:
it helps models whose reconstructions are much better than their samples.

Reference: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 4.
"""

from __future__ import annotations

import dataclasses
import math

from data_pipeline import cli
from data_pipeline.cli import check_choices, option
from experiments.cli import compile_cache
from experiments.cli.run_data import open_run_data
from experiments.cli.run_options import LARGEST_SEED, CheckpointOptions, check_ranges
from experiments.encoding import prior
from musicvae_jax.config import InputError
from musicvae_jax.latent import fitted_prior, flow
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.storage import checkpoints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CheckpointOptions):
    """What to fit."""

    run_dir: str = option(help="Run folder of the model.")
    data_dir: str | None = option(None, help="Token store. Default: the run's own.")
    family: str = option(
        fitted_prior.MIXTURE,
        choices=fitted_prior.FAMILIES,
        help="mixture (of Gaussians: seconds) or flow (minutes; docs/latent.md compares them).",
    )
    rows: int | None = option(
        None,
        help="Largest number of training rows to encode. Default: "
        + ", ".join(f"{most:,} ({family})" for family, most in prior.MOST_ROWS.items())
        + ".",
    )
    steps: int | None = option(
        None,
        help=f"Largest number of training steps of a flow. Default: {flow.Settings.steps:,}.",
    )
    seed: int = option(0, help="Random seed.")

    def __post_init__(self) -> None:
        """Check every field that needs neither model nor data."""
        check_choices(self)
        check_ranges(self, steps=(1, 1e9), seed=(0, LARGEST_SEED))
        check_ranges(self, rows=(prior.FEWEST_ROWS, math.inf))
        if self.steps is not None and self.family != fitted_prior.FLOW:
            raise InputError("steps: has no effect with --family=mixture; leave it out")


def main(options: Options) -> None:
    """Fit the prior and print the likelihood of each candidate."""
    compile_cache.switch_on()
    config, params, step = checkpoints.restore_params(options.run_dir, options.checkpoint)
    vae = MusicVAE(config, params)
    store = open_run_data(options.run_dir, options.data_dir, vae.task, options.allow_changed_data)
    settings = flow.Settings(steps=options.steps or flow.Settings.steps)
    record = prior.fit_run(
        options.run_dir, vae, step, store, options.seed, options.rows, options.family, settings
    )
    print(f"{'density':>12}{'nats per held-out row':>24}")
    for name, score in record.about["held_out_log_likelihood"].items():
        gaussians = f"{name} Gaussian{'' if name == '1' else 's'}"
        label = {"standard": "N(0, I)", "flow": "flow"}.get(name, gaussians)
        print(f"{label:>12}{score:24.2f}")
    print(prior.describe(record))


if __name__ == "__main__":
    cli.run(main, Options)

"""Options shared by the commands that use a trained model, and how they open it."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, NamedTuple

from data_pipeline.cli import check_ranges as check_ranges
from data_pipeline.cli import option
from data_pipeline.command_line import shell_line
from experiments.cli.outputs import check_writable
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.latent import fitted_prior
from musicvae_jax.latent.fitted_prior import FITTED, PRIORS, STANDARD
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import Forecaster, build_model
from musicvae_jax.storage import checkpoints
from musicvae_jax.tasks import get_task

LARGEST_SEED = 2**31 - 1
# Models of other rows than tokens, by their content, and the commands that take them.
_OTHER_MODELS = {
    "sound": ("sound", "evaluate or generate"),
    "note starts": ("piano rolls", "evaluate, generate, analyze, encode or export"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Which checkpoint of a run to use, and whether its data may have changed."""

    checkpoint: str = option("best", help="Checkpoint: best, latest or a saved step.")
    allow_changed_data: bool = option(
        False, help="Accept a token store that has changed since it was written or trained on."
    )


@dataclasses.dataclass(frozen=True)
class ModelOptions(CheckpointOptions):
    """Which trained model to use."""

    run_dir: str | None = option(None, help="Run folder of the model.")
    model: str | None = option(
        None, help="Model of this package, instead of --run_dir; `musicvae models` lists them."
    )


@dataclasses.dataclass(frozen=True)
class DataOptions(ModelOptions):
    """Which trained model to use, and on which data."""

    data_dir: str | None = option(None, help="Token store. Default: the run's own.")


@dataclasses.dataclass(frozen=True)
class HeldOutOptions(DataOptions):
    """Which trained model to compare with held-out rows, and where the results go."""

    split: str = option("test", choices=data.SPLITS[1:], help="Held-out rows: test or validation.")
    output: str | None = option(None, help="Folder to write into. Default: the run folder.")
    seed: int = option(0, help="Random seed for sampling.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorOptions:
    """Which prior samples come from."""

    prior: str | None = option(
        None,
        choices=PRIORS,
        is_enum=True,
        help="Prior to draw from: the one fitted to training rows (experiments.fit_prior) or "
        "N(0, I). Default: fitted, where the model has one.",
    )


class Trained(NamedTuple):
    """A trained model of any architecture: configuration, parameters and optimiser steps done."""

    config: Config
    params: Any
    step: int


def open_trained(options: Any) -> Trained:
    """Load what --run_dir or --model names, whether it has a latent space or not.

    Raises:
      InputError: see `open_model`.
    """
    if check_model(options) == options.run_dir:
        return Trained(*checkpoints.restore_params(options.run_dir, options.checkpoint))
    vae = MusicVAE.from_pretrained(str(options.model))
    return Trained(vae.config, vae.params, vae.step)


def open_forecaster(options: Any) -> tuple[Trained, Forecaster] | None:
    """Load the forecaster that --run_dir names; None if the model has a latent space.

    Raises:
      InputError: see `open_model`.
    """
    if check_model(options) != options.run_dir:
        return None  # all models of the package have one
    config = checkpoints.restore_config(options.run_dir, options.checkpoint)
    model = build_model(config)
    return (open_trained(options), model) if isinstance(model, Forecaster) else None


def open_model(options: Any, *contents: str) -> MusicVAE:
    """Load the model that --run_dir or --model names; see `ModelOptions`.

    Args:
      options: with `ModelOptions`.
      *contents: what else than tokens the model's rows may hold, see `Task.content`.

    Raises:
      InputError: not exactly one of the two is given, there is no such run, checkpoint or model,
        or its rows hold something else.
    """
    check_model(options)
    if options.run_dir:
        task = get_task(checkpoints.restore_config(options.run_dir, options.checkpoint).task)
        if task.content not in ("tokens", *contents):
            what, takers = _OTHER_MODELS[task.content]
            raise InputError(
                f"run_dir: {options.run_dir} is a model of {what}, but this command needs notes; "
                f"use {takers}"
            )
        return MusicVAE.restore(options.run_dir, options.checkpoint)
    return MusicVAE.from_pretrained(str(options.model))


def check_model(options: Any) -> str:
    """Return what names the model: a run folder, or a model of this package.

    Raises:
      InputError: not exactly one of --run_dir and --model is given, or a checkpoint of a model.
    """
    if bool(options.run_dir) == bool(options.model):
        given = "both" if options.model else "neither"
        raise InputError(f"run_dir: give either --run_dir or --model; {given} given")
    if options.model and options.checkpoint != "best":
        raise InputError("checkpoint: a packaged model has only one; use it with --run_dir")
    return str(options.run_dir or options.model)


def output_folder(options: Any) -> pathlib.Path:
    """Return the folder to write results into: --output, or else the run folder.

    Raises:
      InputError: it cannot be written, or --model is given without --output.
    """
    if not (options.output or check_model(options) == options.run_dir):
        raise InputError("output: needed with --model: the folder to write into, --output=DIR")
    return check_writable(options.output or options.run_dir, "output")


def choose_prior(options: Any, vae: MusicVAE) -> str:
    """Return which prior to draw from, "fitted" or "standard".

    If the run has a fitted prior of another checkpoint, it is not used, and a line says so.

    Args:
      options: `ModelOptions` with `PriorOptions`.
      vae: their model.

    Raises:
      InputError: --prior=fitted is given, and there is none of this checkpoint.
    """
    if options.prior == STANDARD:
        return STANDARD
    if vae.prior is not None:
        return FITTED
    advice = shell_line("experiments.fit_prior", [f"--run_dir={options.run_dir}"])
    if options.prior == FITTED:
        where = options.run_dir or options.model
        hint = f"; make it with {advice}" if options.run_dir else ""
        raise InputError(f"prior: {where} has no fitted prior of step {vae.step}{hint}")
    other = fitted_prior.load(options.run_dir) if options.run_dir else None
    if other is not None:
        print(
            f"the fitted prior is of step {other.step}, so N(0, I) is used; "
            f"fit one for step {vae.step} with {advice}"
        )
    return STANDARD


def name_prior(prior: str) -> str:
    """Name a prior in a sentence."""
    return "the fitted prior" if prior == FITTED else "N(0, I)"

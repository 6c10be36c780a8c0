"""What a forecaster generates: continuations of its inputs, or rows from nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np

from experiments.cli.run_options import Trained
from experiments.generation.modes import Music, continuation_titles, numbers
from experiments.generation.options import Options
from musicvae_jax.config import InputError
from musicvae_jax.latent import batches
from musicvae_jax.models.registry import Forecaster
from musicvae_jax.tasks import STEPS_PER_BAR, get_task

MODES = ("continue", "sample")


def check_options(options: Options, architecture: str) -> None:
    """Check that nothing is asked for that needs a latent space.

    Raises:
      InputError: the mode, the prior or the drift does.
    """
    if options.mode not in MODES:
        raise InputError(
            f"mode: {architecture} has no latent space: use --mode=continue or --mode=sample"
        )
    for name in ("prior", "drift"):
        if getattr(options, name) is not None:
            raise InputError(f"{name}: not used by {architecture}, which has no latent space")


@functools.lru_cache(4)
def _compiled(model: Forecaster, num_steps: int, temperature: float) -> Callable[..., jax.Array]:
    """Return a function of parameters, seeds and key that continues the seeds."""
    return jax.jit(
        lambda params, seed, key: model.continuation(params, seed, num_steps, key, temperature)
    )


def make(trained: Trained, model: Forecaster, options: Options, rows: np.ndarray | None) -> Music:
    """Continue each row by `options.bars` bars; without rows write `options.num` whole rows.

    Args:
      trained: configuration and parameters.
      model: the functions of the model.
      options: mode and its settings.
      rows: inputs [N, S] or [N, S, K] for mode "continue", None for "sample".
    """
    task, temperature = get_task(trained.config.task), options.sampling_temperature
    seeds = np.zeros((options.num, 0, *task.row_shape[1:]), np.int32) if rows is None else rows
    num_steps = task.num_steps if rows is None else options.bars * STEPS_PER_BAR

    run = _compiled(model, num_steps, temperature)
    tokens = batches.in_parts(
        lambda part, key: run(trained.params, *part, key),
        (np.asarray(seeds, np.int32),),
        jax.random.key(options.seed),
    ).astype(task.token_dtype)
    no_z = np.zeros((len(tokens), 0), np.float32)
    names = [f"{options.mode}_{number}" for number in numbers(len(tokens))]
    if rows is None:
        titles = [f"sample {number}" for number in range(1, len(tokens) + 1)]
        return Music(tokens, no_z, titles, names)
    titles = continuation_titles(rows)
    pieces = np.concatenate([rows, tokens], axis=1).astype(task.token_dtype)
    return Music(tokens, no_z, titles, names, inputs=rows, pieces=pieces)

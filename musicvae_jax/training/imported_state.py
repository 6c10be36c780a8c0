"""Training state of a run that was started with another program."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from musicvae_jax.config import Config
from musicvae_jax.training.optimiser import AdamState
from musicvae_jax.training.state import TrainState, split_seed, state_from_params

Tree = Any


def state_at(
    step: int, params: Tree, config: Config, adam: tuple[Tree, Tree, int] | None = None
) -> TrainState:
    """Return the training state after `step` steps.

    Args:
      step: number of optimiser steps done; schedules continue from here.
      params: model parameters, float32.
      config: the run's configuration.
      adam: first moment, second moment and number of updates; None resets Adam.
    """
    key = split_seed(config.train.seed)[1]
    if adam is None:
        state = state_from_params(params, config, key)
    else:
        # Empty parameters avoid allocating zeros for the moments.
        state = state_from_params({}, config, key)
        first, second, updates = adam
        moments = AdamState(jnp.int32(updates), first, second)
        chain = tuple(moments if isinstance(part, AdamState) else part for part in state.optimiser)
        state = dataclasses.replace(state, params=params, optimiser=chain)
    return dataclasses.replace(state, step=jnp.int32(step))

"""The state of a training, and how it begins."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.config import Config
from musicvae_jax.models.registry import Model
from musicvae_jax.training.early_stopping import Patience, first_patience
from musicvae_jax.training.optimiser import Hyperparameters, hyperparameters, make_optimiser

Tree = Any


@flax.struct.dataclass
class TrainState:
    """Training state carried from step to step.

    Attributes:
      step: number of optimiser steps done, int32 [].
      params: model parameters, float32.
      optimiser: state of the optimiser.
      hyper: hyper-parameters that a sweep may vary.
      key_data: data of the run's random key, uint32.
      zeroed: number of steps whose gradient was zeroed because of its norm, int32 [].
      skipped: number of steps skipped because loss or gradient was not finite, int32 [].
      patience: state of plateau learning-rate decay and early stopping.
    """

    step: jax.Array
    params: Tree
    optimiser: Tree
    hyper: Hyperparameters
    key_data: jax.Array
    zeroed: jax.Array
    skipped: jax.Array
    patience: Patience


def init_state(model: Model, config: Config) -> TrainState:
    """Return the state at step 0 with random parameters from the configuration's seed."""
    init_key, run_key = split_seed(config.train.seed)
    return state_from_params(model.init(init_key), config, run_key)


def split_seed(seed: int) -> tuple[jax.Array, jax.Array]:
    """Return the random keys of a run: one for its parameters, one for its steps."""
    init_key, run_key = jax.random.split(jax.random.key(seed))
    return init_key, run_key


def state_from_params(params: Tree, config: Config, key: jax.Array) -> TrainState:
    """Return the state at step 0 with given parameters; `key` is the run's random key."""
    return TrainState(
        step=jnp.int32(0),
        params=params,
        optimiser=make_optimiser(config.train.clip_mode).init(params),
        hyper=hyperparameters(config.train),
        key_data=jax.random.key_data(key),
        zeroed=jnp.int32(0),
        skipped=jnp.int32(0),
        patience=jax.tree.map(jnp.asarray, first_patience()),
    )


def count_parameters(params: Tree) -> int:
    """Count the elements of all arrays in a tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))

"""The state of a training, and how it begins."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.config import Config, TrainConfig
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
    return make_init(model, config.train.clip_mode)(*init_arguments(config.train))


def state_shapes(model: Model, config: Config) -> TrainState:
    """Return the shapes and types of the arrays of a state."""
    init: Callable[..., TrainState] = make_init(model, config.train.clip_mode)
    return jax.eval_shape(init, *init_arguments(config.train))


def drawn_state(model: Model, config: Config, shardings: Any) -> TrainState:
    """Compute `init_state` on the devices, with the sharding of each array."""
    init = jax.jit(make_init(model, config.train.clip_mode), out_shardings=shardings)
    return init(*init_arguments(config.train))


def init_arguments(train: TrainConfig) -> tuple[np.ndarray, np.ndarray, Hyperparameters]:
    """Return what the state at step 0 depends on besides the model, on the host.

    Returns:
      the data of the keys of parameters and steps, uint32, and the hyper-parameters.
    """
    keys = jax.device_get([jax.random.key_data(key) for key in split_seed(train.seed)])
    return *keys, jax.device_get(hyperparameters(train))


# Kept, so that trainings of equal models share what JAX traces and compiles.
@functools.lru_cache(4)
def make_init(model: Model, clip_mode: str) -> Callable[..., TrainState]:
    """Build the function from `init_arguments` to the state at step 0."""

    def init(params_key: jax.Array, steps_key: jax.Array, hyper: Hyperparameters) -> TrainState:
        params = model.init(jax.random.wrap_key_data(params_key))
        return _first_state(params, clip_mode, steps_key, hyper)

    return init


def split_seed(seed: int) -> tuple[jax.Array, jax.Array]:
    """Return the random keys of a run: one for its parameters, one for its steps."""
    init_key, run_key = jax.random.split(jax.random.key(seed))
    return init_key, run_key


def state_from_params(params: Tree, config: Config, key: jax.Array) -> TrainState:
    """Return the state at step 0 with given parameters; `key` is the run's random key."""
    train = config.train
    return _first_state(params, train.clip_mode, jax.random.key_data(key), hyperparameters(train))


def _first_state(
    params: Tree, clip_mode: str, key_data: jax.Array, hyper: Hyperparameters
) -> TrainState:
    """Return the state at step 0."""
    return TrainState(
        step=jnp.int32(0),
        params=params,
        # That of "muon" is the same.
        optimiser=make_optimiser("adam", clip_mode).init(params),
        hyper=jax.tree.map(jnp.asarray, hyper),
        key_data=jnp.asarray(key_data),
        zeroed=jnp.int32(0),
        skipped=jnp.int32(0),
        patience=jax.tree.map(jnp.asarray, first_patience()),
    )


def count_parameters(params: Tree) -> int:
    """Count the elements of all arrays in a tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))

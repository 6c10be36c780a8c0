"""Schedules of the learning rate: warm-up, and decay with the number of steps.

The schedule "plateau" depends on validation scores instead; `early_stopping` computes its factor.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from musicvae_jax.training.optimiser import Hyperparameters


def learning_rate_at(
    step: jax.Array,
    hyper: Hyperparameters,
    schedule: str = "exponential",
    scale: jax.Array | float = 1.0,
) -> jax.Array:
    """Compute the learning rate of a step, float32 []; the first step is 0.

    Args:
      step: int32 [].
      hyper: parameters of the schedules.
      schedule: one of `config.LEARNING_RATE_SCHEDULES`.
      scale: learning-rate factor accumulated by "plateau".
    """
    n = step.astype(jnp.float32)
    warm = jnp.minimum(n / jnp.maximum(hyper.warmup_steps, 1.0), 1.0)
    warm = jnp.where(hyper.warmup_steps > 0, warm, 1.0)
    if schedule == "constant":
        return hyper.learning_rate * warm
    if schedule == "plateau":
        return jnp.maximum(hyper.learning_rate * scale, hyper.min_learning_rate) * warm
    if schedule == "cosine":
        length = jnp.maximum(hyper.cosine_steps - hyper.warmup_steps, 1.0)
        done = jnp.clip((n - hyper.warmup_steps) / length, 0.0, 1.0)
        decay = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    else:
        decay = jnp.power(hyper.decay_rate, n)
    rate = (hyper.learning_rate - hyper.min_learning_rate) * decay + hyper.min_learning_rate
    return rate * warm

"""Terms of the training loss, per example.

Reference: `_compute_model_loss` in magenta/models/music_vae/base_model.py and
`get_sampling_probability` in lstm_utils.py there.

Differences from the reference: none in the gradient. `free_bits_cost` is the reference's
cost, max(KL - tau, 0); `free_bits_kl` is the paper's form, max(KL, tau), larger by tau.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from musicvae_jax.config import BETA_SCHEDULES, SAMPLING_SCHEDULES, InputError


def reconstruction_nats_per_track(
    logits: Sequence[jax.Array], tokens: jax.Array, lengths: jax.Array | None = None
) -> jax.Array:
    """Compute the cross-entropy of each column, summed over the valid steps.

    Args:
      logits: K arrays [B, T, V_k] float32.
      tokens: [B, T] or [B, T, K] integer.
      lengths: number of valid steps per example [B] or per bar [B, U], int32; None for all.

    Returns:
      [B, K] float32, nats.
    """
    return _over_steps(_cross_entropy, logits, tokens, lengths)


def bernoulli_nats_per_track(
    logits: Sequence[jax.Array], tokens: jax.Array, lengths: jax.Array | None = None
) -> jax.Array:
    """Compute the cross-entropy of each column's one-hots, each cell a Bernoulli variable.

    Args and result are those of `reconstruction_nats_per_track`; logits are those of the cells.
    """
    return _over_steps(_bernoulli_cross_entropy, logits, tokens, lengths)


def _over_steps(
    cost: Callable[[jax.Array, jax.Array], jax.Array],
    logits: Sequence[jax.Array],
    tokens: jax.Array,
    lengths: jax.Array | None,
) -> jax.Array:
    """Sum `cost(logits [B, T, V], tokens [B, T])` [B, T] of each column over the valid steps."""
    columns = tokens[..., None] if tokens.ndim == 2 else tokens
    costs = jnp.stack([cost(column, columns[..., k]) for k, column in enumerate(logits)], axis=-1)
    if lengths is not None:
        B, T, _ = costs.shape
        parts = lengths.reshape(B, -1, 1)  # one part per row, or one per bar
        counts = (jnp.arange(T // parts.shape[1])[None, None, :] < parts).reshape(B, T)
        costs = jnp.where(counts[..., None], costs, 0.0)
    return costs.sum(axis=1)


def _cross_entropy(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Compute -log p of each token: logits [B, T, V], tokens [B, T] -> [B, T] nats."""
    return jax.nn.logsumexp(logits, axis=-1) - _chosen(logits, tokens)


def _bernoulli_cross_entropy(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Compute -log p of each step's one-hot: logits [B, T, V], tokens [B, T] -> [B, T] nats."""
    return jax.nn.softplus(logits).sum(axis=-1) - _chosen(logits, tokens)


def _chosen(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Take the logit of each token: [B, T, V], [B, T] -> [B, T]."""
    # A comparison instead of a gather, because its gradient is element-wise and not a scatter.
    values = jnp.arange(logits.shape[-1])[None, None, :]
    return jnp.where(values == tokens[..., None], logits, 0.0).sum(axis=-1)


def reconstruction_nats(
    logits: Sequence[jax.Array], tokens: jax.Array, lengths: jax.Array | None = None
) -> jax.Array:
    """Compute -log p(tokens | z), summed over steps and columns: [B] float32, nats.

    The arguments are those of `reconstruction_nats_per_track`.
    """
    return reconstruction_nats_per_track(logits, tokens, lengths).sum(axis=-1)


def kl_nats(posterior: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Compute KL(q(z | tokens) || N(0, 1)), summed over the latent dimensions.

    Args:
      posterior: mu and sigma (standard deviation), [B, Z] float32.

    Returns:
      [B] float32, nats.
    """
    mu, sigma = posterior
    return 0.5 * (mu**2 + sigma**2 - 1.0 - 2.0 * jnp.log(sigma)).sum(axis=-1)


def free_nats(free_bits: jax.Array | float) -> jax.Array | float:
    """Convert bits to nats."""
    return free_bits * math.log(2.0)


def free_bits_cost(kl: jax.Array, free_bits: jax.Array | float) -> jax.Array:
    """Compute the reference's cost max(kl - tau, 0): kl [B] nats, tau in bits -> [B] nats."""
    return jnp.maximum(kl - free_nats(free_bits), 0.0)


def free_bits_kl(kl: jax.Array, free_bits: jax.Array | float) -> jax.Array:
    """Compute the paper's term max(kl, tau): kl [B] nats, tau in bits -> [B] nats.

    It has the same gradient as `free_bits_cost`. Reference: Roberts et al. 2018, section 2.1.
    """
    return jnp.maximum(kl, free_nats(free_bits))


def beta_at(
    step: jax.Array | int, beta: jax.Array | float, beta_rate: jax.Array | float
) -> jax.Array:
    """Compute the weight of the KL term, beta * (1 - beta_rate**step), in float32.

    A rate of 0 gives 0 at step 0 and `beta` from step 1 on.

    Args:
      step: number of updates before this one.
      beta: largest weight.
      beta_rate: from 0 to 1, rounded to float32 first, as the reference does.

    Returns:
      A float32 scalar.
    """
    rate = jnp.asarray(beta_rate, jnp.float32)
    return jnp.asarray(beta, jnp.float32) * (1.0 - rate ** jnp.asarray(step, jnp.float32))


def scheduled_beta(
    step: jax.Array | int,
    schedule: str,
    beta: jax.Array | float,
    *,
    rate: jax.Array | float = 0.0,
    steps: jax.Array | float = 1.0,
    rise: jax.Array | float = 0.5,
) -> jax.Array:
    """Compute the weight of the KL term under any schedule, in float32.

    Args:
      step: number of updates before this one.
      schedule: "annealed" (`beta_at`), "constant", "linear" (from 0 to `beta` over `steps`) or
        "cyclical" (rises from 0 to `beta` over the fraction `rise` of each cycle of `steps`).
      beta: largest weight.
      rate: `beta_rate` of "annealed".
      steps: length of the rise in "linear", or of a cycle in "cyclical".
      rise: fraction of a cycle in which "cyclical" rises.

    Returns:
      A float32 scalar.

    Raises:
      InputError: the schedule is unknown.

    Reference: Fu et al. 2019, "Cyclical Annealing Schedule", for "cyclical".
    """
    beta = jnp.asarray(beta, jnp.float32)
    n, steps = jnp.asarray(step, jnp.float32), jnp.asarray(steps, jnp.float32)
    if schedule == "annealed":
        return beta_at(step, beta, rate)
    if schedule == "constant":
        return beta
    if schedule == "linear":
        return beta * jnp.minimum(n / steps, 1.0)
    if schedule == "cyclical":
        return beta * jnp.minimum(jnp.mod(n, steps) / (steps * rise), 1.0)
    choices = ", ".join(BETA_SCHEDULES)
    raise InputError(f"beta_schedule: {schedule!r} is not one of {choices}")


def sampling_probability_at(
    step: jax.Array | int, schedule: str, rate: jax.Array | float
) -> jax.Array:
    """Compute the probability of feeding back a sample instead of the true token.

    Args:
      step: number of updates before this one.
      schedule: "constant" (`rate`), "inverse_sigmoid" (1 - k / (k + exp(step / k)) with
        k = `rate` steps) or "exponential" (1 - rate**step).
      rate: parameter of the schedule.

    Returns:
      A float32 scalar.

    Raises:
      InputError: the schedule is unknown.
    """
    step = jnp.asarray(step, jnp.float32)
    rate = jnp.asarray(rate, jnp.float32)
    if schedule == "constant":
        return rate
    if schedule == "inverse_sigmoid":
        return 1.0 - rate / (rate + jnp.exp(step / rate))
    if schedule == "exponential":
        return 1.0 - rate**step
    choices = ", ".join(SAMPLING_SCHEDULES)
    raise InputError(f"sampling_schedule: {schedule!r} is not one of {choices}")

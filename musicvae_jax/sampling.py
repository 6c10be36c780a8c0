"""From the latent space to tokens and back: prior samples, reconstructions, interpolations.

Pure functions of a model and its parameters. Jit what is called often, with `temperature`
static where it is 0.

Reference: magenta/models/music_vae/trained_model.py.

Differences from the reference: `slerp` is defined for equal, opposite and zero ends;
a temperature of 0 takes the best token.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from musicvae_jax import objectives
from musicvae_jax.models.registry import Model, Params

# Below this sine the arc is a straight line to float32 precision, or has no direction.
_MIN_SINE = 1e-3


class Decoded(NamedTuple):
    """Tokens and the z they come from.

    Attributes:
      tokens: [B, T] or [B, T, K] int32.
      z: [B, Z] float32.
    """

    tokens: jax.Array
    z: jax.Array


class LogLikelihood(NamedTuple):
    """Lower bounds of log p(tokens), per example.

    Attributes:
      elbo: [B] float32, nats; the KL term is exact, the reconstruction a mean over samples.
      importance_weighted: [B] float32, nats; tighter the more samples are drawn.
    """

    elbo: jax.Array
    importance_weighted: jax.Array


def latent_size(params: Params) -> int:
    """Return Z of a model's parameters."""
    return params["encoder"]["mu"]["bias"].shape[0]


def prior(
    model: Model, params: Params, key: jax.Array, num: int, temperature: jax.Array | float = 1.0
) -> Decoded:
    """Draw `num` z from N(0, 1) and decode them.

    Args:
      model: the model.
      params: its parameters.
      key: random key, of z and of the tokens.
      num: B.
      temperature: divides the logits; 0 takes the best token.
    """
    z_key, token_key = jax.random.split(key)
    z = jax.random.normal(z_key, (num, latent_size(params)))
    return Decoded(model.generate(params, z, token_key, temperature), z)


def reconstruct(
    model: Model,
    params: Params,
    tokens: jax.Array,
    key: jax.Array,
    temperature: jax.Array | float = 0.0,
    lengths: jax.Array | None = None,
) -> Decoded:
    """Encode tokens and decode the mean of their posterior.

    Args:
      model: the model.
      params: its parameters.
      tokens: [B, T] or [B, T, K] integer.
      key: random key of the decoded tokens.
      temperature: divides the logits; 0 takes the best token.
      lengths: [B] int32, steps of each example that count, or None for T.
    """
    z = model.encode(params, tokens, lengths).mu
    return Decoded(model.generate(params, z, key, temperature), z)


def interpolate(
    model: Model,
    params: Params,
    ends: tuple[jax.Array, jax.Array],
    steps: int,
    key: jax.Array,
    temperature: jax.Array | float = 0.0,
) -> Decoded:
    """Decode points on the arc between two z.

    Args:
      model: the model.
      params: its parameters.
      ends: two z, each [Z] float32.
      steps: number of points, both ends included.
      key: random key of the decoded tokens.
      temperature: divides the logits; 0 takes the best token.

    Returns:
      tokens [steps, T] or [steps, T, K], z [steps, Z].
    """
    z = slerp(ends[0], ends[1], jnp.linspace(0.0, 1.0, steps))
    return Decoded(model.generate(params, z, key, temperature), z)


def slerp(a: jax.Array, b: jax.Array, fractions: jax.Array) -> jax.Array:
    """Move from a to b along the arc, at constant angular speed.

    Where the angle is 0 or 180 degrees or an end is 0, the arc has no direction and the path
    is the straight line.

    Args:
      a: [Z] float32, at fraction 0.
      b: [Z] float32, at fraction 1.
      fractions: [N] float32.

    Returns:
      [N, Z] float32.

    Reference: `_slerp` in magenta/models/music_vae/trained_model.py.
    """
    unit_a, unit_b = _unit(a), _unit(b)
    # arccos of the product loses all digits of small angles in float32.
    chord, sum_length = jnp.linalg.norm(unit_a - unit_b), jnp.linalg.norm(unit_a + unit_b)
    angle = 2.0 * jnp.arctan2(chord, sum_length)
    sine = jnp.sin(angle)
    has_ends = (jnp.linalg.norm(unit_a) > 0.5) & (jnp.linalg.norm(unit_b) > 0.5)
    is_arc = (sine > _MIN_SINE) & has_ends
    safe = jnp.where(is_arc, sine, 1.0)
    weight_a = jnp.where(is_arc, jnp.sin((1.0 - fractions) * angle) / safe, 1.0 - fractions)
    weight_b = jnp.where(is_arc, jnp.sin(fractions * angle) / safe, fractions)
    return weight_a[:, None] * a[None, :] + weight_b[:, None] * b[None, :]


def _unit(x: jax.Array) -> jax.Array:
    """Return x at length 1, or 0 if x is 0."""
    norm = jnp.linalg.norm(x)
    return x / jnp.where(norm > 0.0, norm, 1.0)


def log_likelihood(
    model: Model,
    params: Params,
    tokens: jax.Array,
    key: jax.Array,
    num_samples: int,
    lengths: jax.Array | None = None,
) -> LogLikelihood:
    """Bound log p(tokens) from below.

    Args:
      model: the model.
      params: its parameters.
      tokens: [B, T] or [B, T, K] integer.
      key: random key of z.
      num_samples: z drawn of each example's posterior, one after the other.
      lengths: [B] int32, steps of each example that count, or None for T.

    Reference: Burda et al. 2016, "Importance Weighted Autoencoders", equation 8.
    """
    posterior = model.encode(params, tokens, lengths)

    def one(sample_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        eps = jax.random.normal(sample_key, posterior.mu.shape)
        z = posterior.mu + posterior.sigma * eps
        logits = model.logits(params, z, tokens)
        log_p_tokens = -objectives.reconstruction_nats(logits, tokens, lengths)
        # log N(z; 0, 1) - log N(z; mu, sigma): the constants cancel.
        log_ratio = (0.5 * (eps**2 - z**2) + jnp.log(posterior.sigma)).sum(axis=-1)
        return log_p_tokens, log_p_tokens + log_ratio

    log_p_tokens, log_weights = jax.lax.map(one, jax.random.split(key, num_samples))
    elbo = log_p_tokens.mean(axis=0) - objectives.kl_nats(posterior)
    bound = jax.nn.logsumexp(log_weights, axis=0) - math.log(num_samples)
    return LogLikelihood(elbo, bound)

"""Decoding, variations, continuations and bounds of the likelihood: pure functions of a model.

They can be jitted; `temperature` must be static where it is 0. `model.encode(params, tokens).mu`
gives the z of a piece, `fitted_prior.draw` samples from the prior, and `paths` the points of an
interpolation, a grid, an attribute or a long piece, which `decode` turns into tokens.

Reference: magenta/models/music_vae/trained_model.py.

Differences from the reference: a temperature of 0 takes the best token; see also `paths`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from musicvae_jax import objectives
from musicvae_jax.latent import fitted_prior, paths
from musicvae_jax.models.registry import VAE, Params
from musicvae_jax.priors import FittedPrior
from musicvae_jax.tasks import FIRST_NOTE_ON, NO_EVENT, NOTE_OFF, Task


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


def decode(
    model: VAE, params: Params, z: jax.Array, key: jax.Array, temperature: jax.Array | float = 0.0
) -> Decoded:
    """Decode points z [..., Z] in one batch: tokens [..., T] or [..., T, K], and z.

    Args:
      model: the model.
      params: its parameters.
      z: [..., Z] float32.
      key: random key of the tokens.
      temperature: divides the logits; 0 takes the best token.
    """
    tokens = model.generate(params, z.reshape(-1, z.shape[-1]), key, temperature)
    return Decoded(tokens.reshape(*z.shape[:-1], *tokens.shape[1:]), z)


def similar(
    model: VAE,
    params: Params,
    z: jax.Array,
    amount: jax.Array | float,
    key: jax.Array,
    temperature: jax.Array | float = 0.0,
    fitted: FittedPrior | None = None,
) -> Decoded:
    """Decode a variation of each z: a point between it and a sample from the prior.

    Args:
      model: the model.
      params: its parameters.
      z: [B, Z] float32.
      amount: scalar or [B], 0 (z itself) to 1 (an independent sample), see `paths.similar`.
      key: random key, of the draws and of the tokens.
      temperature: divides the logits; 0 takes the best token.
      fitted: prior fitted to training rows; None for N(0, I).
    """
    z_key, token_key = jax.random.split(key)
    points = paths.similar(z, fitted_prior.draw(fitted, z_key, *z.shape), amount)
    return decode(model, params, points, token_key, temperature)


def continuation(
    model: VAE,
    params: Params,
    z: jax.Array,
    num_windows: int,
    drift: jax.Array | float,
    key: jax.Array,
    temperature: jax.Array | float = 0.0,
    fitted: FittedPrior | None = None,
) -> Decoded:
    """Continue pieces by windows that are each a variation of the previous one.

    The z of a window is that of the previous window, encoded again and moved by `drift` towards a
    sample from the prior (`paths.similar`). The decoder sees nothing else of the previous window:
    the continuation keeps the style but does not complete a phrase or a held note. Without drift,
    windows are reconstructions of reconstructions.

    Args:
      model: the model.
      params: its parameters.
      z: [B, Z] float32, the encoded end of each piece.
      num_windows: W.
      drift: 0 (reconstructions of the previous window) to 1 (samples from the prior).
      key: random key, of the drift and of the tokens.
      temperature: divides the logits; 0 takes the best token.
      fitted: prior fitted to training rows; None for N(0, I).

    Returns:
      tokens [B, W, T] or [B, W, T, K], z [B, W, Z].
    """

    def window(end: jax.Array, step_key: jax.Array) -> tuple[jax.Array, Decoded]:
        made = similar(model, params, end, drift, step_key, temperature, fitted)
        return model.encode(params, made.tokens).mu, made

    _, made = jax.lax.scan(window, z, jax.random.split(key, num_windows))
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), made)


def join_windows(tokens: jax.Array, task: Task) -> jax.Array:
    """Concatenate windows; no note continues from one window into the next.

    Args:
      tokens: [B, W, T] or [B, W, T, K] integer.
      task: the task of the tokens.

    Returns:
      [B, W * T] or [B, W * T, K] of the same type. Where a melody's window ends with a note
      that sounds and the next begins with no event, that step is a note off.
    """
    B, W, T = tokens.shape[:3]
    columns = tokens.reshape(B, W, T, len(task.tracks))
    melodic = jnp.array([track.is_pitched for track in task.tracks])[None, None, :]
    steps = jnp.arange(T)[None, None, :, None]
    last = jnp.where(columns == NO_EVENT, -1, steps).max(axis=2)
    event = jnp.take_along_axis(columns, jnp.maximum(last, 0)[:, :, None], axis=2)[:, :, 0]
    sounds = (event >= FIRST_NOTE_ON)[:, :-1]
    first = columns[:, 1:, 0]
    stopped = jnp.where(sounds & (first == NO_EVENT) & melodic, NOTE_OFF, first)
    joined = columns.at[:, 1:, 0].set(stopped.astype(tokens.dtype))
    return joined.reshape(B, W * T, *task.row_shape[1:])


def log_likelihood(
    model: VAE,
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
      num_samples: samples of z from each example's posterior, decoded one after another.
      lengths: [B] int32, steps of each example that count, or None for T.

    Reference: Burda et al. 2016, "Importance Weighted Autoencoders", equation 8.
    """
    posterior = model.encode(params, tokens, lengths)

    def one(sample_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        eps = jax.random.normal(sample_key, posterior.mu.shape)
        z = posterior.mu + posterior.sigma * eps
        logits = model.logits(params, z, tokens)
        log_p_tokens = -model.nats(logits, tokens, lengths).sum(axis=-1)
        # log N(z; 0, 1) - log N(z; mu, sigma): the constants cancel.
        log_ratio = (0.5 * (eps**2 - z**2) + jnp.log(posterior.sigma)).sum(axis=-1)
        return log_p_tokens, log_p_tokens + log_ratio

    log_p_tokens, log_weights = jax.lax.map(one, jax.random.split(key, num_samples))
    elbo = log_p_tokens.mean(axis=0) - objectives.kl_nats(posterior)
    bound = jax.nn.logsumexp(log_weights, axis=0) - math.log(num_samples)
    return LogLikelihood(elbo, bound)

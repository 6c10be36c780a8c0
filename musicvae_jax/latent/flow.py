"""A normalising flow over z: its density, draws from it, and how it is fitted to posteriors.

Affine coupling layers (Dinh et al. 2017, "Density estimation using Real NVP") turn z into noise of
N(0, I) one after the other. Each leaves half of the dimensions as they are; a network with one
residual layer computes from them by how much the others are shifted and scaled. Which dimensions
these are is drawn for every second layer; the layer after it takes the other half.

A flow is fitted by maximum likelihood to draws from the posteriors of training rows. The draws are
new in every step, so the flow learns the aggregate posterior and not one sample of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from musicvae_jax.priors import Flow

# Logarithms of scales are below this, so that no layer can shrink a dimension to a point.
LARGEST_LOG_SCALE = 2.0
_LAYER_FIELDS = Flow._fields[2:]  # orders, then what is trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How large a flow is and how it is trained.

    Attributes:
      layers: L.
      units: H, of the hidden layer.
      steps: optimiser steps at most.
      batch_size: draws per step.
      learning_rate: of Adam, falling to 0 with the cosine of the steps.
      weight_decay: of AdamW.
      average: decay of the exponential average of the weights that is kept; smaller in the first
        steps.
      score_every: steps between scores on the held-out draws.
      patience: scores without improvement that end the training.
    """

    layers: int = 8
    units: int = 256
    steps: int = 6_000
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    average: float = 0.999
    score_every: int = 500
    patience: int = 3


def _layers(flow: Flow) -> tuple[Any, ...]:
    """Return the arrays that have an entry for each layer."""
    return tuple(jnp.asarray(getattr(flow, name)) for name in _LAYER_FIELDS)


def _coupling(layer: tuple[jax.Array, ...], read: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute shifts and logarithms of scales, [B, Z2] each, from [B, Z1]."""
    kernel_in, bias_in, kernel_hidden, bias_hidden, kernel_out, bias_out = layer
    hidden = jax.nn.silu(read @ kernel_in + bias_in[None])
    hidden = hidden + jax.nn.silu(hidden @ kernel_hidden + bias_hidden[None])
    shift, log_scale = jnp.split(hidden @ kernel_out + bias_out[None], 2, axis=-1)
    return shift, LARGEST_LOG_SCALE * jnp.tanh(log_scale / LARGEST_LOG_SCALE)


@jax.jit
def log_density(flow: Flow, z: np.ndarray) -> jax.Array:
    """Compute log p(z), nats: [N] float32 for z [N, Z]."""

    def towards_noise(x: jax.Array, layer: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        order, *network = layer
        read, rest = jnp.split(x[:, order], [x.shape[1] // 2], axis=1)
        shift, log_scale = _coupling(tuple(network), read)
        changed = jnp.concatenate([read, (rest - shift) * jnp.exp(-log_scale)], axis=1)
        return changed[:, jnp.argsort(order)], -jnp.sum(log_scale, axis=-1)

    scale = jnp.asarray(flow.scale)
    x = (jnp.asarray(z) - jnp.asarray(flow.shift)[None]) / scale[None]
    noise, log_volumes = jax.lax.scan(towards_noise, x, _layers(flow))
    constant = 0.5 * noise.shape[1] * jnp.log(2 * jnp.pi) + jnp.sum(jnp.log(scale))
    return jnp.sum(log_volumes, axis=0) - 0.5 * jnp.sum(noise**2, axis=-1) - constant


@functools.partial(jax.jit, static_argnames="num")
def sample(flow: Flow, key: jax.Array, num: int) -> jax.Array:
    """Draw z [num, Z] float32."""

    def towards_z(x: jax.Array, layer: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        order, *network = layer
        read, rest = jnp.split(x[:, order], [x.shape[1] // 2], axis=1)
        shift, log_scale = _coupling(tuple(network), read)
        changed = jnp.concatenate([read, rest * jnp.exp(log_scale) + shift], axis=1)
        return changed[:, jnp.argsort(order)], None

    noise = jax.random.normal(key, (num, flow.orders.shape[1]))
    x, _ = jax.lax.scan(towards_z, noise, _layers(flow), reverse=True)
    return x * jnp.asarray(flow.scale)[None] + jnp.asarray(flow.shift)[None]


def first(mu: np.ndarray, sigma: np.ndarray, settings: Settings, seed: int = 0) -> Flow:
    """Return the flow at the start of the training: a Gaussian with the posteriors' moments."""
    generator = np.random.default_rng(seed)
    L, H, Z = settings.layers, settings.units, mu.shape[1]
    Z1 = Z // 2

    def normal(deviation: float, *shape: int) -> np.ndarray:
        return (deviation * generator.standard_normal(shape)).astype(np.float32)

    orders = np.zeros((L, Z), np.int32)
    for layer in range(L):
        orders[layer] = generator.permutation(Z) if layer % 2 == 0 else orders[layer - 1][::-1]
    variances = np.var(mu, axis=0, dtype=np.float64) + np.mean(
        np.square(sigma, dtype=np.float64), 0
    )
    return Flow(
        shift=np.asarray(np.mean(mu, axis=0, dtype=np.float64), np.float32),
        scale=np.asarray(np.sqrt(variances), np.float32),
        orders=orders,
        kernels_in=normal(Z1**-0.5, L, Z1, H),
        biases_in=np.zeros((L, H), np.float32),
        kernels_hidden=normal((2 / H) ** 0.5, L, H, H),
        biases_hidden=np.zeros((L, H), np.float32),
        kernels_out=np.zeros((L, H, 2 * (Z - Z1)), np.float32),
        biases_out=np.zeros((L, 2 * (Z - Z1)), np.float32),
    )


def fit(
    mu: np.ndarray,
    sigma: np.ndarray,
    held_out: np.ndarray,
    settings: Settings | None = None,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda step, score: None,
) -> Flow:
    """Fit a flow to posteriors and keep the average weights with the best score.

    Args:
      mu: [N, Z], means of the posteriors of training rows.
      sigma: [N, Z], their standard deviations.
      held_out: [M, Z], draws from the posteriors of other rows; the score is their mean
        log-likelihood, nats per row.
      settings: sizes and training; None takes the defaults.
      seed: random seed of the weights and of the draws.
      report: called with the number of steps done and the score after every scoring.
    """
    settings = settings or Settings()
    flow = jax.tree.map(jnp.asarray, first(mu, sigma, settings, seed))
    fixed = flow._asdict()
    weights = {name: fixed.pop(name) for name in Flow._fields[3:]}
    posteriors, key = (jnp.asarray(mu), jnp.asarray(sigma)), jax.random.key(seed)

    def as_flow(trained: dict[str, Any]) -> Flow:
        return Flow(**fixed, **trained)

    def score(trained: dict[str, jax.Array]) -> float:
        return float(jnp.mean(log_density(as_flow(trained), held_out)))

    optimiser = _optimiser(settings)
    train = _train_step(as_flow, optimiser, settings)
    state = (weights, jax.tree.map(jnp.copy, weights), optimiser.init(weights))
    best, best_score, waited = as_flow(jax.device_get(weights)), score(weights), 0
    for step in range(1, settings.steps + 1):
        state = train(state, key, jnp.int32(step), *posteriors)
        if step % settings.score_every and step < settings.steps:
            continue
        now = score(state[1])
        report(step, now)
        waited += 1
        if now > best_score:
            best, best_score, waited = as_flow(jax.device_get(state[1])), now, 0
        elif waited >= settings.patience:
            break
    return jax.tree.map(np.asarray, best)


def _optimiser(settings: Settings) -> optax.GradientTransformation:
    """Build AdamW with clipped gradients and a cosine decay of the rate."""
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    adam = optax.adamw(rate, weight_decay=settings.weight_decay)
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def _train_step(
    as_flow: Callable[[dict[str, Any]], Flow],
    optimiser: optax.GradientTransformation,
    settings: Settings,
) -> Callable[..., Any]:
    """Build the step on new draws: the state is the weights, their average, the optimiser's."""

    @functools.partial(jax.jit, donate_argnums=0)
    def train(state: Any, key: jax.Array, step: jax.Array, mu: jax.Array, sigma: jax.Array) -> Any:
        weights, average, memory = state
        row_key, noise_key = jax.random.split(jax.random.fold_in(key, step))
        rows = jax.random.randint(row_key, (settings.batch_size,), 0, len(mu))
        noise = jax.random.normal(noise_key, (settings.batch_size, mu.shape[1]))
        z = mu[rows] + sigma[rows] * noise
        gradient = jax.grad(lambda tree: -jnp.mean(log_density(as_flow(tree), z)))(weights)
        updates, memory = optimiser.update(gradient, memory, weights)
        weights = optax.apply_updates(weights, updates)
        share = jnp.maximum(1 - settings.average, 10 / (10 + step))
        average = jax.tree.map(lambda a, w: a + share * (w - a), average, weights)
        return weights, average, memory

    return train

"""The compiled functions of a model, shared by all instances of `MusicVAE` with equal sizes.

Two checkpoints of a run, or the points of a sweep over learning rates, differ in their parameters
only, which are arguments here. So each function is traced and compiled once in a process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from musicvae_jax.latent import operations
from musicvae_jax.models.registry import VAE

_KEPT = 8  # models of different sizes

Compiled = Callable[..., Any]


class Programs(NamedTuple):
    """Functions of parameters and of what the methods of `MusicVAE` take.

    Attributes:
      encode: `(params, tokens, lengths) -> Posterior`.
      logits: `(params, z, tokens) -> K` arrays [B, T, V_k].
      generate: `(params, z, key, temperature) -> tokens`.
      greedy: `(params, z, key) -> tokens`.
      log_likelihood: `(params, tokens, lengths, key, num)`, see `operations.log_likelihood`.
      chain_windows: `(params, z, key, num, drift, temperature, greedy, fitted) -> tokens`.
      conductor: `(params, z) ->` bar embeddings; None in models without a conductor.
    """

    encode: Compiled
    logits: Compiled
    generate: Compiled
    greedy: Compiled
    log_likelihood: Compiled
    chain_windows: Compiled
    conductor: Compiled | None


@functools.lru_cache(_KEPT)
def programs_of(model: VAE) -> Programs:
    """Return the compiled functions of a model."""
    return Programs(
        encode=jax.jit(model.encode),
        logits=jax.jit(lambda params, z, tokens: model.logits(params, z, tokens)),
        generate=jax.jit(model.generate),
        greedy=jax.jit(lambda params, z, key: model.generate(params, z, key, 0.0)),
        log_likelihood=jax.jit(
            lambda params, tokens, lengths, key, num: operations.log_likelihood(
                model, params, tokens, key, num, lengths
            ),
            static_argnums=4,
        ),
        chain_windows=jax.jit(
            lambda params, z, key, num, drift, temperature, greedy, fitted: (
                operations.continuation(
                    model, params, z, num, drift, key, 0.0 if greedy else temperature, fitted
                ).tokens
            ),
            static_argnums=(3, 6),
        ),
        conductor=None if model.conductor is None else jax.jit(model.conductor),
    )

"""Trade time for memory: recompute layers in the backward pass (`remat=True`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def recomputed(layer: Callable[..., jax.Array], remat: bool) -> Callable[..., jax.Array]:
    """Recompute a layer in the backward pass instead of saving its activations.

    Only the layer's inputs are saved: in a stack the h of the layer below, a sixth of gates, cell
    and output. Unlike with `jax.checkpoint`, the recomputation depends on the gradient: otherwise
    XLA's CPU scheduler would run it early and use more memory, not less.
    """

    def run(*args: Any) -> jax.Array:
        pure, captured = jax.closure_convert(layer, *args)
        return _run_again(pure, args, tuple(captured))

    return run if remat else layer


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run_again(pure: Callable[..., jax.Array], args: Any, captured: Any) -> jax.Array:
    return pure(*args, *captured)


def _run_again_forward(pure: Callable[..., jax.Array], args: Any, captured: Any) -> Any:
    return pure(*args, *captured), (args, captured)


def _run_again_backward(pure: Callable[..., jax.Array], saved: Any, grad: jax.Array) -> Any:
    # Zero, but the compiler cannot know. Barriers are removed before the CPU's scheduler runs.
    nothing = jnp.minimum(jnp.abs(grad.ravel()[0]), 0.0)
    leaves, tree = jax.tree.flatten(saved)
    largest = max(range(len(leaves)), key=lambda n: leaves[n].size)
    late = [leaf if n == largest else leaf + nothing for n, leaf in enumerate(leaves)]
    args, captured = jax.tree.unflatten(tree, late)
    return jax.vjp(lambda a, c: pure(*a, *c), args, captured)[1](grad)


_run_again.defvjp(_run_again_forward, _run_again_backward)

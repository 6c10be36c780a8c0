"""Convolutions as matrix products equal those of Flax, which XLA computes."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.models.waveform.convolutions import Conv, TransposedConv, correlate


def test_a_correlation_by_hand() -> None:
    x = jnp.array([[[1.0], [2.0], [3.0], [4.0]]])
    kernel = jnp.array([[[1.0]], [[10.0]], [[100.0]]])
    # Padded: 0 1 2 3 4 0.
    expected = [[210.0], [321.0], [432.0], [43.0]]
    np.testing.assert_array_equal(correlate(x, kernel)[0], expected)
    # Of stride 2, one zero stands behind the row.
    np.testing.assert_array_equal(correlate(x, kernel, stride=2)[0], [[321.0], [43.0]])


def _assert_equal(ours: nn.Module, flax: nn.Module, x: jax.Array) -> None:
    params, drawn = (jax.jit(module.init)(jax.random.key(1), x) for module in (flax, ours))
    jax.tree.map(np.testing.assert_array_equal, drawn, params)

    def results(module: nn.Module) -> tuple[jax.Array, jax.Array]:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
            y = module.apply(params, x)
            return jnp.sum(jnp.sin(jnp.asarray(y))), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), results(ours), results(flax)
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_a_convolution_is_that_of_flax(width: int, stride: int) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 12, 3))
    _assert_equal(Conv(4, width, stride), nn.Conv(4, (width,), (stride,)), x)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 9])
def test_a_transposed_convolution_is_that_of_flax(width: int) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 7, 3))
    _assert_equal(TransposedConv(4, width), nn.ConvTranspose(4, (width,), (2,)), x)

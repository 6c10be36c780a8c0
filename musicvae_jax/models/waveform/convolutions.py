"""One-dimensional convolutions as matrix products.

The parameters and results are those of `flax.linen.Conv` and `ConvTranspose` with padding "SAME".
On CPUs, XLA's own convolutions of few channels, and above all their gradients, are slow: a training
step of the preset `waveform_vae` takes a tenth of the time as products, and twice the memory
(experiments/benchmarks/stacked.txt).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype


def same_padding(length: int, width: int, stride: int) -> tuple[int, int]:
    """Return how many zeros stand before and after a row, as padding "SAME" has it."""
    total = max((-(-length // stride) - 1) * stride + width - length, 0)
    return total // 2, total - total // 2


def correlate(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: tuple[int, int] | None = None
) -> jax.Array:
    """Correlate rows with a kernel.

    Args:
      x: [B, T, C].
      kernel: [width, C, D].
      stride: steps between results.
      padding: zeros before and after a row; by default as many as give T / stride results.

    Returns:
      [B, T', D], T' = (T + zeros - width) / stride + 1, rounded down.
    """
    width, C, D = kernel.shape
    x = jnp.pad(x, ((0, 0), padding or same_padding(x.shape[1], width, stride), (0, 0)))
    num_results = (x.shape[1] - width) // stride + 1
    end = (num_results - 1) * stride + 1
    parts = [x[:, offset : offset + end : stride] for offset in range(width)]
    return jnp.concatenate(parts, axis=-1) @ kernel.reshape(width * C, D)


def correlate_doubled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlate rows that have a zero after each step with a kernel, without computing the zeros.

    Args:
      x: [B, T, C].
      kernel: [width, C, D].

    Returns:
      [B, 2 T, D]: a transposed convolution of stride 2 with padding "SAME".
    """
    B, T, _ = x.shape
    width, _, D = kernel.shape
    # Zeros before the row with its zeros in between, as in `jax.lax.conv_transpose`.
    before = width - 1 if width < 2 else -(-width // 2)
    phases = []
    for phase in range(2):
        # Result 2 t + phase reads x[t + (k + phase - before) / 2] where that is whole.
        first = (before - phase) % 2
        part = kernel[first::2]
        shift = (first + phase - before) // 2
        if len(part) == 0:
            phases.append(jnp.zeros((B, T, D), x.dtype))
            continue
        phases.append(correlate(x, part, padding=(-shift, len(part) - 1 + shift)))
    return jnp.stack(phases, axis=2).reshape(B, 2 * T, D)


class Conv(nn.Module):
    """A convolution with padding "SAME": [B, T, C] -> [B, T / stride, features].

    Attributes:
      features: channels of the result.
      width: steps that the kernel spans.
      stride: steps between results.
      dtype: type of the products.
    """

    features: int
    width: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Run the convolution."""
        x, kernel, bias = _promoted(self, x)
        return correlate(x, kernel, self.stride) + bias


class TransposedConv(nn.Module):
    """A transposed convolution of stride 2: [B, T, C] -> [B, 2 T, features].

    Attributes:
      features: channels of the result.
      width: steps that the kernel spans.
      dtype: type of the products.
    """

    features: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Run the convolution."""
        x, kernel, bias = _promoted(self, x)
        return correlate_doubled(x, kernel) + bias


def _promoted(
    module: Conv | TransposedConv, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return x, kernel and bias [1, 1, features] of a module in the type of its products."""
    shape = (module.width, x.shape[-1], module.features)
    kernel = module.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = module.param("bias", nn.initializers.zeros_init(), (module.features,))
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=module.dtype)
    return x, kernel, bias[None, None]

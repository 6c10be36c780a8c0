"""The LSTM recurrence by cuDNN, through JAX: NVIDIA GPUs, float32.

    kernel, bias   packed into the one flat array that cuDNN takes
    inputs         dense at every step: one-hot tokens, constant inputs repeated
    one call       runs a layer of one recurrence over all steps; a second one is its gradient

`lstm_backend=auto` does not choose it. The reasons are operation counts; on a GPU neither this
back end nor the loop of `lstm.py` has been timed.

* JAX offers float32 only, multiplied as TF32 (unless jax_default_matmul_precision asks for more):
  half the rate of bfloat16 products, and twice the memory for saved activations.
* It multiplies the zeros of one-hot tokens, and repeats the product with z (or a bar's embedding)
  at every step. In the published configurations that is 1.3 to 4 times the operations in the
  lowest decoder layer and 1.03 to 1.25 times in the model; more in smaller models.
* The directions of an encoder and the tracks of a trio, one batched product in `lstm.py`, run one
  after another.

It launches fewer kernels per step, a gain that only a GPU can show. It runs whole sequences only:
decoding that feeds back samples uses the steps of `lstm.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from musicvae_jax.config import InputError
from musicvae_jax.models.lstm import FORGET_BIAS, Layer, State

RunLayer = Callable[..., jax.Array]  # `run_layer`, or what a test puts in its place


def check_device() -> None:
    """Check that this process can use cuDNN's LSTM.

    Raises:
      InputError: JAX runs on anything but one NVIDIA GPU. XLA cannot partition a call of cuDNN
        among devices.
    """
    devices = jax.devices()
    instead = "lstm_backend=xla runs everywhere"
    if "cuda" not in devices[0].client.platform_version:
        kind = devices[0].device_kind
        raise InputError(f"lstm_backend: cudnn needs an NVIDIA GPU, JAX runs on {kind}; {instead}")
    if len(devices) > 1:
        raise InputError(
            f"lstm_backend: cudnn runs on one GPU, JAX has {len(devices)}; set "
            f"CUDA_VISIBLE_DEVICES=0 for one, {instead}"
        )


def pack(kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Pack the weights of an LSTM in cuDNN's order, with the forget bias added.

    Args:
      kernel: [I + H, 4H], gate columns i, j, f, o.
      bias: [4H], of the same order.

    Returns:
      [4H * (I + H + 2)]: input weights [4H, I], recurrent weights [4H, H], gate rows i, f, j, o;
      then the two biases that cuDNN adds, of which the second is zeros.

    Reference: the docstring of jax.experimental.rnn.
    """
    H = bias.shape[0] // 4
    i, j, f, o = jnp.split(jnp.concatenate([kernel, bias[None]]), 4, axis=1)
    rows = jnp.concatenate([i, f, j, o], axis=1)
    first = rows[-1].at[H : 2 * H].add(FORGET_BIAS)
    weights = [rows[: -1 - H].T.ravel(), rows[-1 - H : -1].T.ravel()]
    return jnp.concatenate([*weights, first, jnp.zeros_like(first)])


def run_layer(
    x: Iterable[jax.Array],
    kernel: Iterable[jax.Array],
    bias: jax.Array,
    start: State,
    *,
    lstm: Callable[..., Any] = rnn.lstm,
) -> jax.Array:
    """Run one layer of N independent recurrences, one after another.

    Args:
      x: dense inputs, N arrays [T, B, I] float32; I may differ.
      kernel: N arrays [I + H, 4H].
      bias: [N, 4H].
      start: state before the first step, [N, B, H].
      lstm: has the signature of `jax.experimental.rnn.lstm`.

    Returns:
      h of every step, [N, T, B, H] float32.
    """
    hidden: list[jax.Array] = []
    for inputs, weights, b, c, h in zip(x, kernel, bias, start.c, start.h, strict=True):
        T, B, num_inputs = inputs.shape
        y, _, _ = lstm(
            jnp.swapaxes(inputs, 0, 1),
            h[None],
            c[None],
            pack(weights, b),
            jnp.full((B,), T, jnp.int32),
            num_inputs,
            h.shape[-1],
            1,  # layers
            0.0,  # dropout
            False,  # bidirectional
        )
        hidden.append(jnp.swapaxes(y, 0, 1))
    return jnp.stack(hidden)


def run_stack(
    run: RunLayer, x: jax.Array, layers: Sequence[Layer], starts: Sequence[State]
) -> jax.Array:
    """Run all layers: inputs [N, T, B, I] to h of the highest layer, [N, T, B, H]."""
    for layer, start in zip(layers, starts, strict=True):
        parts = [rows for rows in (layer.inputs, layer.recurrent) if rows is not None]
        x = run(x, jnp.concatenate(parts, axis=1), layer.bias, start)
    return x

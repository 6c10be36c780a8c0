"""The LSTM recurrence: what happens once before the loop, in the loop, and once after it.

    before   gate inputs of all steps by one product (or a row lookup, for tokens)
    loop     h @ kernel, gates, cell; forward keeps the activations
    backward loop of gate gradients only
    after    the gradient of the recurrent kernel by one product over all steps

N independent recurrences of equal size (the two directions of an encoder, the three tracks
of a trio) run in one loop on a leading axis. Arrays are time-major, [T, N, B, ...], so that a
step reads and writes one contiguous block. Cell state and sums are float32; products take
the compute dtype.

Kernels have the reference's fused layout [inputs + H, 4H], input rows first, gate columns in
the order i, j, f, o. The forget bias 1 is added at run time and is not in the stored bias.

Reference: LSTMBlockCell as used by magenta/models/music_vae/lstm_utils.py.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from musicvae_jax.models.products import Affine, contract, multiply

FORGET_BIAS = 1.0


class State(NamedTuple):
    """State of N cells: c and h, each [N, B, H] float32."""

    c: jax.Array
    h: jax.Array


def cell(inputs: int, units: int, name: str | None = None) -> Affine:
    """Declare the parameters of an LSTM cell: kernel [inputs + units, 4 units], bias."""
    return Affine(inputs + units, 4 * units, name=name)


class _Static(NamedTuple):
    """What a compiled recurrence depends on besides shapes."""

    num_steps: int
    dtype: Any
    keep_sequence: bool


def recur(
    gate_inputs: jax.Array | None,
    constant: jax.Array,
    kernel: jax.Array,
    start: State,
    *,
    num_steps: int,
    dtype: Any = jnp.float32,
    keep_sequence: bool = True,
) -> jax.Array:
    """Run N recurrences over T steps.

    Args:
      gate_inputs: [T, N, B, 4H] float32, the part of the gates that changes with the step, or
        None if nothing does.
      constant: [N, B, 4H] or [N, 1, 4H] float32, added at every step; holds the bias.
      kernel: [N, H, 4H] float32, the recurrent rows.
      start: state before the first step, [N, B, H].
      num_steps: T.
      dtype: type of the products.
      keep_sequence: whether to return h of every step.

    Returns:
      [T, N, B, H] float32, or h of the last step, [N, B, H].
    """
    static = _Static(num_steps, jnp.dtype(dtype), keep_sequence)
    return _recur(static, gate_inputs, constant, kernel, start)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recur(
    static: _Static,
    gate_inputs: jax.Array | None,
    constant: jax.Array,
    kernel: jax.Array,
    start: State,
) -> jax.Array:
    weights = kernel.astype(static.dtype)

    def step(state: State, x: jax.Array | None) -> tuple[State, jax.Array | None]:
        state, _ = advance(state, _gates(x, constant, weights, state.h))
        return state, state.h if static.keep_sequence else None

    last, sequence = lax.scan(step, start, gate_inputs, length=static.num_steps)
    return last.h if sequence is None else sequence


def _gates(x: jax.Array | None, constant: jax.Array, weights: jax.Array, h: jax.Array) -> jax.Array:
    """Sum what enters the gates before their nonlinearities: [N, B, 4H] float32."""
    gates = multiply("nbh,nhg->nbg", h.astype(weights.dtype), weights) + constant
    return gates if x is None else gates + x


def advance(state: State, gates: jax.Array) -> tuple[State, jax.Array]:
    """Make one step of the cells.

    Args:
      state: c and h before the step, [N, B, H].
      gates: [N, B, 4H] float32, before the nonlinearities, without the forget bias.

    Returns:
      The state after the step and the gates after their nonlinearities, [N, B, 4H].
    """
    H = state.c.shape[-1]
    i = jax.nn.sigmoid(gates[..., :H])
    j = jnp.tanh(gates[..., H : 2 * H])
    f = jax.nn.sigmoid(gates[..., 2 * H : 3 * H] + FORGET_BIAS)
    o = jax.nn.sigmoid(gates[..., 3 * H :])
    c = j * i + state.c * f
    return State(c, jnp.tanh(c) * o), jnp.concatenate([i, j, f, o], axis=-1)


class _Saved(NamedTuple):
    """What the backward loop needs of the forward one."""

    activations: jax.Array  # [T, N, B, 4H] in the compute dtype
    c: jax.Array  # [T, N, B, H]
    h: jax.Array  # [T, N, B, H]
    constant: jax.Array
    kernel: jax.Array
    start: State


def _recur_forward(
    static: _Static,
    gate_inputs: jax.Array | None,
    constant: jax.Array,
    kernel: jax.Array,
    start: State,
) -> tuple[jax.Array, tuple[_Saved, bool]]:
    weights = kernel.astype(static.dtype)

    def step(state: State, x: jax.Array | None) -> tuple[State, Any]:
        state, active = advance(state, _gates(x, constant, weights, state.h))
        return state, (active.astype(static.dtype), state.c, state.h)

    last, (active, c, h) = lax.scan(step, start, gate_inputs, length=static.num_steps)
    saved = _Saved(active, c, h, constant, kernel, start)
    return (h if static.keep_sequence else last.h), (saved, gate_inputs is not None)


def _recur_backward(
    static: _Static, residual: tuple[_Saved, bool], grad: jax.Array
) -> tuple[jax.Array | None, jax.Array, jax.Array, State]:
    saved, has_inputs = residual
    weights = jnp.swapaxes(saved.kernel, 1, 2).astype(static.dtype)

    def step(carry: State, x: Any) -> tuple[State, jax.Array]:
        active, c, c_before, grad_h = x
        dh = carry.h if grad_h is None else carry.h + grad_h
        dgates, dc = _gate_gradients(active, c, c_before, State(carry.c, dh))
        dgates = dgates.astype(static.dtype)
        dh = multiply("nbg,ngh->nbh", dgates, weights)
        return State(dc, dh), dgates

    c_before = jnp.concatenate([saved.start.c[None], saved.c[:-1]])
    zeros = jnp.zeros_like(saved.start.c)
    carry = State(zeros, zeros if static.keep_sequence else grad)
    grads = grad if static.keep_sequence else None
    xs = (saved.activations, saved.c, c_before, grads)
    dstart, dgates = lax.scan(step, carry, xs, reverse=True)
    h_before = jnp.concatenate([saved.start.h[None], saved.h[:-1]])
    dkernel = contract("tnbh,tnbg->nhg", h_before, dgates, static.dtype)
    dgates = dgates.astype(jnp.float32)
    dconstant = dgates.sum(axis=0)
    if saved.constant.shape[1] == 1:
        dconstant = dconstant.sum(axis=1, keepdims=True)
    return (dgates if has_inputs else None), dconstant, dkernel, dstart


def _gate_gradients(
    active: jax.Array, c: jax.Array, c_before: jax.Array, grad: State
) -> tuple[jax.Array, jax.Array]:
    """Go back through one step's gates: gradients of the gates [N, B, 4H] and of c_before."""
    i, j, f, o = jnp.split(active.astype(jnp.float32), 4, axis=-1)
    tanh_c = jnp.tanh(c)
    dc = grad.c + grad.h * o * (1.0 - tanh_c * tanh_c)
    dgates = [
        dc * j * i * (1.0 - i),
        dc * i * (1.0 - j * j),
        dc * c_before * f * (1.0 - f),
        grad.h * tanh_c * o * (1.0 - o),
    ]
    return jnp.concatenate(dgates, axis=-1), dc * f


_recur.defvjp(_recur_forward, _recur_backward)


class Layer(NamedTuple):
    """Weights of one layer of N stacked LSTMs.

    Attributes:
      inputs: [N, I, 4H], rows for the h of the layer below; None in the lowest layer, whose
        gate inputs the caller computes.
      recurrent: [N, H, 4H].
      bias: [N, 4H].
    """

    inputs: jax.Array | None
    recurrent: jax.Array
    bias: jax.Array


def run_stack(
    layers: Sequence[Layer],
    gate_inputs: jax.Array | None,
    constant: jax.Array,
    starts: Sequence[State],
    num_steps: int,
    dtype: Any,
) -> jax.Array:
    """Run layer after layer over the whole sequence.

    Args:
      layers: from the lowest up.
      gate_inputs: [T, N, B, 4H] of the lowest layer, or None if nothing changes with the step.
      constant: [N, B, 4H] or [N, 1, 4H] of the lowest layer, its bias included.
      starts: state of each layer before the first step.
      num_steps: T.
      dtype: type of the products.

    Returns:
      h of the highest layer, [T, N, B, H] float32.
    """
    run = functools.partial(recur, num_steps=num_steps, dtype=dtype)
    hidden = run(gate_inputs, constant, layers[0].recurrent, starts[0])
    for layer, start in zip(layers[1:], starts[1:], strict=True):
        gates = contract("tnbi,nig->tnbg", hidden, layer.inputs, dtype)
        hidden = run(gates, layer.bias[:, None, :], layer.recurrent, start)
    return hidden


def step_stack(
    layers: Sequence[Layer], gates: jax.Array, states: Sequence[State]
) -> tuple[tuple[State, ...], jax.Array]:
    """Make one step of all layers.

    Args:
      layers: weights, already in the type of the products.
      gates: [N, B, 4H] float32, what enters the lowest layer's gates besides its own h.
      states: state of each layer before the step.

    Returns:
      The states after the step, and h of the highest layer, [N, B, H].
    """
    after: list[State] = []
    for layer, state in zip(layers, states, strict=True):
        if layer.inputs is not None:
            below = after[-1].h.astype(layer.recurrent.dtype)
            gates = multiply("nbi,nig->nbg", below, layer.inputs) + layer.bias[:, None, :]
        after.append(advance(state, _gates(None, gates, layer.recurrent, state.h))[0])
    return tuple(after), after[-1].h


def split_states(flat: jax.Array, sizes: Sequence[int]) -> tuple[State, ...]:
    """Cut [N, B, 2 * sum(sizes)] into the layers' states, in the order c0, h0, c1, h1, ..."""
    states, column = [], 0
    for size in sizes:
        c, h = flat[..., column : column + size], flat[..., column + size : column + 2 * size]
        states.append(State(c, h))
        column += 2 * size
    return tuple(states)

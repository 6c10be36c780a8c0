"""The LSTM recurrence, with as much work as possible outside its loops.

    before   gate inputs of all steps by one product (or a row lookup, for tokens)
    loop     h @ kernel, gates, cell; forward keeps the activations
    backward loop of gate gradients only
    after    the gradient of the recurrent kernel by one product over all steps

N independent recurrences of equal size (the two directions of an encoder, the three tracks
of a trio) run in one loop on a leading axis: sequences are [N, T, B, ...], as a batched
product leaves them. One buffer holds the gate inputs, then the activations, then the gate
gradients, because such loops are memory-bound on CPUs and GPUs. Cell state and sums are float32;
products, and what the loops keep between steps, have the compute dtype.

Kernels have the reference's fused layout [inputs + H, 4H], input rows first, gate columns in
the order i, j, f, o. The forget bias 1 is added at run time and is not in the stored bias.

Longer than 400 lines because the loops, the gradients written for them and the layers on top share
one layout of arrays.

Reference: LSTMBlockCell as used by magenta/models/music_vae/lstm_utils.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from musicvae_jax.models import native, remat
from musicvae_jax.models.initialisation import GLOROT, ZEROS, Initializer
from musicvae_jax.models.products import Affine, contract, multiply

FORGET_BIAS = 1.0


class State(NamedTuple):
    """State of N cells: c and h, each [N, B, H] float32."""

    c: jax.Array
    h: jax.Array


def cell(
    inputs: int,
    units: int,
    name: str | None = None,
    kernel_init: Initializer = GLOROT,
    bias_init: Initializer = ZEROS,
) -> Affine:
    """Declare the parameters of an LSTM cell: kernel [inputs + units, 4 units], bias."""
    return Affine(inputs + units, 4 * units, kernel_init, bias_init, name=name)


class _Static(NamedTuple):
    """What a compiled recurrence depends on besides shapes.

    Attributes:
      num_steps: T.
      dtype: of the products.
      kept_dtype: of what is kept between steps.
      keep_sequence: whether h of every step is returned.
      as_bits: whether the loops keep bfloat16 as its bits, uint16. XLA's CPU back end writes
        bfloat16 into a buffer element by element by way of float32, which takes several times as
        long as the rest of the step; it copies whole numbers.
      native: whether the kernel of `native.py` runs in place of the loops.
    """

    num_steps: int
    dtype: Any
    kept_dtype: Any
    keep_sequence: bool
    as_bits: bool = False
    native: bool = False


def recur(
    gate_inputs: jax.Array | None,
    constant: jax.Array,
    kernel: jax.Array,
    start: State,
    *,
    num_steps: int,
    dtype: Any = jnp.float32,
    keep_sequence: bool = True,
    use_native: bool = False,
) -> jax.Array:
    """Run N recurrences over T steps.

    Args:
      gate_inputs: [N, T, B, 4H], the part of the gates that changes with the step, or None if
        nothing does; the loops keep it in `dtype`, the kernel in float32.
      constant: [N, B, 4H] or [N, 1, 4H] float32, added at every step; holds the bias.
      kernel: [N, H, 4H] float32, the recurrent rows.
      start: state before the first step, [N, B, H].
      num_steps: T.
      dtype: type of the products.
      keep_sequence: whether to return h of every step.
      use_native: whether to use the kernel of `native.py` where it applies.

    Returns:
      [N, T, B, H] in `dtype`, float32 from the kernel; or h of the last step, [N, B, H] float32.
    """
    applies = use_native and native.fits(start.h.shape[-1])
    kept = kept_dtype(dtype, applies)
    static = _Static(num_steps, jnp.dtype(dtype), kept, keep_sequence, native=applies)
    if gate_inputs is not None:
        gate_inputs = gate_inputs.astype(kept)
    return _recur(static, gate_inputs, constant, kernel, start)


def kept_dtype(dtype: Any, use_native: bool) -> Any:
    """Return the type in which a recurrence keeps arrays between steps: float32 in the kernel."""
    return jnp.dtype(jnp.float32 if use_native else dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recur(static: _Static, *arrays: Any) -> jax.Array:
    hidden: jax.Array = _on_each_platform(_only_forward, static, *arrays)
    return hidden


def _on_each_platform(loops: Callable[..., Any], static: _Static, *arrays: Any) -> Any:
    """Run loops with what a CPU, or another device, keeps between steps (see `_Static`).

    Decided when the program is lowered, which may be for another platform than this one.
    """
    as_bits = static.kept_dtype == jnp.bfloat16
    if not (as_bits or static.native):
        return loops(static, *arrays)
    on_cpu = functools.partial(loops, static._replace(as_bits=as_bits))
    elsewhere = functools.partial(loops, static._replace(native=False))
    return lax.platform_dependent(*arrays, cpu=on_cpu, default=elsewhere)


def _only_forward(
    static: _Static,
    gate_inputs: jax.Array | None,
    constant: jax.Array,
    kernel: jax.Array,
    start: State,
) -> jax.Array:
    """Run the recurrence where no gradient is asked for."""
    if static.native:
        _, _, h = native.forward(
            gate_inputs,
            constant,
            kernel,
            *start,
            num_steps=static.num_steps,
            keep_active=False,
            keep_sequence=static.keep_sequence,
            bfloat16=static.dtype == jnp.bfloat16,
        )
        return h if static.keep_sequence else h[:, (static.num_steps - 1) % h.shape[1]]
    weights = kernel.astype(static.dtype)
    kept = None if gate_inputs is None else _stored(static, gate_inputs)

    def step(t: jax.Array, carry: tuple[State, jax.Array | None]) -> Any:
        state, sequence = carry
        x = None if kept is None else _at(kept, t)
        state, _ = advance(state, _gates(x, constant, weights, state.h))
        return state, None if sequence is None else _put(sequence, state.h, t)

    sequence = _buffer(static, start.h) if static.keep_sequence else None
    last, sequence = lax.fori_loop(0, static.num_steps, step, (start, sequence))
    return last.h if sequence is None else _restored(sequence)


def _buffer(static: _Static, like: jax.Array, dtype: Any = None) -> jax.Array:
    """Allocate an array [N, B, D] for every step: [N, T, B, D]."""
    N, B, D = like.shape
    return _stored(static, jnp.zeros((N, static.num_steps, B, D), dtype or static.kept_dtype))


def _stored(static: _Static, x: jax.Array) -> jax.Array:
    """Return an array as the loops keep it."""
    return _bits(x) if static.as_bits and x.dtype == jnp.bfloat16 else x


def _bits(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, jnp.uint16)


def _restored(x: jax.Array) -> jax.Array:
    """Undo `_stored`."""
    return lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def _at(sequence: jax.Array, t: jax.Array) -> jax.Array:
    """Read step t: [N, T, B, D] -> [N, B, D]."""
    return _restored(lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False))


def _put(sequence: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    """Write [N, B, D] at step t of [N, T, B, D]."""
    is_bits = sequence.dtype == jnp.uint16
    x = _bits(x.astype(jnp.bfloat16)) if is_bits else x.astype(sequence.dtype)
    return lax.dynamic_update_index_in_dim(sequence, x, t, axis=1)


def _gates(x: jax.Array | None, constant: jax.Array, weights: jax.Array, h: jax.Array) -> jax.Array:
    """Sum what enters the gates before their nonlinearities: [N, B, 4H] float32.

    Inputs first, then the recurrent part: the order in which the reference's one product of
    concat([x, h]) adds them.
    """
    recurrent = multiply("nbh,nhg->nbg", h.astype(weights.dtype), weights)
    return (constant if x is None else x + constant) + recurrent


def advance(state: State, gates: jax.Array) -> tuple[State, jax.Array]:
    """Advance the cells by one step.

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

    active: jax.Array  # [N, T, B, 4H], the gates after their nonlinearities
    c: jax.Array  # [N, T, B, H]
    h: jax.Array  # [N, T, B, H]
    constant: jax.Array
    kernel: jax.Array
    start: State


def _recur_forward(
    static: _Static, gate_inputs: jax.Array | None, *arrays: Any
) -> tuple[jax.Array, tuple[_Saved, bool]]:
    hidden, saved = _on_each_platform(_forward, static, gate_inputs, *arrays)
    return hidden, (saved, gate_inputs is not None)


def _forward(
    static: _Static,
    gate_inputs: jax.Array | None,
    constant: jax.Array,
    kernel: jax.Array,
    start: State,
) -> tuple[jax.Array, _Saved]:
    """Run the recurrence and keep what its gradient needs."""
    if static.native:
        active, c, h = native.forward(
            gate_inputs,
            constant,
            kernel,
            *start,
            num_steps=static.num_steps,
            keep_active=True,
            keep_sequence=True,
            bfloat16=static.dtype == jnp.bfloat16,
        )
        hidden = h if static.keep_sequence else h[:, -1]
        return hidden, _Saved(active, c, h, constant, kernel, start)
    weights = kernel.astype(static.dtype)
    has_inputs = gate_inputs is not None

    def step(t: jax.Array, carry: Any) -> Any:
        # Each step's activations take the place of its inputs, which are not needed again.
        state, gates, c, h = carry
        x = _at(gates, t) if has_inputs else None
        state, active = advance(state, _gates(x, constant, weights, state.h))
        return state, _put(gates, active, t), _put(c, state.c, t), _put(h, state.h, t)

    if gate_inputs is None:
        N, B, H = start.h.shape
        gates = _buffer(static, jnp.zeros((N, B, 4 * H)))
    else:
        gates = _stored(static, gate_inputs)
    carry = (start, gates, _buffer(static, start.c, jnp.float32), _buffer(static, start.h))
    last, active, c, h = lax.fori_loop(0, static.num_steps, step, carry)
    h = _restored(h)
    saved = _Saved(_restored(active), c, h, constant, kernel, start)
    return (h if static.keep_sequence else last.h), saved


def _recur_backward(
    static: _Static, residual: tuple[_Saved, bool], grad: jax.Array
) -> tuple[jax.Array | None, jax.Array, jax.Array, State]:
    saved, has_inputs = residual
    dgates, *rest = _on_each_platform(_backward, static, saved, grad)
    return (dgates if has_inputs else None), *rest


def _backward(
    static: _Static, saved: _Saved, grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, State]:
    """Return the gradients of the gate inputs, the constant, the kernel and the start."""
    if static.native:
        dgates, dconstant, dc, dh = native.backward(
            saved.active,
            saved.c,
            saved.start.c,
            saved.kernel,
            grad,
            each_step=static.keep_sequence,
            bfloat16=static.dtype == jnp.bfloat16,
        )
        return _gradients(static, saved, dgates, dconstant, State(dc, dh))
    weights = jnp.swapaxes(saved.kernel, 1, 2).astype(static.dtype)
    grads = _stored(static, grad)

    def step(k: jax.Array, carry: Any) -> Any:
        # Each step's gate gradients take the place of its activations. The next step's are
        # read after the write, or XLA copies the whole buffer to keep the old values.
        t = static.num_steps - 1 - k
        dstate, gates, active, dconstant = carry
        if static.keep_sequence:
            dstate = dstate._replace(h=dstate.h + _at(grads, t))
        c_before = jnp.where(t > 0, _at(saved.c, jnp.maximum(t - 1, 0)), saved.start.c)
        dgates, dc = _gate_gradients(active, _at(saved.c, t), c_before, dstate)
        dh = multiply("nbg,ngh->nbh", dgates.astype(static.dtype), weights)
        gates = _put(gates, dgates, t)
        return State(dc, dh), gates, _at(gates, jnp.maximum(t - 1, 0)), dconstant + dgates

    zeros = jnp.zeros_like(saved.start.c)
    dlast = State(zeros, zeros if static.keep_sequence else grad)
    N, _, B, G = saved.active.shape
    carry = (dlast, _stored(static, saved.active), saved.active[:, -1], jnp.zeros((N, B, G)))
    dstart, gates, _, dconstant = lax.fori_loop(0, static.num_steps, step, carry)
    return _gradients(static, saved, _restored(gates), dconstant, dstart)


def _gradients(
    static: _Static, saved: _Saved, dgates: jax.Array, dconstant: jax.Array, dstart: State
) -> tuple[jax.Array, jax.Array, jax.Array, State]:
    """Add the gradient of the kernel, by one product over all steps."""
    first = saved.start.h[:, None].astype(saved.h.dtype)
    h_before = jnp.concatenate([first, saved.h[:, :-1]], axis=1)
    dkernel = contract("ntbh,ntbg->nhg", h_before, dgates, static.dtype)
    if saved.constant.shape[1] == 1:
        dconstant = dconstant.sum(axis=1, keepdims=True)
    return dgates, dconstant, dkernel, dstart


def _gate_gradients(
    active: jax.Array, c: jax.Array, c_before: jax.Array, grad: State
) -> tuple[jax.Array, jax.Array]:
    """Backpropagate through one step: gradients of the gates [N, B, 4H] and of c_before."""
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
    gate_inputs: Callable[[], jax.Array | None],
    constant: jax.Array,
    starts: Sequence[State],
    num_steps: int,
    dtype: Any,
    recompute: bool = False,
    use_native: bool = False,
) -> jax.Array:
    """Run all layers over the whole sequence.

    Args:
      layers: from the lowest up.
      gate_inputs: computes [N, T, B, 4H] of the lowest layer, or None if nothing changes with
        the step.
      constant: [N, B, 4H] or [N, 1, 4H] of the lowest layer, its bias included.
      starts: state of each layer before the first step.
      num_steps: T.
      dtype: type of the products.
      recompute: recompute each layer in the backward pass.
      use_native: see `recur`.

    Returns:
      h of the highest layer, [N, T, B, H] float32.
    """
    run = functools.partial(recur, num_steps=num_steps, dtype=dtype, use_native=use_native)

    def lowest() -> jax.Array:
        return run(gate_inputs(), constant, layers[0].recurrent, starts[0])

    def upper(hidden: jax.Array, layer: Layer, start: State) -> jax.Array:
        gates = contract("ntbi,nig->ntbg", hidden, layer.inputs, dtype)
        return run(gates, layer.bias[:, None, :], layer.recurrent, start)

    hidden = remat.recomputed(lowest, recompute)()
    for layer, start in zip(layers[1:], starts[1:], strict=True):
        hidden = remat.recomputed(upper, recompute)(hidden, layer, start)
    return hidden


def step_stack(
    layers: Sequence[Layer], gates: jax.Array, states: Sequence[State]
) -> tuple[tuple[State, ...], jax.Array]:
    """Advance all layers by one step.

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
    """Split [N, B, 2 * sum(sizes)] into the layers' states, in the order c0, h0, c1, h1, ..."""
    states, column = [], 0
    for size in sizes:
        c, h = flat[..., column : column + size], flat[..., column + size : column + 2 * size]
        states.append(State(c, h))
        column += 2 * size
    return tuple(states)

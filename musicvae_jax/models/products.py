"""Matrix products, also with one-hot vectors, whose gradients run in the compute dtype, too.

Every product of the models goes through here, so that its dtype is chosen in one place.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from musicvae_jax.models.initialisation import GLOROT, ZEROS, Initializer


class Affine(nn.Module):
    """A kernel [I, O] and a bias [O]: of a dense layer or, fused, of an LSTM cell.

    Attributes:
      inputs: I, rows of the kernel.
      outputs: O, columns of the kernel.
      kernel_init: draws the kernel.
      bias_init: draws the bias.
    """

    inputs: int
    outputs: int
    kernel_init: Initializer = GLOROT
    bias_init: Initializer = ZEROS

    def setup(self) -> None:
        """Declare the two arrays."""
        self.kernel = self.param("kernel", self.kernel_init, (self.inputs, self.outputs))
        self.bias = self.param("bias", self.bias_init, (self.outputs,))

    def __call__(self, x: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
        """Multiply [B, I] by the kernel in `dtype` and add the bias: [B, O] float32."""
        return contract("bi,io->bo", x, self.kernel, dtype) + self.bias[None, :]


def touch(*modules: Affine) -> list[jax.Array]:
    """Read the parameters of modules, which Flax creates at first use."""
    return [module.kernel for module in modules]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def contract(subscripts: str, x: jax.Array, y: jax.Array, dtype: Any) -> jax.Array:
    """Compute an einsum of two operands, and its gradients, in `dtype`; the result is float32.

    Plain autodiff would multiply the float32 gradient by a bfloat16 operand, which runs at
    float32 speed.

    Args:
      subscripts: "a,b->c"; each letter occurs in two of the three.
      x: first operand.
      y: second operand.
      dtype: type of the operands in the products; sums are float32.
    """

    def in_dtype(x: jax.Array, y: jax.Array) -> jax.Array:
        return multiply(subscripts, x.astype(dtype), y.astype(dtype))

    if jnp.dtype(dtype) != jnp.bfloat16 or multiplies_bfloat16_fast():
        return in_dtype(x, y)

    def in_float32(x: jax.Array, y: jax.Array) -> jax.Array:
        return multiply(subscripts, rounded(x), rounded(y))

    return lax.platform_dependent(x, y, cpu=in_float32, default=in_dtype)


def rounded(x: jax.Array) -> jax.Array:
    """Round to the nearest bfloat16: float32.

    XLA may drop a conversion to bfloat16 and back; this stays.
    """
    return lax.reduce_precision(x.astype(jnp.float32), exponent_bits=8, mantissa_bits=7)


def multiply(subscripts: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Compute an einsum of two operands of one type; sums and result are float32."""
    operands, out = subscripts.split("->")
    left, right = operands.split(",")
    batch = [letter for letter in left if letter in right and letter in out]
    # Summed in the order they are stored in: jnp.einsum may choose another, which copies.
    summed = [letter for letter in left if letter in right and letter not in out]
    dimensions = (
        ([left.index(s) for s in summed], [right.index(s) for s in summed]),
        ([left.index(b) for b in batch], [right.index(b) for b in batch]),
    )
    free = [letter for letter in left + right if letter in out and letter not in batch]
    order = [(batch + free).index(letter) for letter in out]

    def direct(x: jax.Array, y: jax.Array) -> jax.Array:
        product = lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
        return jnp.transpose(product, order)

    if x.dtype == jnp.float32:
        return direct(x, y)

    def widened(x: jax.Array, y: jax.Array) -> jax.Array:
        return direct(x.astype(jnp.float32), y.astype(jnp.float32))

    def on_cpu(x: jax.Array, y: jax.Array) -> jax.Array:
        size = dict(zip(left + right, x.shape + y.shape, strict=True))
        kept = [
            "".join(letter for letter in part if size[letter] > 1) for part in (left, right, out)
        ]
        if kept != [left, right, out]:  # without axes of length 1 more forms can be run
            narrow = [jnp.squeeze(a, [n for n, s in enumerate(a.shape) if s == 1]) for a in (x, y)]
            product = multiply(f"{kept[0]},{kept[1]}->{kept[2]}", *narrow)
            return product.reshape([size[letter] for letter in out])
        # XLA's CPU back end fails on some bfloat16 products that sum over one leading axis.
        runs = left.endswith("".join(summed)) or len(summed) > 1
        return direct(x, y) if runs and cpu_multiplies_bfloat16() else widened(x, y)

    return lax.platform_dependent(x, y, cpu=on_cpu, default=direct)


def cpu_multiplies_bfloat16() -> bool:
    """Tell whether this machine's CPU has instructions for bfloat16 products.

    Without them a product of bfloat16 operands is computed in float32. Detected only on Linux on
    x86 (AVX512-BF16, AMX-BF16).
    """
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_processor())


def multiplies_bfloat16_fast() -> bool:
    """Tell whether this machine's CPU multiplies bfloat16 faster than float32.

    Intel's AVX512-BF16 does not, measured on a Xeon: its instruction takes two operands from each
    of two vectors, but runs a quarter as often as a float32 product.
    """
    words = _processor()
    return "amx_bf16" in words or ("avx512_bf16" in words and "GenuineIntel" not in words)


@functools.cache
def _processor() -> frozenset[str]:
    """Return the words by which Linux describes the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(text.split())


def _contract_forward(
    subscripts: str, x: jax.Array, y: jax.Array, dtype: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return contract(subscripts, x, y, dtype), (x, y)


def _contract_backward(
    subscripts: str, dtype: Any, saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    operands, out = subscripts.split("->")
    left, right = operands.split(",")
    x, y = saved
    return (
        contract(f"{out},{right}->{left}", grad, y, dtype).astype(x.dtype),
        contract(f"{left},{out}->{right}", x, grad, dtype).astype(y.dtype),
    )


contract.defvjp(_contract_forward, _contract_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def lookup(table: jax.Array, rows: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """Take rows of a table: the product of one-hot vectors with it, without the product.

    On a CPU the gradient is a scatter-add, 4 times as fast as the product for 512 rows (measured);
    elsewhere it is the product, whose sums have the same order in every run.

    Args:
      table: [V, D] float32.
      rows: [...] integer; a value outside 0..V-1 gives a row of zeros.
      dtype: type of the result.

    Returns:
      [..., D] in `dtype`.
    """
    return (
        table.astype(dtype).at[rows].get(mode="fill", fill_value=0.0, wrap_negative_indices=False)
    )


def _lookup_forward(
    table: jax.Array, rows: jax.Array, dtype: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # The table goes along for its shape only.
    return lookup(table, rows, dtype), (table, rows)


def _lookup_backward(
    dtype: Any, saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, None]:
    table, rows = saved
    V, D = table.shape
    rows, grad = rows.reshape(-1), grad.reshape(-1, D)

    def add_rows(rows: jax.Array, grad: jax.Array) -> jax.Array:
        return (
            jnp.zeros_like(table)
            .at[rows]
            .add(grad.astype(table.dtype), mode="drop", wrap_negative_indices=False)
        )

    def multiply_one_hot(rows: jax.Array, grad: jax.Array) -> jax.Array:
        return multiply("bv,bd->vd", jax.nn.one_hot(rows, V, dtype=dtype), grad)

    return lax.platform_dependent(rows, grad, cpu=add_rows, default=multiply_one_hot), None


lookup.defvjp(_lookup_forward, _lookup_backward)


def lookup_stacked(tables: jax.Array, rows: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """Take rows of N tables, one per recurrence.

    Args:
      tables: [N, V, D] float32.
      rows: [N, T, B] integer in 0..V; V gives a row of zeros.
      dtype: type of the result.

    Returns:
      [N, T, B, D] in `dtype`.
    """
    N, V, D = tables.shape
    offsets = jnp.arange(N)[:, None, None] * V
    return lookup(tables.reshape(N * V, D), jnp.where(rows < V, rows + offsets, N * V), dtype)

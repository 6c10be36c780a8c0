"""Products of a kernel with cells that are 0 or 1 and mostly 0: sums of the kernel's rows.

    cells that are on [B, E] -> rows of the kernel [I, O], added -> [B * U, O]

A row of cells is U parts of I cells each; all parts share the kernel. On a CPU the rows of the
cells that are on are added, and the gradient of the kernel adds the gradients of the parts to its
rows: for bars of piano rolls about 10 of 9,216 rows are read and not all. The sums differ from
those of the product by rounding. Elsewhere the cells are made dense and multiplied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from musicvae_jax.models import products

# Numbers that a step of the loops adds: they stay in the cache, and steps cost little beside them.
_NUMBERS_AT_ONCE = 2**17


class CellsOn(NamedTuple):
    """The cells that are on, of rows with the same number of cells.

    Attributes:
      cells: [B, E] int32, different ones from 0 on; `num_cells` or more: none.
      num_cells: cells of a row, U * I.
    """

    cells: jax.Array
    num_cells: int

    def dense(self) -> jax.Array:
        """Return the cells of each row, 1 where they are on: [B, U * I] float32."""
        nothing = jnp.zeros((len(self.cells), self.num_cells), jnp.float32)
        return _at(nothing, self.cells).set(1.0, mode="drop")

    def values(self, of: jax.Array, otherwise: float = 0.0) -> jax.Array:
        """Take the values of cells, [B, U * I], that are on: [B, E]; of none `otherwise`."""
        return _at(of, self.cells).get(mode="fill", fill_value=otherwise)


def _at(values: jax.Array, cells: jax.Array) -> Any:
    """Return `values.at`, [B, N], of the cells [B, E] of each row."""
    return values.at[jnp.arange(len(values))[:, None], cells]


@jax.custom_vjp
def bernoulli_nats(logits: jax.Array, cells: jax.Array) -> jax.Array:
    """Compute -log p of cells given their logits, each a Bernoulli variable.

    Args:
      logits: [B, N] float32.
      cells: those that are on, [B, E] int32, different ones; N or more: none.

    Returns:
      [B] float32, nats: the sum of softplus over all cells minus the logits of those that are on.
      The gradient, sigmoid minus one where a cell is on, needs no dense cells either.
    """
    chosen = CellsOn(cells, logits.shape[1]).values(logits)
    return jax.nn.softplus(logits).sum(axis=1) - chosen.sum(axis=1)


def _bernoulli_forward(
    logits: jax.Array, cells: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return bernoulli_nats(logits, cells), (logits, cells)


def _bernoulli_backward(
    saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, None]:
    logits, cells = saved
    everywhere = jax.nn.sigmoid(logits) * grad[:, None]
    return _at(everywhere, cells).add(-grad[:, None], mode="drop"), None


bernoulli_nats.defvjp(_bernoulli_forward, _bernoulli_backward)


def multiply(on: CellsOn, kernel: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """Multiply the parts of each row, U of I cells, by a kernel [I, O]: [B * U, O] float32."""
    return _multiply(on.num_cells // len(kernel), dtype, on.cells, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _multiply(num_parts: int, dtype: Any, cells: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply U parts of each row by the kernel; the gradient is that of the kernel only."""
    size, width = kernel.shape

    @jax.custom_batching.sequential_vmap
    def add_rows(cells: jax.Array, kernel: jax.Array) -> jax.Array:
        into = jnp.zeros((len(cells) * num_parts, width), jnp.float32)
        parts, rows = _places(cells, num_parts, size)
        return _add(into, parts, kernel, rows, dtype)

    def multiply_dense(cells: jax.Array, kernel: jax.Array) -> jax.Array:
        parts = CellsOn(cells, num_parts * size).dense().reshape(-1, size)
        return products.contract("bi,io->bo", parts, kernel, dtype)

    return lax.platform_dependent(cells, kernel, cpu=add_rows, default=multiply_dense)


def _multiply_forward(
    num_parts: int, dtype: Any, cells: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # The kernel goes along for its shape only.
    return _multiply(num_parts, dtype, cells, kernel), (cells, kernel)


def _multiply_backward(
    num_parts: int, dtype: Any, saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[None, jax.Array]:
    cells, kernel = saved
    size, width = kernel.shape

    @jax.custom_batching.sequential_vmap
    def add_rows(cells: jax.Array, grad: jax.Array) -> jax.Array:
        parts, rows = _places(cells, num_parts, size)
        return _add(jnp.zeros((size, width), jnp.float32), rows, grad, parts, dtype)

    def multiply_dense(cells: jax.Array, grad: jax.Array) -> jax.Array:
        parts = CellsOn(cells, num_parts * size).dense().reshape(-1, size)
        return products.contract("bi,bo->io", parts, grad, dtype)

    return None, lax.platform_dependent(cells, grad, cpu=add_rows, default=multiply_dense)


_multiply.defvjp(_multiply_forward, _multiply_backward)


def _places(cells: jax.Array, num_parts: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Return the part, 0..B*U-1, and the row of the kernel of each cell: [B * E] each, -1: none."""
    is_on = (cells >= 0) & (cells < num_parts * size)
    parts = jnp.arange(len(cells))[:, None] * num_parts + cells // size
    places = [jnp.where(is_on, place, -1).ravel() for place in (parts, cells % size)]
    return places[0], places[1]


def _add(
    into: jax.Array, targets: jax.Array, source: jax.Array, origins: jax.Array, dtype: Any
) -> jax.Array:
    """Add rows `origins` [N] of the source [., O] to rows `targets` [N] of `into` [., O].

    Where the target is -1, nothing is added. Of rows of the same target the first is added first.
    """
    N, size = len(targets), max(_NUMBERS_AT_ONCE // into.shape[1], 1)
    # Those that count to the front, in their order: the loop ends after them.
    is_on = targets >= 0
    places = jnp.where(is_on, jnp.cumsum(is_on) - 1, N + size)
    targets, origins = (
        jnp.full(N + size, -1, jnp.int32).at[places].set(values, mode="drop")
        for values in (targets, origins)
    )
    rounded: Callable[[jax.Array], jax.Array] = (
        products.rounded if jnp.dtype(dtype) == jnp.bfloat16 else lambda x: x
    )

    def add_some(i: jax.Array, into: jax.Array) -> jax.Array:
        to, of = (lax.dynamic_slice_in_dim(x, i * size, size) for x in (targets, origins))
        rows = source.at[of].get(mode="fill", fill_value=0.0, wrap_negative_indices=False)
        return into.at[to].add(rounded(rows), mode="drop", wrap_negative_indices=False)

    return lax.fori_loop(0, -(-is_on.sum() // size), add_some, into)

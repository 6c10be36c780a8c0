"""Check and pad the rows and z that users pass, and split them into batches of few sizes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from musicvae_jax.config import InputError
from musicvae_jax.tasks import Task
from musicvae_jax.tokens import check_row

MAX_BATCH = 256

Tokens = np.ndarray | Sequence[Any]
Key = jax.Array | int | np.integer | None


class Rows(NamedTuple):
    """Checked rows: tokens [B, T(, K)] int32, lengths [B] int32, whether one row was given."""

    tokens: np.ndarray
    lengths: np.ndarray
    is_single: bool


def check_rows(tokens: Tokens, task: Task) -> Rows:
    """Check rows, pad them and cut them to T steps.

    Raises:
      InputError: they are not tokens of the task.
    """
    rank = len(task.row_shape)
    is_list = not isinstance(tokens, np.ndarray | jax.Array)
    if is_list and len(tokens) and np.ndim(tokens[0]) == rank:
        rows, is_single = [np.asarray(row) for row in tokens], False
    else:
        array = np.asarray(tokens)
        is_single = array.ndim == rank
        rows = [array] if is_single else list(array)
    if not rows:
        raise InputError("tokens: there are no rows")
    rows = [check_row(row, task) for row in rows]
    T = task.num_steps
    longest = max(len(row) for row in rows)
    if longest > T:
        warnings.warn(f"tokens: {longest} steps, only the first {T} are used", stacklevel=4)
    padded = np.zeros((len(rows), *task.row_shape), np.int32)
    for target, row in zip(padded, rows, strict=True):
        target[: min(len(row), T)] = row[:T]
    lengths = np.array([min(len(row), T) for row in rows], np.int32)
    return Rows(padded, lengths, is_single)


def check_points(z: np.ndarray, z_size: int) -> tuple[np.ndarray, bool]:
    """Check z: ([B, Z] float32, whether one was given).

    Raises:
      InputError: it has another shape, or a value is not finite.
    """
    array = np.asarray(z, np.float32)
    if array.ndim not in (1, 2) or array.shape[-1] != z_size or not array.size:
        raise InputError(f"z: shape {list(array.shape)}, it must be [B, {z_size}] or [{z_size}]")
    if not np.isfinite(array).all():
        raise InputError("z: holds values that are not finite")
    return np.atleast_2d(array), array.ndim == 1


def as_key(key: jax.Array | int | np.integer) -> jax.Array:
    """Return a random key from a key or a seed."""
    return jax.random.key(int(key)) if isinstance(key, int | np.integer) else key


def check_sampling(key: Key, temperature: float) -> jax.Array:
    """Return the random key to decode with; greedy decoding uses none."""
    if not 0.0 <= temperature < float("inf"):
        raise InputError(f"temperature: {temperature!r} is out of range, it must be 0 or more")
    if key is None and temperature > 0:
        raise InputError("key: None; a temperature above 0 needs a random key or a seed")
    return as_key(0 if key is None else key)


def in_parts(
    run: Callable[..., Any], arrays: tuple[np.ndarray, ...], key: jax.Array | None = None
) -> Any:
    """Call a compiled function on parts of a batch, and join what it returns.

    Args:
      run: takes a tuple of arrays [P, ...] and, if `key` is given, a key; returns a pytree of
        arrays [P, ...].
      arrays: [B, ...] each.
      key: random key; each part gets its own.
    """
    results = []
    num_rows = len(arrays[0])
    for part, start in enumerate(range(0, num_rows, MAX_BATCH)):
        stop = min(start + MAX_BATCH, num_rows)
        size = 1 << (stop - start - 1).bit_length()
        # Padding repeats the last row: it is valid input, and is dropped again.
        index = np.minimum(np.arange(start, start + size), stop - 1)
        keys = () if key is None else (jax.random.fold_in(key, part),)
        result = run(tuple(array[index] for array in arrays), *keys)
        results.append(jax.tree.map(lambda leaf, n=stop - start: np.asarray(leaf)[:n], result))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)

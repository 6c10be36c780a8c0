"""Token stores: opening and checking them, the batch of a step, transposition.

A batch is a pure function of (seed, step), so resuming needs only the step number.
"""

from __future__ import annotations

import collections
import hashlib
import json
import pathlib
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.config import InputError
from musicvae_jax.tasks import FIRST_NOTE_ON, MELODY_CLASSES, Task, get_task

SPLITS = ("train", "validation", "test")
STORE_FORMAT = "musicvae-tokens-1"
# Files up to this size are hashed before training; larger ones are only checked by shape and type.
HASHED_BYTES = 1 << 30
# Memory limit for cached permutations; the two that a batch may need are always kept.
_ORDER_BYTES = 1 << 28


class Store(NamedTuple):
    """An opened folder of token rows.

    Attributes:
      path: absolute path of the folder.
      task: the task, which defines the meaning of a row.
      splits: split name to rows [N, T] or [N, T, K], memory-mapped, `task.token_dtype`.
      meta: contents of `meta.json`.
      fingerprint: hexadecimal digest of the task's name and the files' hashes.
    """

    path: pathlib.Path
    task: Task
    splits: dict[str, np.ndarray]
    meta: Mapping[str, Any]
    fingerprint: str


def open_store(path: str | pathlib.Path) -> Store:
    """Open a folder written by `data_pipeline.prepare`, without reading any rows.

    Raises:
      InputError: the folder is not a store, or a file is missing or does not match meta.json.
    """
    folder = pathlib.Path(path).resolve()
    meta = _read_meta(folder)
    task = get_task(meta["task"])
    splits = {name: _open_split(folder, name, task, meta["counts"]) for name in SPLITS}
    identity = json.dumps({"task": task.name, "sha256": meta["sha256"]}, sort_keys=True)
    return Store(folder, task, splits, meta, hashlib.sha256(identity.encode()).hexdigest())


def _read_meta(folder: pathlib.Path) -> dict[str, Any]:
    """Read meta.json and check its format."""
    file = folder / "meta.json"
    advice = "make one with musicvae prepare"
    if not file.is_file():
        stores = sorted(path.parent.name for path in folder.glob("*/meta.json"))
        if stores:
            raise InputError(
                f"data_dir: {folder} holds the token stores {', '.join(stores)}; name one of them"
            )
        raise InputError(f"data_dir: {folder} is not a token store, it has no meta.json; {advice}")
    try:
        meta = json.loads(file.read_text())
        known = meta["format"] == STORE_FORMAT and {"task", "counts", "sha256"} <= set(meta)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise InputError(f"data_dir: {file} is not of format {STORE_FORMAT}; {advice}")
    return meta


def _open_split(
    folder: pathlib.Path, name: str, task: Task, counts: Mapping[str, int]
) -> np.ndarray:
    """Memory-map the rows of a split and check their shape and type."""
    file = folder / f"{name}.npy"
    try:
        rows = np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"data_dir: {file} cannot be read as an array: {error}") from error
    shape = (counts[name], *task.row_shape)
    if rows.shape != shape or rows.dtype != task.token_dtype:
        raise InputError(
            f"data_dir: {file} holds {rows.dtype} {rows.shape}, but meta.json and task "
            f"{task.name} say {task.token_dtype} {shape}; run musicvae prepare again"
        )
    return rows


def check_content(store: Store) -> None:
    """Check the files (up to 1 GiB each) against the hashes in meta.json.

    Raises:
      InputError: a file has changed since it was written.
    """
    for name, expected in store.meta["sha256"].items():
        file = store.path / name
        if file.stat().st_size > HASHED_BYTES:
            continue
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected:
            raise InputError(
                f"data_dir: {file} has changed since it was written (its hash is not the one "
                "in meta.json); run musicvae prepare again"
            )


_orders: collections.OrderedDict[tuple[int, int, int], np.ndarray] = collections.OrderedDict()
_orders_lock = threading.Lock()


def _epoch_order(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    """Return the permutation of the rows in an epoch.

    The most recently used orders are cached: a sweep over seeds needs one per seed at every step.
    """
    name = (seed, epoch, num_rows)
    with _orders_lock:
        order = _orders.pop(name, None)
        if order is None:
            order = np.random.default_rng([seed, epoch]).permutation(num_rows).astype(np.int32)
            order.setflags(write=False)
        _orders[name] = order
        while len(_orders) > 2 and sum(kept.nbytes for kept in _orders.values()) > _ORDER_BYTES:
            _orders.popitem(last=False)
    return order


def batch_indices(seed: int, step: int, num_rows: int, batch_size: int) -> np.ndarray:
    """Return the row indices of a step's batch, int32 [B].

    Batches are consecutive parts of the permutations of all epochs, concatenated. A batch may span
    two epochs, so each row occurs exactly `n` times in `n` epochs.

    Raises:
      InputError: there are fewer rows than a batch needs.
    """
    check_enough_rows(num_rows, batch_size)
    epoch, start = divmod(step * batch_size, num_rows)
    first = _epoch_order(seed, epoch, num_rows)[start : start + batch_size]
    missing = batch_size - len(first)
    if not missing:
        return first
    return np.concatenate([first, _epoch_order(seed, epoch + 1, num_rows)[:missing]])


def check_enough_rows(num_rows: int, batch_size: int) -> None:
    """Check that a batch can be filled without repeating a row.

    Raises:
      InputError: there are too few rows.
    """
    if num_rows < batch_size:
        raise InputError(
            f"data_dir: {num_rows} training rows are fewer than one batch of {batch_size}; "
            f"give more data or --batch_size={max(num_rows, 1)} or less"
        )


def padded_batches(num_rows: int, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split `num_rows` rows into batches of equal size: (indices int32 [B], mask bool [B]).

    The last batch is padded with row 0, where `mask` is False.
    """
    batches = []
    for start in range(0, num_rows, batch_size):
        indices = np.arange(start, start + batch_size, dtype=np.int32)
        mask = indices < num_rows
        batches.append((np.where(mask, indices, 0).astype(np.int32), mask))
    return batches


def spread_rows(num_rows: int, limit: int) -> np.ndarray:
    """Choose up to `limit` evenly spaced rows of a split (0: all), int64 [N].

    Neighbouring rows often come from the same piece, so the first `limit` rows would cover only a
    few pieces.
    """
    if limit == 0 or limit >= num_rows:
        return np.arange(num_rows)
    return np.arange(limit) * num_rows // limit


def transpose_tokens(
    key: jax.Array, tokens: jax.Array, limit: jax.Array | int, task: Task
) -> jax.Array:
    """Transpose each example's melodies by a random interval that keeps all notes in range.

    The interval is uniform over those in [-limit, limit] that keep every note of the melody tracks
    in range; 0 always does. Melody and bass of a trio move together. Drums, "no event" and "note
    off" do not change.

    Args:
      key: random key.
      tokens: integer [B, T] or [B, T, K].
      limit: largest interval in semitones.
      task: the task, which defines the melody tracks.

    Returns:
      int32 tokens with the shape of `tokens`.
    """
    tokens = tokens.astype(jnp.int32)
    melodic = np.array([track.is_pitched for track in task.tracks])
    if not melodic.any():
        return tokens
    columns = tokens.reshape(*tokens.shape[:2], len(task.tracks))
    notes = (columns >= FIRST_NOTE_ON) & jnp.asarray(melodic)[None, None, :]
    limit = jnp.asarray(limit, jnp.int32)
    highest = jnp.max(jnp.where(notes, columns, FIRST_NOTE_ON), axis=(1, 2))
    lowest = jnp.min(jnp.where(notes, columns, MELODY_CLASSES - 1), axis=(1, 2))
    down = jnp.maximum(-limit, FIRST_NOTE_ON - lowest)
    up = jnp.minimum(limit, MELODY_CLASSES - 1 - highest)
    shift = jax.random.randint(key, down.shape, down, up + 1)
    moved = jnp.where(notes, columns + shift[:, None, None], columns)
    return moved.reshape(tokens.shape)

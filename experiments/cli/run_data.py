"""The token store that a command reads, checked against the run and against its own hashes."""

from __future__ import annotations

import pathlib

import numpy as np

from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.storage import run_folder
from musicvae_jax.tasks import Task


def open_run_data(
    run_dir: str | pathlib.Path | None,
    data_dir: str | None,
    task: Task,
    allow_changed: bool = False,
) -> data.Store:
    """Open the given store, or the one the run was trained on.

    Args:
      run_dir: the run folder; None for a model of the package, which comes without its data.
      data_dir: token store; None opens the run's own.
      task: the task of the run.
      allow_changed: accept a store that was edited or prepared again.

    Raises:
      InputError: there is no such store, it is of another task, or it has changed.
    """
    if data_dir:
        return open_checked(data_dir, task, "data_dir", allow_changed)
    if run_dir is None:
        raise InputError(
            "data_dir: a model of the package comes without its data; docs/data.md says how to "
            f"prepare its store of {task.name}; then give --data_dir"
        )
    known = run_folder.read_data(run_dir)
    store = open_checked(known["path"], task, "data_dir", allow_changed)
    if not allow_changed and store.fingerprint != known["fingerprint"]:
        raise InputError(
            f"data_dir: {store.path} has changed since the run was trained on it; name a store "
            "with --data_dir, or give --allow_changed_data"
        )
    return store


def open_checked(
    path: str | pathlib.Path, task: Task, flag: str, allow_changed: bool = False
) -> data.Store:
    """Open a store of a task and check its files against their recorded hashes.

    Raises:
      InputError: it is no store, of another task, or edited; the message begins with `flag`.
    """
    store = data.open_store(path)
    if store.task != task:
        raise InputError(
            f"{flag}: {store.path} holds rows of {store.task.name}, the model is of {task.name}"
        )
    if not allow_changed:
        try:
            data.check_content(store)
        except InputError as error:
            raise InputError(f"{error}, or give --allow_changed_data") from error
    return store


def split_rows(store: data.Store, split: str) -> np.ndarray:
    """Return the rows of a split, [N, *task.row_shape].

    Raises:
      InputError: it has none; the message names the splits that have rows.
    """
    rows = store.splits[split]
    if not len(rows):
        filled = ", ".join(name for name in data.SPLITS if len(store.splits[name]))
        raise InputError(f"split: {store.path} has no {split} rows; splits with rows: {filled}")
    return rows

"""A run folder with a tiny model that was never trained, and its store."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np

from musicvae_jax import data
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage import run_folder
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import get_task
from tests.support.synthetic_store import write_store


def make_run(folder: pathlib.Path, task: str, **fields: Any) -> str:
    """Write both below a folder, as "run" and "store", and name the run; its step is 7.

    `fields` are fields of the configuration.
    """
    store = data.open_store(write_store(folder / "store", task))
    sizes = {"encoder_sizes": (8,), "decoder_sizes": (8,), "z_size": 4, "init": "default"}
    config = get_task(task).config.replace(**sizes, dtype="float32", **fields)
    run = run_folder.open_run_folder(folder / "run", config, store)
    with Checkpoints(run, create=True) as saved:
        saved.save(
            7, jax.jit(build_model(config).init)(jax.random.key(0)), {"a": np.ones(1)}, config
        )
    return str(run)

"""One file per model: the parameters as safetensors, the configuration in the header.

The tensors' names are paths in the parameters ("encoder/mu/kernel"). The header's metadata has one
key, `musicvae_jax`, whose value is JSON: {"config": every field, "step": optimiser steps}.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, numpy, safe_open

from musicvae_jax.config import Config, InputError, config_from_json
from musicvae_jax.models.registry import Params, build_model

DTYPES = ("float32", "float16")
_KEY = "musicvae_jax"


class SavedModel(NamedTuple):
    """The contents of a file.

    Attributes:
      config: the model's configuration.
      params: float32 or float16 arrays, as stored.
      step: optimiser steps done.
    """

    config: Config
    params: Params
    step: int


def write(
    path: str | os.PathLike[str], config: Config, params: Params, step: int, dtype: str = "float32"
) -> None:
    """Write a model to a file, completely or not at all.

    Args:
      path: the file.
      config: the model's configuration.
      params: parameters, float32.
      step: optimiser steps done.
      dtype: "float32" or "float16".

    Raises:
      InputError: the type is unknown, a parameter is too large for float16, or the file cannot be
        written.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    tensors = {}
    for name, leaf in _named(params).items():
        source = np.asarray(leaf, np.float32)
        with np.errstate(over="ignore"):
            tensors[name] = np.ascontiguousarray(source.astype(dtype))
        if np.isfinite(source).all() and not np.isfinite(tensors[name]).all():
            raise InputError(f"dtype: {name} has values beyond float16's range; use float32")
    about = json.dumps({"config": config.flat(), "step": step})
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        numpy.save_file(tensors, partial, metadata={_KEY: about})
        partial.replace(path)
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be written: {reason}") from error
    finally:
        partial.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> SavedModel:
    """Read a file written by `write`.

    Raises:
      InputError: the file is missing, damaged or not such a file, or its arrays do not fit its
        configuration.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            config = config_from_json(json.dumps(about["config"]))
            config = config.replace(lstm_backend="auto")
            step = int(about["step"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable safetensors file: {reason}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"{path}: its header has no configuration of this library") from error
    shapes = jax.eval_shape(build_model(config).init, jax.random.key(0))
    expected = {name: leaf.shape for name, leaf in _named(shapes).items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if differing := sorted({name for name, _ in expected.items() ^ found.items()}):
        name = differing[0]
        raise InputError(
            f"{path}: {name} has shape {_written(found.get(name))}, the configuration needs "
            f"{_written(expected.get(name))} ({len(differing)} such arrays)"
        )
    leaves = [tensors[name] for name in expected]
    return SavedModel(config, jax.tree.unflatten(jax.tree.structure(shapes), leaves), step)


def _written(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


def _named(tree: Any) -> dict[str, Any]:
    """Return the leaves of a nested dict by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}

"""One file per model: parameters, fitted prior and attribute vectors as safetensors.

    encoder/mu/kernel, ...      the parameters, named by their paths
    prior/weights  [M] float32, the weights of a mixture of M Gaussians over z; their sum is 1
    prior/means    [M, Z]
    prior/scales   [M, Z (Z + 1) / 2], the lower triangles of the Cholesky factors, row by row
    prior/orders, ... or a normalising flow: the arrays of `musicvae_jax.priors.Flow`
    attributes/NAME  [Z], the vector that changes the attribute NAME

`prior/` and `attributes/` are there if the model has them. All arrays are float32, or all float16
but the weights of the mixture; the orders of the flow are int32. The header's metadata has one key,
`musicvae_jax`, whose value is JSON: {"config": every field, "step": optimiser steps, "about": any
further facts}.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, numpy, safe_open

from musicvae_jax.config import Config, InputError, config_from_json
from musicvae_jax.models.registry import Params, build_model
from musicvae_jax.priors import FittedPrior, Flow, Mixture, check

DTYPES = ("float32", "float16")
_STORED_TYPES = ("F32", "F16")
_KEY = "musicvae_jax"
_PRIOR, _ATTRIBUTES = "prior/", "attributes/"
_ORDERS = _PRIOR + "orders"


class SavedModel(NamedTuple):
    """The contents of a file.

    Attributes:
      config: the model's configuration.
      params: float32 or float16 arrays, as stored.
      step: optimiser steps done.
      prior: density to draw z from, float32; None if the file has none.
      attributes: attribute to its vector [Z], float32; empty if the file has none.
      about: further facts, such as how the prior was fitted.
    """

    config: Config
    params: Params
    step: int
    prior: FittedPrior | None
    attributes: dict[str, np.ndarray]
    about: dict[str, Any]


def write(
    path: str | os.PathLike[str],
    config: Config,
    params: Params,
    step: int = 0,
    prior: FittedPrior | None = None,
    attributes: Mapping[str, np.ndarray] | None = None,
    about: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> None:
    """Write a model to a file, completely or not at all.

    Args:
      path: the file.
      config: the model's configuration.
      params: parameters, float32.
      step: optimiser steps done.
      prior: density to draw z from.
      attributes: attribute to its vector [Z].
      about: further facts, anything JSON can hold.
      dtype: "float32" or "float16".

    Raises:
      InputError: the type is unknown, a number is too large for float16, or the file cannot be
        written.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    arrays = _named(params) | {_ATTRIBUTES + name: v for name, v in (attributes or {}).items()}
    tensors = {name: _rounded(name, array, dtype) for name, array in arrays.items()}
    if prior is not None:
        tensors |= _prior_tensors(prior, dtype)
    header = {"config": config.flat(), "step": step, "about": dict(about or {})}
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        numpy.save_file(tensors, partial, metadata={_KEY: json.dumps(header)})
        partial.chmod(_usual_mode())
        partial.replace(path)
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be written: {reason}") from error
    finally:
        partial.unlink(missing_ok=True)


def _prior_tensors(prior: FittedPrior, dtype: str) -> dict[str, np.ndarray]:
    """Return a prior's arrays as the file has them; the weights and orders are never rounded."""
    arrays = {_PRIOR + name: array for name, array in prior._asdict().items()}
    exact = {_ORDERS: np.int32, _PRIOR + "weights": np.float32}
    if isinstance(prior, Mixture):
        rows, columns = np.tril_indices(prior.means.shape[1])
        arrays[_PRIOR + "scales"] = prior.scales[:, rows, columns]
    return {
        name: np.asarray(array, exact[name]) if name in exact else _rounded(name, array, dtype)
        for name, array in arrays.items()
    }


def _usual_mode() -> int:
    """Return the permissions of new files: safetensors lets nobody but the owner read its own."""
    umask = os.umask(0)  # it is read by setting it
    os.umask(umask)
    return 0o666 & ~umask


def _rounded(name: str, array: Any, dtype: str) -> np.ndarray:
    """Return an array in the type of the file."""
    source = np.asarray(array, np.float32)
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(source.astype(dtype))
    if np.isfinite(source).all() and not np.isfinite(rounded).all():
        raise InputError(f"dtype: {name} has values beyond float16's range; use float32")
    return rounded


def read(path: str | os.PathLike[str]) -> SavedModel:
    """Read a file written by `write`.

    Raises:
      InputError: the file is missing, damaged or not such a file, or its arrays do not fit its
        configuration.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            config = config_from_json(json.dumps(header["config"])).replace(lstm_backend="auto")
            step, about = int(header["step"]), dict(header.get("about", {}))
            names = list(file.keys())
            for name in names:
                allowed = ("I32",) if name == _ORDERS else _STORED_TYPES
                if (stored := file.get_slice(name).get_dtype()) not in allowed:
                    raise InputError(f"{name} is {stored}, it must be {' or '.join(allowed)}")
            tensors = {name: file.get_tensor(name) for name in names}
        prior, attributes = _take_prior(config, tensors), _take_attributes(config, tensors)
        return SavedModel(config, _params(config, tensors), step, prior, attributes, about)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable safetensors file: {reason}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"{path}: its header has no configuration of this library") from error


def _params(config: Config, tensors: dict[str, np.ndarray]) -> Params:
    """Return the parameters as the model's tree."""
    shapes = jax.eval_shape(build_model(config).init, jax.random.key(0))
    expected = {name: leaf.shape for name, leaf in _named(shapes).items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if differing := sorted({name for name, _ in expected.items() ^ found.items()}):
        name = differing[0]
        raise InputError(
            f"{name} has shape {_written(found.get(name))}, the configuration needs "
            f"{_written(expected.get(name))} ({len(differing)} such arrays)"
        )
    leaves = [tensors[name] for name in expected]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _take_prior(config: Config, tensors: dict[str, np.ndarray]) -> FittedPrior | None:
    """Remove the prior's arrays from the tensors and return the prior."""
    names = [name for name in tensors if name.startswith(_PRIOR)]
    found = {
        name.removeprefix(_PRIOR): tensors[name].astype(np.int32 if name == _ORDERS else np.float32)
        for name in names
    }
    for name in names:
        del tensors[name]
    if not found:
        return None
    kind: type[FittedPrior] = Flow if set(found) & set(Flow._fields) else Mixture
    if differing := set(kind._fields) ^ found.keys():
        name = min(differing)
        raise InputError(f"{_PRIOR}{name} is {'unknown' if name in found else 'missing'}")
    Z = config.model.z_size
    if kind is Mixture:
        found["scales"] = _squares(found["scales"], found["weights"].size, Z)
    prior = kind(**found)
    check(prior, Z)
    return prior


def _squares(triangles: np.ndarray, num: int, Z: int) -> np.ndarray:
    """Return lower triangles, stored row by row, as matrices [num, Z, Z]."""
    if triangles.shape != (num, Z * (Z + 1) // 2):
        raise InputError(
            f"{_PRIOR}scales has shape {_written(triangles.shape)}, it must be "
            f"[{num}, {Z * (Z + 1) // 2}]"
        )
    scales = np.zeros((num, Z, Z), np.float32)
    scales[:, *np.tril_indices(Z)] = triangles
    return scales


def _take_attributes(config: Config, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove the attribute vectors from the tensors and return them."""
    names = [name for name in tensors if name.startswith(_ATTRIBUTES)]
    found = {name: tensors.pop(name).astype(np.float32) for name in names}
    for name, vector in found.items():
        if vector.shape != (config.model.z_size,) or not np.isfinite(vector).all():
            raise InputError(
                f"{name} has shape {_written(vector.shape)}; it must be "
                f"[{config.model.z_size}], and finite"
            )
    return {name.removeprefix(_ATTRIBUTES): vector for name, vector in found.items()}


def _written(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


def _named(tree: Any) -> dict[str, Any]:
    """Return the leaves of a nested dict by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}

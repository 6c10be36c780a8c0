"""The reference's variables (TensorFlow names) to our parameters, and back.

Both hold the same arrays in the same layout; only the names differ. Layer sizes are read
from the shapes.

Reference: variable names of magenta/models/music_vae, as listed in its checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from musicvae_jax.config import Config, InputError, ModelConfig
from musicvae_jax.models.registry import Params, build_model
from musicvae_jax.tasks import get_task

# Counters and the optimiser's slots, which a checkpoint may hold beside the variables.
_NOT_PARAMETERS = re.compile(r"(^|/)(global_step|beta[12]_power|Adam(_\d+)?)$")
_ENCODER_CELL = "cell_{}/bidirectional_rnn/{}/multi_rnn_cell/cell_0/lstm_cell"
_ENCODER_LEVEL = "encoder/hierarchical_level_{}"
_CONDUCTOR = "decoder/hierarchical_level_0"


def params_from_variables(variables: Mapping[str, Any], task: str) -> tuple[ModelConfig, Params]:
    """Convert a dict of the reference's variables to parameters.

    Args:
      variables: TensorFlow name (a trailing ":0" is allowed) to float array. The step counter and
        the optimiser's slots are ignored; every other name must be of the model.
      task: name of the task the model was trained for.

    Returns:
      The model's configuration, with layer sizes read from the shapes, and its parameters:
      the arrays given, not copied.

    Raises:
      InputError: a name is missing or not of such a model, or a shape does not fit.
    """
    arrays = {name.removesuffix(":0"): array for name, array in variables.items()}
    arrays = {n: array for n, array in arrays.items() if not _NOT_PARAMETERS.search(n)}
    model = _infer_config(arrays, task)
    config = get_task(task).config
    config = Config(task=task, model=model, train=config.train, run=config.run)
    shapes = jax.eval_shape(build_model(config).init, jax.random.key(0))
    names = {path: _tf_name(path, shapes) for path, _ in _leaves(shapes)}
    unknown = sorted(set(arrays) - set(names.values()))
    if unknown:
        raise InputError(
            f"variables: {unknown[0]!r} is not a variable of a {model.architecture} model for "
            f"{task} ({len(unknown)} unknown in all)"
        )
    params: Params = {}
    for path, leaf in _leaves(shapes):
        _assign(params, path, _checked(arrays, names[path], leaf.shape))
    return model, params


def variables_from_params(params: Params) -> dict[str, Any]:
    """Convert parameters to the reference's variables: the inverse of `params_from_variables`."""
    return {_tf_name(path, params): leaf for path, leaf in _leaves(params)}


def _checked(arrays: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Any:
    """Return a variable that must exist and have this shape."""
    if name not in arrays:
        raise InputError(f"variables: {name!r} is missing; its shape would be {list(shape)}")
    if tuple(arrays[name].shape) != shape:
        found = list(arrays[name].shape)
        raise InputError(f"variables: {name!r} has shape {found}, it must be {list(shape)}")
    return arrays[name]


def _infer_config(arrays: Mapping[str, Any], task: str) -> ModelConfig:
    """Read the sizes from the biases and the z from mu."""
    num_tracks = len(get_task(task).tracks)
    is_hierarchical = any(name.startswith(f"{_CONDUCTOR}/") for name in arrays)
    has_levels = any(name.startswith(_ENCODER_LEVEL.format(0)) for name in arrays)
    encoder = _ENCODER_LEVEL.format(0) if has_levels else "encoder"
    conductor: tuple[int, ...] = ()
    core = "decoder"
    if is_hierarchical:
        conductor = _cell_sizes(arrays, _CONDUCTOR + "/cell_{}/lstm_cell")
        core = "core_decoder/" + ("core_decoder_0/decoder" if num_tracks > 1 else "decoder")
    decoder = _cell_sizes(arrays, core + "/multi_rnn_cell/cell_{}/lstm_cell")
    return ModelConfig(
        architecture="hier" if has_levels else "hierdec" if is_hierarchical else "flat",
        z_size=_require_shape(arrays, "encoder/mu/bias", 1)[0],
        encoder_sizes=_cell_sizes(arrays, f"{encoder}/{_ENCODER_CELL.format('{}', 'fw')}"),
        decoder_sizes=decoder,
        conductor_sizes=() if conductor == decoder else conductor,
    )


def _cell_sizes(arrays: Mapping[str, Any], pattern: str) -> tuple[int, ...]:
    """Read the units of each layer; the names of layer n are `pattern` with n put in."""
    sizes: list[int] = []
    while not sizes or f"{pattern.format(len(sizes))}/bias" in arrays:
        name = f"{pattern.format(len(sizes))}/bias"
        sizes.append(_require_shape(arrays, name, 1)[0] // 4)
    return tuple(sizes)


def _require_shape(arrays: Mapping[str, Any], name: str, rank: int) -> tuple[int, ...]:
    """Return the shape of a variable that must exist."""
    if name not in arrays:
        raise InputError(f"variables: {name!r} is missing")
    shape = tuple(arrays[name].shape)
    if len(shape) != rank or min(shape) < 1:
        raise InputError(f"variables: {name!r} has shape {list(shape)}, it must have rank {rank}")
    return shape


def _leaves(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the value of every array of a nested dict."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield tuple(entry.key for entry in path), leaf


def _assign(tree: Params, path: tuple[str, ...], leaf: Any) -> None:
    """Put a value at a path, making the dicts on the way."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def _tf_name(path: tuple[str, ...], params: Params) -> str:
    """Return the reference's name of a parameter; `params` tells which model it is."""
    leaf = path[-1]
    if path[0] == "encoder":
        if path[1] in ("mu", "sigma"):
            return "/".join(path)
        scope = "encoder"
        if path[1].startswith("level_"):
            scope = _ENCODER_LEVEL.format(path[1].removeprefix("level_"))
        cell, direction = path[-3:-1]
        return f"{scope}/{_ENCODER_CELL.format(cell.removeprefix('cell_'), direction)}/{leaf}"
    if path[1] == "conductor":
        cell = "/lstm_cell" if path[2].startswith("cell_") else ""
        return f"{_CONDUCTOR}/{path[2]}{cell}/{leaf}"
    part = f"multi_rnn_cell/{path[3]}/lstm_cell" if path[3].startswith("cell_") else path[3]
    return f"{_core_scope(path[2], params['decoder'])}/{part}/{leaf}"


def _core_scope(core: str, decoder: Params) -> str:
    """Return the reference's scope of a stream, "core_0" and so on."""
    if "conductor" not in decoder:
        return "decoder"
    if len(decoder["core"]) == 1:
        return "core_decoder/decoder"
    return f"core_decoder/core_decoder_{core.removeprefix('core_')}/decoder"

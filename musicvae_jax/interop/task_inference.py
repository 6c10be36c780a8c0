"""Which task a checkpoint of the reference was trained for, from names and shapes alone; no jax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS

_CELL = "bidirectional_rnn/fw/multi_rnn_cell/cell_0/lstm_cell"
# Published flat models: (encoder, decoder, z) -> bars.
_PUBLISHED_BARS = {
    ((512,), (256, 256), 256): 2,
    ((2048,), (2048, 2048, 2048), 512): 2,
    ((2048, 2048), (2048, 2048, 2048), 512): 16,
}


def infer_task(variables: Mapping[str, Any]) -> str:
    """Return the only task that names and shapes of the variables fit.

    Args:
      variables: name to anything with a shape.

    Raises:
      InputError: no task fits, or several do.
    """
    depth = _encoder_depth(variables)
    if not depth:
        raise InputError(f"it has no MusicVAE encoder: no supported model ({', '.join(TASKS)})")
    classes = sum(
        variable.shape[0]
        for name, variable in variables.items()
        if name.endswith("output_projection/bias") and len(variable.shape) == 1
    )
    fitting = [
        task
        for task in TASKS.values()
        if sum(track.encoder_depth for track in task.tracks) == depth
        and sum(track.num_classes for track in task.tracks) == classes
    ]
    if not fitting:
        raise InputError(
            f"its encoder reads {depth} values per step and its decoder writes {classes}: no "
            f"supported model ({', '.join(TASKS)})"
        )
    bars = _bars(variables)
    # Sizes of a published model say nothing where they leave no task: trios have 16 bars only.
    fitting = [task for task in fitting if task.num_bars == bars] or fitting
    if len(fitting) > 1:
        raise InputError(
            f"its shapes fit the tasks {' and '.join(task.name for task in fitting)}; give --task"
        )
    return fitting[0].name


def _encoder_depth(variables: Mapping[str, Any]) -> int:
    """Return how many values per step the encoder reads; 0 for no encoder that is known."""
    for scope in ("encoder", "encoder/hierarchical_level_0"):
        kernel = variables.get(f"{scope}/cell_0/{_CELL}/kernel")
        if kernel is not None and len(kernel.shape) == 2:
            return kernel.shape[0] - kernel.shape[1] // 4
    return 0


def _bars(variables: Mapping[str, Any]) -> int | None:
    """Return the bars of a row, None where they cannot be known."""
    if any("/hierarchical_level_0/" in name for name in variables):
        return 16
    sizes = (
        _layer_sizes(variables, "encoder/cell_{}/" + _CELL),
        _layer_sizes(variables, "decoder/multi_rnn_cell/cell_{}/lstm_cell"),
        variables["encoder/mu/bias"].shape[-1] if _has_columns(variables, "encoder/mu") else 0,
    )
    return _PUBLISHED_BARS.get(sizes)


def _layer_sizes(variables: Mapping[str, Any], pattern: str) -> tuple[int, ...]:
    """Read the units of each LSTM layer; `pattern` takes the layer's number."""
    sizes: list[int] = []
    while _has_columns(variables, pattern.format(len(sizes))):
        sizes.append(variables[f"{pattern.format(len(sizes))}/bias"].shape[0] // 4)
    return tuple(sizes)


def _has_columns(variables: Mapping[str, Any], scope: str) -> bool:
    """Return whether a layer has a bias that is a vector."""
    bias = variables.get(f"{scope}/bias")
    return bias is not None and len(bias.shape) == 1

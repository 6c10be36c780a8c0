"""The folder that the browser player @magenta/music 1.23.1 loads.

config.json            which converter turns notes into tensors
weights_manifest.json  name, shape and quantisation of every variable, and the files of its bytes
group1-shardNofM       the bytes of all variables, one after the other, cut every 4 MB

Reference: magenta-js, music/src/music_vae/model.ts and music/scripts/checkpoint_converter.py;
write_weights.py and quantization.py of tensorflowjs 4.22.
"""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import numpy as np

from musicvae_jax.config import Config, InputError
from musicvae_jax.interop.new_folder import new_folder
from musicvae_jax.models.registry import Params
from musicvae_jax.models.variables import variables_from_params
from musicvae_jax.tasks import MAX_PITCH, MIN_PITCH, Task, get_task

QUANTIZATIONS = ("none", "float16", "uint16", "uint8")
SHARD_BYTES = 4 * 1024 * 1024


def write(folder: pathlib.Path, config: Config, params: Params, quantize: str = "none") -> None:
    """Write a model as a folder for the player, completely or not at all.

    Args:
      folder: a path that does not exist yet, in a folder that does.
      config: the model's configuration.
      params: parameters, float32.
      quantize: how weights are stored: "none" (float32), "float16", "uint16" or "uint8".

    Raises:
      InputError: the player cannot load such a model (the message says why), or a weight has no
        finite value in that type.
    """
    if quantize not in QUANTIZATIONS:
        raise InputError(f"quantize: {quantize!r} is not one of {', '.join(QUANTIZATIONS)}")
    check_loadable(config, params)
    variables = variables_from_params(params)
    entries, parts = [], []
    for name in sorted(variables):
        array = np.asarray(variables[name], np.float32)
        entry, stored = _quantized(name, array, quantize)
        entries.append({"name": name, "shape": list(array.shape), "dtype": "float32"} | entry)
        parts.append(stored.astype(stored.dtype.newbyteorder("<")).tobytes())
    content = b"".join(parts)
    num = max(math.ceil(len(content) / SHARD_BYTES), 1)
    names = [f"group1-shard{n + 1}of{num}" for n in range(num)]
    with new_folder(folder) as partial:
        for n, name in enumerate(names):
            (partial / name).write_bytes(content[n * SHARD_BYTES : (n + 1) * SHARD_BYTES])
        _write_json(partial / "weights_manifest.json", [{"paths": names, "weights": entries}])
        _write_json(partial / "config.json", player_config(config, params))


def read_variables(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Read the variables of a folder by its manifest: {name: float32}.

    Raises:
      InputError: a file is missing, or its bytes do not fit the manifest.
    """
    try:
        groups = json.loads((folder / "weights_manifest.json").read_text(encoding="utf-8"))
        variables = {}
        for group in groups:
            content = b"".join((folder / name).read_bytes() for name in group["paths"])
            start = 0
            for entry in group["weights"]:
                array, start = _read_variable(entry, content, start)
                variables[entry["name"]] = array
            if start != len(content):
                raise ValueError(f"{len(content) - start} bytes are left over")
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder}: not a readable magenta.js checkpoint: {error}") from error
    return variables


def player_config(config: Config, params: Params) -> dict[str, Any]:
    """Return the content of config.json."""
    task = get_task(config.task)
    converter, arguments = _converter(task)
    arguments = {"numSteps": task.num_steps} | arguments
    if _reads_bars(params):
        arguments["numSegments"] = task.num_bars
    return {"type": "MusicVAE", "dataConverter": {"type": converter, "args": arguments}}


def check_loadable(config: Config, params: Params) -> None:
    """Check that the player can load a model.

    Raises:
      InputError: it cannot; the message says why, and which model it could load.
    """
    task, model = get_task(config.task), config.model
    if len(model.encoder_sizes) != 1:
        raise InputError(
            f"encoder_sizes: the browser player reads encoders of one layer, this one has "
            f"{len(model.encoder_sizes)}; train with one, for example --encoder_sizes=512"
        )
    if _has_conductor(params) and not _reads_bars(params):
        raise InputError(
            f"architecture: the browser player loads no {model.architecture} models (conductor "
            "and flat encoder); train with --architecture=hier"
        )
    if len(task.tracks) > 1 and not _has_conductor(params):
        raise InputError(
            f"architecture: the browser player needs a decoder per track, which "
            f"{model.architecture} models do not have; train with --architecture=hier"
        )
    layers = {"decoder_sizes": model.decoder_sizes}
    if _has_conductor(params):
        layers["conductor_sizes"] = model.resolved_conductor_sizes
    for name, sizes in layers.items():
        if len(set(sizes)) > 1:
            raise InputError(
                f"{name}: the browser player needs layers of one size, this model has "
                f"{', '.join(map(str, sizes))}"
            )


def _converter(task: Task) -> tuple[str, dict[str, Any]]:
    """Return the player's converter for a task and its arguments besides the lengths."""
    pitches = {"minPitch": MIN_PITCH, "maxPitch": MAX_PITCH}
    trio = {"melArgs": dict(pitches), "bassArgs": dict(pitches), "drumsArgs": {}}
    by_tracks: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {
        ("melody",): ("MelodyConverter", pitches),
        ("drums",): ("DrumsConverter", {}),
        ("melody", "bass", "drums"): ("TrioConverter", trio),
    }
    tracks = tuple(track.name for track in task.tracks)
    if tracks not in by_tracks:
        raise InputError(f"task: the browser player has no converter for {task.name}")
    return by_tracks[tracks]


def _reads_bars(params: Params) -> bool:
    """Tell whether the encoder is hierarchical."""
    return "level_0" in params["encoder"]


def _has_conductor(params: Params) -> bool:
    """Tell whether the decoder is hierarchical."""
    return "conductor" in params["decoder"]


def _quantized(name: str, array: np.ndarray, quantize: str) -> tuple[dict[str, Any], np.ndarray]:
    """Return what the manifest says of a variable's type, and the numbers to store."""
    if quantize == "none":
        return {}, array
    if quantize == "float16":
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        _check_finite(name, half, quantize)
        return {"quantization": {"dtype": "float16", "original_dtype": "float32"}}, half
    _check_finite(name, array, quantize)
    top = np.iinfo(quantize).max
    low, high = float(array.min()), float(array.max())
    scale = (high - low) / top or 1.0
    if low <= 0.0 <= high:
        low = -round(-low / scale) * scale  # so that 0 is stored exactly
    stored = np.clip(np.round((array.astype(np.float64) - low) / scale), 0, top).astype(quantize)
    about = {"min": low, "scale": scale, "dtype": quantize, "original_dtype": "float32"}
    return {"quantization": about}, stored


def _check_finite(name: str, array: np.ndarray, quantize: str) -> None:
    if not np.isfinite(array).all():
        raise InputError(f"quantize: {name} has values that {quantize} cannot hold; use none")


def _read_variable(entry: Any, content: bytes, start: int) -> tuple[np.ndarray, int]:
    """Read one variable that begins at byte `start`; return it and where the next one begins."""
    about = entry.get("quantization", {"dtype": "float32"})
    dtype = np.dtype(about["dtype"]).newbyteorder("<")
    count = math.prod(entry["shape"])
    stored = np.frombuffer(content, dtype, count, start).reshape(entry["shape"])
    values = stored.astype(np.float32)
    if "scale" in about:
        values = (stored * about["scale"] + about["min"]).astype(np.float32)
    return values, start + count * dtype.itemsize


def _write_json(path: pathlib.Path, content: Any) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")

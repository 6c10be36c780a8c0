"""Rows of tokens as JSON, in both directions."""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.codecs.codec import CODECS
from experiments.studio.fields import check_mapping, wrong
from musicvae_jax.latent import attributes
from musicvae_jax.tasks import FIRST_NOTE_ON, NO_EVENT, NOTE_OFF, Task
from musicvae_jax.tokens import check_row

MAX_STEPS = 1024  # of a row that is downloaded, a piece of several windows
# Fields of a row in a reply; all may be sent back, and only tokens and z are used.
_FIELDS = {"tokens", "notes", "attributes", "z"}
LARGEST_Z = 1e4  # no posterior is near it; larger values overflow in the decoder


class Given(NamedTuple):
    """A row of a request.

    Attributes:
      tokens: [T] or [T, K] int32, padded to the model's T; None if only z was sent.
      length: steps that were sent.
      z: [Z] float32, or None.
    """

    tokens: np.ndarray | None
    length: int
    z: np.ndarray | None


def tidy(tokens: np.ndarray, task: Task) -> np.ndarray:
    """Remove note-offs where no note sounds: they are inaudible, and MIDI files cannot hold them.

    Args:
      tokens: [B, T] or [B, T, K] integer.
      task: what they mean.

    Returns:
      Tokens of the same shape, whose notes give exactly these tokens.
    """
    columns = np.array(tokens).reshape(*tokens.shape[:2], len(task.tracks))
    steps = np.arange(columns.shape[1])[None, :]
    for number, track in enumerate(task.tracks):
        if not track.is_pitched:
            continue
        column = columns[:, :, number]
        latest = np.maximum.accumulate(np.where(column != NO_EVENT, steps, -1), axis=1)
        before = np.concatenate([np.full((len(column), 1), -1), latest[:, :-1]], axis=1)
        event = np.take_along_axis(column, np.maximum(before, 0), axis=1)
        sounds = (before >= 0) & (event >= FIRST_NOTE_ON)
        column[(column == NOTE_OFF) & ~sounds] = NO_EVENT
    return columns.reshape(tokens.shape)


def to_json(tokens: np.ndarray, task: Task, z: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Write rows with their notes and attributes.

    Args:
      tokens: [B, T] or [B, T, K] integer.
      task: what they mean.
      z: [B, Z] float32, the points they were decoded from, or None.
    """
    tokens = tidy(np.asarray(tokens), task)
    measured = attributes.measure(tokens, task)
    found = []
    for number, row in enumerate(tokens):
        made: dict[str, Any] = {
            "tokens": row.tolist(),
            "notes": notes(row, task),
            "attributes": {name: _known(value[number]) for name, value in measured.items()},
        }
        if z is not None:
            made["z"] = z_to_text(z[number])
        found.append(made)
    return found


def notes(row: np.ndarray, task: Task) -> list[dict[str, int]]:
    """List the notes of one row, in steps, track by track."""
    found = []
    for number, track in enumerate(task.tracks):
        own = CODECS[track.kind].decode(row.reshape(len(row), -1)[:, number])
        columns = (own[name].tolist() for name in ("pitch", "start_step", "end_step"))
        found += [
            {"track": number, "pitch": pitch, "start": start, "end": end}
            for pitch, start, end in zip(*columns, strict=True)
        ]
    return found


def z_to_text(z: np.ndarray) -> str:
    """Write z [Z] as base64 of its float32 bytes."""
    return base64.b64encode(np.ascontiguousarray(z, "<f4").tobytes()).decode()


def z_from_text(name: str, text: Any, z_size: int) -> np.ndarray:
    """Read z [Z] float32.

    Raises:
      RefusedError: it is not base64 of Z finite numbers of moderate size.
    """
    if not isinstance(text, str):
        raise wrong(f"{name}: it must be base64 of {z_size} float32 numbers")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise wrong(f"{name}: it must be base64 of {z_size} float32 numbers") from None
    if len(content) != 4 * z_size:
        raise wrong(f"{name}: it has {len(content)} bytes, it must have {4 * z_size}")
    z = np.frombuffer(content, "<f4").astype(np.float32)
    if not (np.abs(z) <= LARGEST_Z).all():
        raise wrong(f"{name}: it holds numbers that are not finite or too large")
    return z


def given(name: str, value: Any, task: Task, z_size: int) -> Given:
    """Read one row of a request, {"tokens": ..., "z": ...} with one of them or both.

    Raises:
      RefusedError: it is no row of the task.
    """
    row = check_mapping(name, value)
    for field in row:
        if field not in _FIELDS:
            raise wrong(f"{name}.{field[:50]}: there is no such field")
    tokens, z = row.get("tokens"), row.get("z")
    if tokens is None and z is None:
        raise wrong(f"{name}: it must have tokens or z")
    if z is not None and not z_size:
        raise wrong(f"{name}.z: this model has no latent space")
    point = None if z is None else z_from_text(f"{name}.z", z, z_size)
    if tokens is None:
        return Given(None, task.num_steps, point)
    short = tokens_from_json(f"{name}.tokens", tokens, task, task.num_steps)
    padded = np.zeros(task.row_shape, np.int32)
    padded[: len(short)] = short
    return Given(padded, len(short), point)


def tokens_from_json(name: str, value: Any, task: Task, longest: int) -> np.ndarray:
    """Read the tokens of one row, [steps] or [steps, K] int32.

    Raises:
      RefusedError: they are not 1 to `longest` steps of tokens of the task.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= longest:
        raise wrong(f"{name}: it must be a list of 1 to {longest} steps")
    K = len(task.tracks)
    for step in value:
        numbers = step if K > 1 and isinstance(step, list) else [step]
        if len(numbers) != K or any(type(number) is not int for number in numbers):
            each = f"a list of {K} whole numbers" if K > 1 else "a whole number"
            raise wrong(f"{name}: each step must be {each}")
        for number, track in zip(numbers, task.tracks, strict=True):
            if not 0 <= number < track.num_classes:
                raise wrong(f"{name}: {track.name} tokens are from 0 to {track.num_classes - 1}")
    return check_row(np.array(value, np.int32), task)


def piece_from_json(name: str, value: Any, task: Task) -> np.ndarray:
    """Read the tokens of a row or longer piece, a list or a row object: [steps(, K)] int32."""
    tokens = value.get("tokens") if isinstance(value, dict) else value
    return tokens_from_json(name, tokens, task, MAX_STEPS)


def _known(value: float) -> float | None:
    """Return a number that JSON can hold: null for nan."""
    return None if np.isnan(value) else round(float(value), 6)

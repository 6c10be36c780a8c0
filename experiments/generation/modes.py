"""The modes of `experiments.generate`: z, tokens, names and titles of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.progress_bar import progress_bar
from experiments.generation.options import DEFAULT_DRIFT, Options
from musicvae_jax.latent import operations, paths
from musicvae_jax.latent.batches import MAX_BATCH
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.tasks import STEPS_PER_BAR


class Music(NamedTuple):
    """Generated music.

    Attributes:
      tokens: [N, *task.row_shape] of the task's token type; for a continuation only the new part,
        [N, steps, ...].
      z: [N, Z] float32; for a continuation the z of its inputs; from a forecaster Z is 0.
      titles: one per row, for the picture.
      names: one per row, for its file.
      inputs: the rows that were reconstructed or continued, or None.
      sources: the rows that variations were made of, each of equally many in turn, or None.
      pieces: whole pieces [M, steps, ...]: inputs with their continuation, or all windows of a long
        piece; None for separate rows.
      columns: number of rows drawn next to each other.
    """

    tokens: np.ndarray
    z: np.ndarray
    titles: list[str]
    names: list[str]
    inputs: np.ndarray | None = None
    sources: np.ndarray | None = None
    pieces: np.ndarray | None = None
    columns: int = 3


class Points(NamedTuple):
    """Points in z to decode, with titles and names of their rows."""

    z: jax.Array
    titles: list[str]
    names: list[str]
    columns: int = 3


def make(
    vae: MusicVAE, options: Options, rows: np.ndarray | None, vector: np.ndarray | None = None
) -> Music:
    """Run the model.

    Args:
      vae: the model.
      options: mode and its settings.
      rows: inputs [N, *task.row_shape], to continue also of another length; None to start from
        the prior.
      vector: attribute vector [Z]; None in other modes.
    """
    z_key, token_key = jax.random.split(jax.random.key(options.seed))
    if options.mode == "continue" and rows is not None:
        return _continue(vae, options, rows)
    ends = None if rows is None else np.asarray(vae.encode(rows).mu)
    if ends is None:
        num = options.waypoints if options.mode == "long" else options.num
        ends = vae.draw(num, z_key, options.prior)
    if options.mode == "similar":
        points = _similar(vae, options, jnp.asarray(ends), z_key)
    else:
        points = _POINTS[options.mode](options, jnp.asarray(ends), z_key, vector)
    z = np.asarray(points.z)
    tokens = decode(vae, z, token_key, options.sampling_temperature)
    music = Music(tokens, z, points.titles, points.names, columns=points.columns)
    if options.mode == "reconstruct":
        return music._replace(inputs=rows)
    if options.mode in ("similar", "attribute"):
        return music._replace(sources=rows)
    if options.mode == "long":
        piece = operations.join_windows(jnp.asarray(tokens)[None], vae.task)
        return music._replace(pieces=np.asarray(piece))
    return music


def decode(
    vae: MusicVAE, z: np.ndarray, key: jax.Array, temperature: float, label: str = "decoding"
) -> np.ndarray:
    """Decode z [N, Z] in batches, with progress on standard error; rows of the task's type."""
    parts = []
    for start in progress_bar(range(0, len(z), MAX_BATCH), desc=label, unit="batch"):
        part_key = jax.random.fold_in(key, start)
        parts.append(vae.decode(z[start : start + MAX_BATCH], part_key, temperature))
    return np.concatenate(parts).astype(vae.task.token_dtype)


def _continue(vae: MusicVAE, options: Options, rows: np.ndarray) -> Music:
    """Continue each row [S, ...] by `options.bars` bars, window after window."""
    task, num_steps = vae.task, options.bars * STEPS_PER_BAR
    windows = -(-num_steps // task.num_steps)
    end = rows[:, -task.num_steps :]
    z = np.asarray(vae.encode(end).mu)
    key = jax.random.key(options.seed)
    temperature = options.sampling_temperature
    drift = DEFAULT_DRIFT if options.drift is None else options.drift
    made = vae.continuation(z, windows, key, drift, temperature, options.prior)
    made = made.astype(task.token_dtype).reshape(len(rows), windows, *task.row_shape)
    # Silence before a short input, so that it can be joined to the windows like one.
    silence = task.num_steps - end.shape[1]
    padded = np.pad(end, [(0, 0), (silence, 0)] + [(0, 0)] * (end.ndim - 2))
    whole = jnp.asarray(np.concatenate([padded[:, None], made], axis=1))
    joined = np.asarray(operations.join_windows(whole, task))[:, task.num_steps :][:, :num_steps]
    pieces = np.concatenate([rows, joined], axis=1)
    names = [f"continue_{number}" for number in numbers(len(rows))]
    return Music(joined, z, continuation_titles(rows), names, inputs=rows, pieces=pieces)


def continuation_titles(rows: np.ndarray) -> list[str]:
    """Return a title for each continued row [S, ...]: where the continuation begins."""
    bars, steps = divmod(rows.shape[1], STEPS_PER_BAR)
    place = f"bar {bars + 1}" + (f", step {steps + 1}" if steps else "")
    return [f"input {number}, continued from {place}" for number in numbers(len(rows))]


def _numbered(z: jax.Array, mode: str, word: str, columns: int = 3) -> Points:
    """Number points as they are: samples, reconstructions, windows."""
    titles = [f"{word} {number}" for number in range(1, len(z) + 1)]
    return Points(z, titles, [f"{mode}_{number}" for number in numbers(len(z))], columns)


def _interpolate(
    options: Options, ends: jax.Array, key: jax.Array, vector: np.ndarray | None
) -> Points:
    fractions = np.linspace(0.0, 1.0, options.steps)
    z = paths.between(ends[0], ends[1], jnp.asarray(fractions, jnp.float32), options.path)
    titles = [f"{100 * fraction:.0f}% of the way" for fraction in fractions]
    return Points(z, titles, [f"interpolate_{number}" for number in numbers(len(z))])


def _grid(options: Options, ends: jax.Array, key: jax.Array, vector: np.ndarray | None) -> Points:
    z = paths.grid(ends, options.rows, options.columns, options.path)
    places = [
        (row, column)
        for row in range(1, options.rows + 1)
        for column in range(1, options.columns + 1)
    ]
    titles = [f"row {row}, column {column}" for row, column in places]
    names = [f"grid_{row:02}_{column:02}" for row, column in places]
    return Points(z.reshape(-1, z.shape[-1]), titles, names, options.columns)


def _similar(vae: MusicVAE, options: Options, ends: jax.Array, key: jax.Array) -> Points:
    amounts, num = options.all_amounts, options.num
    shape = (len(ends), len(amounts), num)
    made = list(np.ndindex(*shape))
    index: np.ndarray = np.array(made)
    noise = jnp.asarray(vae.draw(len(made), key, options.prior))
    amount = jnp.asarray([amounts[a] for _, a, _ in made], jnp.float32)
    z = paths.similar(ends[index[:, 0]], noise, amount)
    titles = [f"{_of(e, ends)}amount {amounts[a]:g}, variation {n + 1}" for e, a, n in made]
    names = [f"similar_{e + 1}_{amounts[a]:g}_{n + 1}" for e, a, n in made]
    return Points(z, titles, names, min(num + 1, 4))


def _attribute(
    options: Options, ends: jax.Array, key: jax.Array, vector: np.ndarray | None
) -> Points:
    amounts, name = options.all_amounts, options.attribute
    z = paths.shifted(ends, jnp.asarray(vector), jnp.asarray(amounts, jnp.float32))
    made = list(np.ndindex(len(ends), len(amounts)))
    titles = [f"{_of(e, ends)}{name} {amounts[a]:+g}" for e, a in made]
    names = [f"attribute_{e + 1}_{name}_{amounts[a]:+g}" for e, a in made]
    return Points(z.reshape(-1, z.shape[-1]), titles, names, min(len(amounts) + 1, 4))


def _long(options: Options, ends: jax.Array, key: jax.Array, vector: np.ndarray | None) -> Points:
    return _numbered(paths.through(ends, options.windows, options.path), "long", "window")


def numbers(count: int) -> list[str]:
    """Return the numbers from 1 to `count` as text of equal length."""
    return [f"{number:0{len(str(count))}}" for number in range(1, count + 1)]


def _of(number: int, ends: jax.Array) -> str:
    """Return a prefix that names an input if there are several."""
    return f"input {number + 1}, " if len(ends) > 1 else ""


_POINTS: dict[str, Callable[[Options, jax.Array, jax.Array, np.ndarray | None], Points]] = {
    "sample": lambda options, ends, *_: _numbered(ends, "sample", "sample"),
    "reconstruct": lambda options, ends, *_: _numbered(ends, "reconstruct", "reconstruction", 2),
    "interpolate": _interpolate,
    "grid": _grid,
    "attribute": _attribute,
    "long": _long,
}

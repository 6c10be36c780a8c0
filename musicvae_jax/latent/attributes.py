"""Attributes of music measured on tokens, and the directions in z that change them.

Definitions of the paper, for melodies (a note is its onset; T steps of a 16th):

* `c_diatonic`: share of the notes that are white keys.
* `note_density`: notes per step.
* `average_interval`: mean distance of consecutive notes, semitones.
* `syncopation_16th`: share of the notes on an off 16th (steps 1, 3, 5, ...) without a note on
  the 16th before.
* `syncopation_8th`: share of the notes on an off 8th (steps 2, 6, 10, ...) without a note on the
  8th before.

For drums, which the paper does not cover:

* `hat_density`, `kick_density`, `snare_density`: steps with a hit of this class, per step;
  closed and open hats count as one.
* `syncopation`: of the steps with a kick or a snare, the share on an off 16th without a kick or
  a snare on the 16th before.

A trio has the attributes of each track, prefixed with the track's name: `bass_note_density`. An
attribute is nan where a row has no notes that define it.

Reference: Roberts et al. 2018, section "Attribute Vector Arithmetic".
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from musicvae_jax.config import InputError
from musicvae_jax.storage import run_folder
from musicvae_jax.tasks import DRUM_CLASS_NAMES, FIRST_NOTE_ON, Task, Track
from musicvae_jax.tokens import columns_of, hits, pitches, previous_onset

MELODY = (
    "c_diatonic",
    "note_density",
    "average_interval",
    "syncopation_16th",
    "syncopation_8th",
)
DRUMS = ("hat_density", "kick_density", "snare_density", "syncopation")
VECTORS = "attribute_vectors.json"
FORMAT = "musicvae-attributes-1"
NUM_STRATA = 8  # strata of rows with similar values of the attribute to match

_WHITE_KEYS = (0, 2, 4, 5, 7, 9, 11)


class PercentChange(NamedTuple):
    """Change of a mean in per cent, and its standard error."""

    percent: float
    standard_error: float


class Vectors(NamedTuple):
    """Attribute vectors of one checkpoint.

    Attributes:
      task: name of the task.
      step: of the checkpoint whose encoder made them.
      vectors: attribute to [Z] float32.
      about: further facts: rows measured, quartiles of each attribute, attributes left out.
    """

    task: str
    step: int
    vectors: dict[str, np.ndarray]
    about: dict[str, Any]


def names(task: Task) -> tuple[str, ...]:
    """List the attributes of a task."""
    return tuple(
        _prefix(track, task) + name
        for track in task.tracks
        for name in (MELODY if track.is_pitched else DRUMS)
    )


def check_name(name: str, task: Task, flag: str = "attribute") -> None:
    """Check that a task has an attribute.

    Raises:
      InputError: it does not; the message begins with `flag` and lists those it has.
    """
    if name not in names(task):
        known = ", ".join(names(task))
        raise InputError(f"{flag}: {task.name} has no {name!r}; it has {known}")


def measure(tokens: np.ndarray, task: Task) -> dict[str, np.ndarray]:
    """Measure every attribute of a task.

    Args:
      tokens: [B, T] or [B, T, K] integer.
      task: the task of the tokens.

    Returns:
      Attribute to [B] float64, nan where a row has too few notes for it.
    """
    values: dict[str, np.ndarray] = {}
    for column, track in zip(columns_of(tokens, task), task.tracks, strict=True):
        found = (_melody if track.is_pitched else _drums)(column)
        values |= {_prefix(track, task) + name: value for name, value in found.items()}
    return values


def quartiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select the rows in the bottom and in the top quartile, both bool [N].

    Rows with equal values are never separated, so a quartile may hold more than a quarter of the
    rows. Rows with the smallest value are never in the top quartile, nor those with the largest in
    the bottom one. Rows with nan are in neither.

    Raises:
      InputError: all rows have the same value.
    """
    known = values[~np.isnan(values)]
    if not len(known) or known.min() == known.max():
        raise InputError("all rows have the same value, there are no quartiles")
    low, high = np.quantile(known, [0.25, 0.75])
    bottom = (values <= low) & (values < known.max())
    top = (values >= high) & (values > known.min())
    return bottom, top


def vectors(
    mu: np.ndarray, values: Mapping[str, np.ndarray], match: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Compute the mean z of the top quartile minus that of the bottom quartile.

    Attributes are correlated: rows with much syncopation have few notes, so the vector of
    syncopation also lowers the density. With `match`, quartiles are computed within strata of
    similar values of that attribute, and their differences averaged, which changes it little.

    Args:
      mu: [N, Z] float, the encoded rows.
      values: attribute to [N], measured on the same rows.
      match: [N], attribute to keep equal between the quartiles, in `NUM_STRATA` strata; rows where
        it is nan are left out. None computes the quartiles of all rows, as the paper does.

    Returns:
      Attribute to [Z] float32.

    Raises:
      InputError: an attribute is the same in all rows; the message names it.
    """
    strata = np.zeros(len(mu), np.int64)
    if match is not None:
        known = ~np.isnan(match)
        mu, match = mu[known], match[known]
        values = {name: value[known] for name, value in values.items()}
        inner = np.arange(1, NUM_STRATA) / NUM_STRATA
        edges = np.unique(np.quantile(match, inner)) if len(match) else match
        strata = np.searchsorted(edges, match)
    found = {}
    for name, value in values.items():
        total, count = np.zeros(mu.shape[1]), 0
        for stratum in np.unique(strata):
            rows = strata == stratum
            try:
                bottom, top = quartiles(value[rows])
            except InputError:
                continue
            part = mu[rows].astype(np.float64)
            total += rows.sum() * (part[top].mean(axis=0) - part[bottom].mean(axis=0))
            count += int(rows.sum())
        if not count:
            raise InputError(f"attribute: {name}: all rows have the same value; give more rows")
        found[name] = (total / count).astype(np.float32)
    return found


def percent_change(before: np.ndarray, after: np.ndarray, min_pairs: int = 2) -> PercentChange:
    """Compare the means of the same samples before and after a change.

    A ratio of means, because single ratios are infinite where a sample was 0. Samples that are nan
    in either are left out. The standard error is that of a ratio of means of paired samples (delta
    method). nan where the mean before is 0 or too few samples are known in both.

    Args:
      before: [N].
      after: [N], of the same samples.
      min_pairs: smallest number of samples known in both, 2 or more.
    """
    known = ~(np.isnan(before) | np.isnan(after))
    before, after = before[known], after[known]
    if len(before) < max(2, min_pairs) or before.mean() == 0:
        return PercentChange(float("nan"), float("nan"))
    ratio = after.mean() / before.mean()
    residuals = after - ratio * before
    error = residuals.std(ddof=1) / np.sqrt(len(before)) / abs(before.mean())
    return PercentChange(float(100 * (ratio - 1)), float(100 * error))


def save_vectors(run_dir: str | pathlib.Path, found: Vectors) -> pathlib.Path:
    """Write the vectors into the run folder, whole or not at all; return the file."""
    path = pathlib.Path(run_dir) / VECTORS
    record = {
        "format": FORMAT,
        "task": found.task,
        "step": found.step,
        "about": found.about,
        # float32 to the shortest decimals that give it back.
        "vectors": {name: [float(str(x)) for x in v] for name, v in found.vectors.items()},
    }
    run_folder.write_text(path, json.dumps(record) + "\n")
    return path


def load_vectors(run_dir: str | pathlib.Path) -> Vectors:
    """Read the vectors of a run folder.

    Raises:
      InputError: there are none, or the file has another format.
    """
    path = pathlib.Path(run_dir) / VECTORS
    advice = "make it with musicvae attributes"
    if not path.is_file():
        raise InputError(f"attribute: there is no {path}; {advice}")
    try:
        record = json.loads(path.read_text())
        if record["format"] != FORMAT:
            raise ValueError(record["format"])
        found = {name: np.array(v, np.float32) for name, v in record["vectors"].items()}
        return Vectors(record["task"], record["step"], found, record["about"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"attribute: {path} is not of format {FORMAT}; remove it and {advice}"
        ) from error


def vectors_of_step(
    run_dir: str | pathlib.Path, task_name: str, step: int
) -> dict[str, np.ndarray]:
    """Read the vectors of a run folder if it has them of this task and step; else none.

    Raises:
      InputError: the file has another format.
    """
    if not (pathlib.Path(run_dir) / VECTORS).is_file():
        return {}
    found = load_vectors(run_dir)
    return found.vectors if (found.task, found.step) == (task_name, step) else {}


def _prefix(track: Track, task: Task) -> str:
    """Return what a track's attributes are named after in tasks of several tracks."""
    return "" if len(task.tracks) == 1 else f"{track.name}_"


def _melody(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Measure melodies, tokens int [B, T]."""
    onset = tokens >= FIRST_NOTE_ON
    pitch = pitches(tokens)
    num = onset.sum(axis=1)
    white = (onset & np.isin(pitch % 12, _WHITE_KEYS)).sum(axis=1)
    return {
        "c_diatonic": _share(white, num),
        "note_density": num / tokens.shape[1],
        "average_interval": _average_interval(pitch, onset),
        "syncopation_16th": _share(_off_beat(onset, 1).sum(axis=1), num),
        "syncopation_8th": _share(_off_beat(onset, 2).sum(axis=1), num),
    }


def _drums(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Measure drums, tokens int [B, T]."""

    def hit(*classes: str) -> np.ndarray:
        numbers = [DRUM_CLASS_NAMES.index(name) for name in classes]
        return hits(tokens)[..., numbers].max(axis=-1)

    low = hit("kick", "snare")
    return {
        "hat_density": hit("closed hat", "open hat").mean(axis=1),
        "kick_density": hit("kick").mean(axis=1),
        "snare_density": hit("snare").mean(axis=1),
        "syncopation": _share(_off_beat(low, 1).sum(axis=1), low.sum(axis=1)),
    }


def _off_beat(onset: np.ndarray, unit: int) -> np.ndarray:
    """Tell which onsets lie on an odd multiple of `unit` steps, none a unit before: [B, T]."""
    steps = np.arange(onset.shape[1])
    before = np.zeros_like(onset)
    before[:, unit:] = onset[:, :-unit]
    return onset & (steps % (2 * unit) == unit)[None, :] & ~before


def _average_interval(pitch: np.ndarray, onset: np.ndarray) -> np.ndarray:
    """Average the distance of each note to the one before it, [B]; nan with fewer than two."""
    latest = previous_onset(onset)
    follows = onset & (latest >= 0)
    distance = np.abs(pitch - np.take_along_axis(pitch, np.maximum(latest, 0), axis=1))
    return _share((distance * follows).sum(axis=1), follows.sum(axis=1))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; nan where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)

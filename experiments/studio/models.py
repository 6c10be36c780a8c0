"""The models that the studio plays: how they are called, and what the page is told of them."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from data_pipeline.codecs.drums import CLASS_PITCHES
from data_pipeline.codecs.melody import pitch_name
from data_pipeline.codecs.trio import BASS_PROGRAM
from experiments.studio.errors import NOT_FOUND, RefusedError
from experiments.studio.worker import Worker
from musicvae_jax.latent import attributes, fitted_prior, paths
from musicvae_jax.latent.fitted_prior import FITTED, STANDARD
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.tasks import (
    DRUM_CLASS_NAMES,
    MAX_PITCH,
    MIN_PITCH,
    STEPS_PER_BAR,
    Task,
    Track,
)

# Batches are filled up to one of these, so that few programs are compiled.
BATCHES = (1, 4, 16, 128, 256)
MAX_DRAWN = 16  # rows drawn at once
LARGEST_GRID = 11
LENGTH_OF_CHAINS = 16  # bars
AMOUNTS = (-1.5, 1.5)  # of sliders; the range that `generate --mode=attribute` shows
CAN = ("sample", "reconstruct", "palette", "shape", "continue", "variations", "map")


class StudioModel:
    """One model, with its calls compiled for few sizes. Its methods run in the worker's thread.

    Attributes:
      name: how requests name it.
      vae: the model.
      worker: the thread that all calls go through.
      ready: programs that are compiled, and all that will be.
    """

    def __init__(self, name: str, vae: MusicVAE, worker: Worker) -> None:
        self.name, self.vae, self.worker = name, vae, worker
        self.ready = {"done": 0, "total": 0}
        self._grid = jax.jit(paths.grid_at)
        self._similar = jax.jit(paths.similar)
        self._draw = jax.jit(
            lambda prior, key: fitted_prior.draw(prior, key, MAX_DRAWN, vae.z_size)
        )

    @property
    def task(self) -> Task:
        """What the model's tokens mean."""
        return self.vae.task

    def draw(self, key: jax.Array, num: int) -> np.ndarray:
        """Draw z [num, Z] from the prior, at most `MAX_DRAWN`."""
        return np.asarray(self._draw(self.vae.prior, key))[:num]

    def encode(self, tokens: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        """Encode rows [B, T(, K)] of which the first `lengths` steps count: [B, Z] float32."""
        rows = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
        parts = []
        for start in range(0, len(rows), BATCHES[-1]):
            part = rows[start : start + BATCHES[-1]]
            filled = part + part[-1:] * (batch_size(len(part)) - len(part))
            parts.append(np.asarray(self.vae.encode(filled).mu)[: len(part)])
        return np.concatenate(parts)

    def decode(self, z: np.ndarray, key: jax.Array, temperature: float) -> np.ndarray:
        """Decode z [B, Z], at most the largest batch: [B, T(, K)] int32."""
        return self.vae.decode(filled(z), key, temperature)[: len(z)]

    def grid(self, corners: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """Fill a grid between corners [4, Z]: [rows, columns, Z]; 1 to `LARGEST_GRID` each."""
        points = np.asarray(self._grid(corners, _fractions(columns), _fractions(rows)))
        return points[:rows, :columns]

    def similar(self, z: np.ndarray, amount: float, key: jax.Array) -> np.ndarray:
        """Move points [B, Z], at most `MAX_DRAWN`, towards samples of the prior."""
        noise = filled(self.draw(key, len(z)))
        return np.asarray(self._similar(filled(z), noise, amount))[: len(z)]

    def chain(
        self, z: np.ndarray, bars: int, drift: float, key: jax.Array, temperature: float
    ) -> np.ndarray:
        """Continue pieces from z [B, Z]: [B, bars * 16(, K)].

        Programs are compiled for 16 bars and doubles of that; what is beyond `bars` is cut off.
        """
        windows = max(1, LENGTH_OF_CHAINS // self.task.num_bars)
        while windows * self.task.num_bars < bars:
            windows *= 2
        made = self.vae.continuation(filled(z), windows, key, drift, temperature)
        return made[: len(z), : bars * STEPS_PER_BAR]

    def describe(self) -> dict[str, Any]:
        """Return what the page is told of the model."""
        task = self.task
        leaves = jax.tree.leaves(self.vae.params)
        return {
            "name": self.name,
            "title": title(task),
            "task": task.name,
            "steps": task.num_steps,
            "bars": task.num_bars,
            "steps_per_bar": STEPS_PER_BAR,
            "parameters": int(sum(leaf.size for leaf in leaves)),
            "z_size": self.vae.z_size,
            "tracks": [_track(track) for track in task.tracks],
            "attributes": [self._attribute(name) for name in attributes.names(task)],
            "amounts": list(AMOUNTS),
            "prior": STANDARD if self.vae.prior is None else FITTED,
            "can": list(CAN),
            "ready": dict(self.ready),
        }

    def _attribute(self, name: str) -> dict[str, Any]:
        words = name.replace("c_diatonic", "white keys").replace("_", " ")
        return {"name": name, "title": words, "can_change": name in self.vae.attributes}


def load(names: Sequence[str], run_dirs: Sequence[str], worker: Worker) -> Iterator[StudioModel]:
    """Load models of this package, then the best checkpoints of run folders.

    A run's name is that of its folder, with a number where another model has it.

    Raises:
      InputError: there is no such model or run, or a file of it is damaged.
    """
    taken: list[str] = []
    for name in names:
        yield StudioModel(name, MusicVAE.from_pretrained(name), worker)
        taken.append(name)
    for run_dir in run_dirs:
        base = pathlib.Path(run_dir).resolve().name
        candidates = (f"{base}-{n}" if n > 1 else base for n in itertools.count(1))
        name = next(candidate for candidate in candidates if candidate not in taken)
        yield StudioModel(name, MusicVAE.restore(run_dir), worker)
        taken.append(name)


def find(models: dict[str, StudioModel], name: str) -> StudioModel:
    """Return a model by its name.

    Raises:
      RefusedError: there is none; the message lists those there are.
    """
    if name not in models:
        raise RefusedError(NOT_FOUND, f"model: there is no {name!r}; models: {', '.join(models)}")
    return models[name]


def title(task: Task) -> str:
    """Name a task for a musician."""
    words = {"melody": "melody", "drums": "drums"}
    what = "melody, bass and drums" if len(task.tracks) == 3 else words[task.tracks[0].kind]
    return f"{task.num_bars} bars of {what}"


def batch_size(num: int) -> int:
    """Return the size to which a batch of `num` is filled up."""
    return next(size for size in BATCHES if size >= num)


def filled(z: np.ndarray) -> np.ndarray:
    """Repeat the last point up to one of the batch sizes: [B, Z] to [P, Z]."""
    index = np.minimum(np.arange(batch_size(len(z))), len(z) - 1)
    return np.asarray(z, np.float32)[index]


def _fractions(count: int) -> np.ndarray:
    """Divide 0 to 1 evenly, filled up to [LARGEST_GRID]; a single one is 0."""
    fractions = np.ones(LARGEST_GRID, np.float32)
    fractions[:count] = np.linspace(0.0, 1.0, count, dtype=np.float32)
    return fractions


def _track(track: Track) -> dict[str, Any]:
    """Describe a track: the lines of its piano roll from the lowest on."""
    if track.is_pitched:
        pitches = range(MIN_PITCH, MAX_PITCH + 1)
        lines = [{"pitch": pitch, "name": pitch_name(pitch)} for pitch in pitches]
        program: int | None = BASS_PROGRAM if track.name == "bass" else 0
    else:
        named = zip(CLASS_PITCHES, DRUM_CLASS_NAMES, strict=True)
        lines = [{"pitch": pitches[0], "name": name} for pitches, name in named]
        program = None
    return {
        "name": track.name,
        "kind": track.kind,
        "num_classes": track.num_classes,
        "program": program,
        "lines": lines,
    }

"""What every model of the studio has: its name, its task, and what the page is told of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from data_pipeline.codecs.drums import CLASS_PITCHES
from data_pipeline.codecs.melody import pitch_name
from data_pipeline.codecs.trio import BASS_PROGRAM
from experiments.studio.models.worker import Worker
from experiments.studio.rows import Given
from musicvae_jax.config import InputError
from musicvae_jax.latent import attributes
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
KINDS = {"melody": "melody", "drums": "drums"}  # of tracks, in a title
MAX_DRAWN = 16  # rows drawn at once
LENGTH_OF_CHAINS = 16  # bars; continuations are compiled for this length and doubles of it
AMOUNTS = (-1.5, 1.5)  # of sliders; the range that `generate --mode=attribute` shows


class PlayedModel:
    """A model that samples and continues. Its methods run in the worker's thread.

    Attributes:
      name: how requests name it.
      task: what its tokens mean.
      worker: the thread that all calls go through.
      params: its parameters, a nested dict of arrays.
      can: what it can be asked, keys of `actions.ACTIONS`.
      z_size: Z, 0 if it has no latent space.
      prior: what samples are drawn from, None without a latent space.
      changeable: attributes that it can change.
      ready: programs that are compiled, and all that will be.
    """

    can: tuple[str, ...] = ("sample", "continue")
    z_size: int = 0
    prior: str | None = None
    changeable: Collection[str] = ()

    def __init__(self, name: str, task: Task, params: Any, worker: Worker) -> None:
        """Take a model.

        Raises:
          InputError: the page cannot draw and play what its tokens mean.
        """
        if any(track.kind not in KINDS for track in task.tracks):
            raise InputError(f"model: {name} is of {task.name}; the studio plays notes and drums")
        self.name, self.task, self.params, self.worker = name, task, params, worker
        self.ready = {"done": 0, "total": 0}

    def sample(
        self, num: int, key: jax.Array, temperature: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Draw rows, at most `MAX_DRAWN`: [num, T(, K)], and their z [num, Z] if they have one."""
        raise NotImplementedError

    def continuation(
        self, given: Given, bars: int, drift: float, num: int, key: jax.Array, temperature: float
    ) -> np.ndarray:
        """Continue a row, `num` times: [num, bars * 16(, K)] int32."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return what the page is told of the model."""
        task = self.task
        return {
            "name": self.name,
            "title": title(task),
            "task": task.name,
            "steps": task.num_steps,
            "bars": task.num_bars,
            "steps_per_bar": STEPS_PER_BAR,
            "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(self.params))),
            "z_size": self.z_size,
            "tracks": [_track(track) for track in task.tracks],
            "attributes": [self._attribute(name) for name in attributes.names(task)],
            "amounts": list(AMOUNTS),
            "prior": self.prior,
            "can": list(self.can),
            "ready": dict(self.ready),
        }

    def _attribute(self, name: str) -> dict[str, Any]:
        words = name.replace("c_diatonic", "white keys").replace("_", " ")
        return {"name": name, "title": words, "can_change": name in self.changeable}


def title(task: Task) -> str:
    """Name a task for a musician."""
    what = "melody, bass and drums" if len(task.tracks) == 3 else KINDS[task.tracks[0].kind]
    return f"{task.num_bars} bars of {what}"


def batch_size(num: int) -> int:
    """Return the size to which a batch of `num` is filled up."""
    return next(size for size in BATCHES if size >= num)


def compiled_bars(bars: int) -> int:
    """Return the length for which a continuation of `bars` bars is compiled."""
    length = LENGTH_OF_CHAINS
    while length < bars:
        length *= 2
    return length


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

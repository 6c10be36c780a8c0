"""Models with a latent space in the studio."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from experiments.studio.models.played import (
    BATCHES,
    MAX_DRAWN,
    PlayedModel,
    batch_size,
    compiled_bars,
)
from experiments.studio.models.worker import Worker
from experiments.studio.rows import Given
from musicvae_jax.latent import fitted_prior, paths
from musicvae_jax.latent.fitted_prior import FITTED, STANDARD
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.tasks import STEPS_PER_BAR

LARGEST_GRID = 11


class StudioModel(PlayedModel):
    """A model with a latent space, with its calls compiled for few sizes.

    Attributes:
      vae: the model.
    """

    can = ("sample", "reconstruct", "palette", "shape", "continue", "variations", "map")

    def __init__(self, name: str, vae: MusicVAE, worker: Worker) -> None:
        super().__init__(name, vae.task, vae.params, worker)
        self.vae = vae
        self.z_size, self.changeable = vae.z_size, vae.attributes
        self.prior = STANDARD if vae.prior is None else FITTED
        self._draw = jax.jit(
            lambda prior, key: fitted_prior.draw(prior, key, MAX_DRAWN, vae.z_size)
        )

    def sample(
        self, num: int, key: jax.Array, temperature: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Draw z [num, Z] from the prior and decode it: [num, T(, K)] int32, and z."""
        z_key, token_key = jax.random.split(key)
        z = self.draw(z_key, num)
        return self.decode(z, token_key, temperature), z

    def continuation(
        self, given: Given, bars: int, drift: float, num: int, key: jax.Array, temperature: float
    ) -> np.ndarray:
        """Continue a row by a random walk through z: [num, bars * 16(, K)] int32."""
        z = self.points([given]).repeat(num, axis=0)
        return self.chain(z, bars, drift, key, temperature)

    def points(self, found: Sequence[Given]) -> np.ndarray:
        """Return z [B, Z] of rows: those that were sent, otherwise the means of the encodings."""
        unknown = [row for row in found if row.z is None and row.tokens is not None]
        encoded = iter(())
        if unknown:
            tokens = np.stack([row.tokens for row in unknown if row.tokens is not None])
            encoded = iter(self.encode(tokens, [row.length for row in unknown]))
        return np.stack([next(encoded) if row.z is None else row.z for row in found])

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
        points = np.asarray(paths.grid_at(corners, _fractions(columns), _fractions(rows)))
        return points[:rows, :columns]

    def similar(self, z: np.ndarray, amount: float, key: jax.Array) -> np.ndarray:
        """Move points [B, Z], at most `MAX_DRAWN`, towards samples of the prior."""
        noise = filled(self.draw(key, len(z)))
        return np.asarray(paths.similar(filled(z), noise, amount))[: len(z)]

    def chain(
        self, z: np.ndarray, bars: int, drift: float, key: jax.Array, temperature: float
    ) -> np.ndarray:
        """Continue pieces from z [B, Z]: [B, bars * 16(, K)]; what is beyond `bars` is cut off."""
        windows = max(1, compiled_bars(bars) // self.task.num_bars)
        made = self.vae.continuation(filled(z), windows, key, drift, temperature)
        return made[: len(z), : bars * STEPS_PER_BAR]


def filled(z: np.ndarray) -> np.ndarray:
    """Repeat the last point up to one of the batch sizes: [B, Z] to [P, Z]."""
    index = np.minimum(np.arange(batch_size(len(z))), len(z) - 1)
    return np.asarray(z, np.float32)[index]


def _fractions(count: int) -> np.ndarray:
    """Divide 0 to 1 evenly, filled up to [LARGEST_GRID]; a single one is 0."""
    fractions = np.ones(LARGEST_GRID, np.float32)
    fractions[:count] = np.linspace(0.0, 1.0, count, dtype=np.float32)
    return fractions

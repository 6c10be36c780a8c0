"""Latent-space operations (interpolate, vary, attribute arithmetic) of encoder-decoder models.

`MusicVAE` inherits these methods. Each takes rows of tokens (integers) or z (floats) and decodes
all that it makes in one batch; the z themselves come from `paths`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.config import InputError
from musicvae_jax.latent import operations, paths
from musicvae_jax.latent.batches import Key, Tokens, check_points, check_sampling
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.tasks import Task


class LatentSpace(abc.ABC):
    """Ways through the latent space, from rows to rows.

    Attributes:
      task: what a row of tokens means.
    """

    task: Task

    @property
    @abc.abstractmethod
    def z_size(self) -> int:
        """Z, latent dimensions."""

    @abc.abstractmethod
    def encode(self, tokens: Tokens) -> Posterior:
        """Encode rows: mu and sigma, each [B, Z] float32."""

    @abc.abstractmethod
    def decode(self, z: np.ndarray, key: Key = None, temperature: float = 0.0) -> np.ndarray:
        """Decode z [B, Z] to tokens [B, T] or [B, T, K]."""

    @abc.abstractmethod
    def _chain(
        self, z: np.ndarray, num: int, drift: float, key: jax.Array, temperature: float
    ) -> np.ndarray:
        """Decode `num` windows after each z [B, Z]: [B, num, T] or [B, num, T, K]."""

    def interpolate(
        self,
        a: np.ndarray,
        b: np.ndarray,
        steps: int,
        key: Key = None,
        temperature: float = 0.0,
        kind: str = "slerp",
    ) -> np.ndarray:
        """Decode points on the way from a to b, both included.

        Args:
          a: one row of tokens [T] or [T, K] (integers), or z [Z] (floats).
          b: likewise.
          steps: number of points, 2 or more.
          key: random key; needed if `temperature` is above 0.
          temperature: divides the logits; 0 takes the best token.
          kind: "slerp" (along the arc) or "linear".

        Returns:
          [steps, T] or [steps, T, K] int32.

        Raises:
          InputError: an end is neither a row nor a z, `steps` is below 2, or `kind` is unknown.
        """
        if steps < 2:
            raise InputError(f"steps: {steps!r} is out of range, it must be 2 or more")
        start, stop = self._end("a", a), self._end("b", b)
        fractions = jnp.linspace(0.0, 1.0, steps)
        z = paths.between(jnp.asarray(start), jnp.asarray(stop), fractions, kind)
        return self.decode(np.asarray(z), key, temperature)

    def grid(
        self,
        corners: Tokens,
        rows: int,
        columns: int,
        key: Key = None,
        temperature: float = 0.0,
        kind: str = "slerp",
    ) -> np.ndarray:
        """Decode a grid between four rows or z: [rows, columns, T] or [rows, columns, T, K].

        Args:
          corners: upper left, upper right, lower left, lower right: rows (integers) or z.
          rows: 2 or more.
          columns: 2 or more.
          key: random key; needed if `temperature` is above 0.
          temperature: divides the logits; 0 takes the best token.
          kind: "slerp" or "linear".

        Raises:
          InputError: there are not four corners, or the grid is too small or its kind unknown.
        """
        z = paths.grid(jnp.asarray(self._means(corners)), rows, columns, kind)
        return self._decode_all(z, key, temperature)

    def similar(
        self, pieces: Tokens, amount: float, num: int, key: Key, temperature: float = 0.0
    ) -> np.ndarray:
        """Vary pieces: [B, num, T] or [B, num, T, K]; see `paths.similar`.

        Args:
          pieces: rows (integers) or z.
          amount: 0, the reconstruction, to 1, a draw from the prior that knows no piece.
          num: variations of each piece.
          key: random key of the variations.
          temperature: divides the logits; 0 takes the best token.

        Raises:
          InputError: `amount` is not from 0 to 1, `num` is below 1 or there is no key.
        """
        _check_share("amount", amount)
        if num < 1:
            raise InputError(f"num: {num!r} is out of range, it must be 1 or more")
        if key is None:
            raise InputError("key: None; variations need a random key or a seed")
        z_key, token_key = jax.random.split(check_sampling(key, temperature))
        z = jnp.repeat(jnp.asarray(self._means(pieces)), num, axis=0)
        points = paths.similar(z, jax.random.normal(z_key, z.shape), amount)
        return self._decode_all(points.reshape(-1, num, self.z_size), token_key, temperature)

    def attribute(
        self,
        pieces: Tokens,
        vector: np.ndarray,
        amounts: Sequence[float],
        key: Key = None,
        temperature: float = 0.0,
    ) -> np.ndarray:
        """Decode pieces with multiples of a vector added: [B, N, T] or [B, N, T, K].

        Args:
          pieces: rows (integers) or z.
          vector: [Z], of `attributes.load_vectors(run_dir)`.
          amounts: N multiples; 0 is the reconstruction.
          key: random key; needed if `temperature` is above 0.
          temperature: divides the logits; 0 takes the best token.

        Raises:
          InputError: the vector is no z, or there are no amounts.
        """
        points, is_single = check_points(vector, self.z_size)
        if not is_single or not len(amounts):
            raise InputError("attribute: one vector [Z] and at least one amount are needed")
        z = jnp.asarray(self._means(pieces))
        shifted = paths.shifted(z, jnp.asarray(points[0]), jnp.asarray(amounts, jnp.float32))
        return self._decode_all(shifted, key, temperature)

    def long(
        self,
        points: Tokens,
        num_windows: int,
        key: Key = None,
        temperature: float = 0.0,
        kind: str = "slerp",
    ) -> np.ndarray:
        """Decode a walk through several rows or z as one piece: [W * T] or [W * T, K].

        Args:
          points: what the walk passes, in order: rows (integers) or z.
          num_windows: W, the first and the last point included.
          key: random key; needed if `temperature` is above 0.
          temperature: divides the logits; 0 takes the best token.
          kind: "slerp" or "linear".

        Raises:
          InputError: `num_windows` is below 1, or `kind` is unknown.
        """
        _check_windows(num_windows)
        z = paths.through(jnp.asarray(self._means(points)), num_windows, kind)
        return self._join(self._decode_all(z[None], key, temperature))[0]

    def continuation(
        self,
        pieces: Tokens,
        num_windows: int,
        key: Key,
        drift: float = 0.3,
        temperature: float = 0.0,
    ) -> np.ndarray:
        """Go on from pieces by chained variations, see `sampling.continuation`.

        Args:
          pieces: last windows (integers) or z; one or several.
          num_windows: W.
          key: random key of the drift.
          drift: 0 to 1, how far each window is from the one before.
          temperature: divides the logits; 0 takes the best token.

        Returns:
          What comes after the pieces: [B, W * T] or [B, W * T, K].

        Raises:
          InputError: `drift` is not from 0 to 1, `num_windows` is below 1 or there is no key.
        """
        _check_share("drift", drift)
        _check_windows(num_windows)
        if key is None:
            raise InputError("key: None; drifting needs a random key or a seed")
        checked = check_sampling(key, temperature)
        return self._join(
            self._chain(self._means(pieces), num_windows, drift, checked, temperature)
        )

    def _decode_all(self, z: jax.Array, key: Key, temperature: float) -> np.ndarray:
        """Decode z [..., Z] together: [..., T] or [..., T, K]."""
        tokens = self.decode(np.asarray(z).reshape(-1, self.z_size), key, temperature)
        return tokens.reshape(*z.shape[:-1], *tokens.shape[1:])

    def _join(self, windows: np.ndarray) -> np.ndarray:
        """Put windows [B, W, T(, K)] one after the other."""
        return np.asarray(operations.join_windows(jnp.asarray(windows), self.task))

    def _means(self, pieces: Tokens) -> np.ndarray:
        """Return z [B, Z] of rows, or of z as they are."""
        first = pieces[0] if isinstance(pieces, list | tuple) and len(pieces) else pieces
        if np.issubdtype(np.asarray(first).dtype, np.floating):
            return check_points(np.asarray(pieces), self.z_size)[0]
        mu = np.asarray(self.encode(pieces).mu)
        return np.atleast_2d(mu)

    def _end(self, name: str, end: np.ndarray) -> np.ndarray:
        """Return the z [Z] of one end of an interpolation."""
        array = np.asarray(end)
        rank = 1 if np.issubdtype(array.dtype, np.floating) else len(self.task.row_shape)
        z = self._means(array)
        if array.ndim != rank:
            raise InputError(f"{name}: shape {list(array.shape)}, it must be one row or one z")
        return z[0]


def _check_share(name: str, value: float) -> None:
    """Check an amount that goes from 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name}: {value!r} is out of range, it must be from 0 to 1")


def _check_windows(num: int) -> None:
    """Check a number of windows."""
    if num < 1:
        raise InputError(f"num_windows: {num!r} is out of range, it must be 1 or more")

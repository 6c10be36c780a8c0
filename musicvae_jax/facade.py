"""MusicVAE: a trained model, NumPy arrays in and out.

    vae = MusicVAE.restore("runs/mel_2bar")
    tokens = vae.sample(4, key=0, temperature=0.5)

How rows may come:

* Several rows are [B, T] (trio: [B, T, 3]), or a list of rows of different lengths. One row
  is [T] (trio: [T, 3]); what comes out then has no B axis either.
* A row shorter than the model's T is padded. The encoder reads its own steps only; likelihoods
  count its own steps only. What is decoded has all T steps.
* A row longer than T is cut after step T, with a warning.

Batches of any size are cut into parts of at most `MAX_BATCH` rows and padded to a power of two,
so that few sizes are compiled.
"""

from __future__ import annotations

import dataclasses
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax import sampling
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.registry import Params, build_model
from musicvae_jax.models.variables import params_from_variables
from musicvae_jax.tasks import get_task

MAX_BATCH = 256

Tokens = np.ndarray | Sequence[Any]
Key = jax.Array | int | None


class _Rows(NamedTuple):
    """Checked rows: tokens [B, T(, K)] int32, lengths [B] int32, whether one row was given."""

    tokens: np.ndarray
    lengths: np.ndarray
    is_single: bool


class MusicVAE:
    """A model and its parameters.

    Random keys are `jax.random.key(...)` or an int seed; temperature 0 needs none.

    Attributes:
      config: the configuration.
      task: what a row of tokens means.
      params: parameters, a nested dict of float32 arrays.
    """

    def __init__(self, config: Config, params: Params) -> None:
        self.config = config
        self.task = get_task(config.task)
        self.params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
        model = build_model(config)
        self._conductor = None if model.conductor is None else jax.jit(model.conductor)
        self._encode = jax.jit(model.encode)
        self._logits = jax.jit(lambda params, z, tokens: model.logits(params, z, tokens))
        self._generate = jax.jit(model.generate)
        self._greedy = jax.jit(lambda params, z, key: model.generate(params, z, key, 0.0))
        self._log_likelihood = jax.jit(
            lambda params, tokens, lengths, key, num: sampling.log_likelihood(
                model, params, tokens, key, num, lengths
            ),
            static_argnums=4,
        )

    @classmethod
    def restore(
        cls, run_dir: str | pathlib.Path, checkpoint: str | int | None = "best"
    ) -> MusicVAE:
        """Load a trained model.

        Args:
          run_dir: run folder that `experiments.train` wrote.
          checkpoint: "best" (lowest validation loss), "latest" or a saved step.

        Raises:
          InputError: the folder has no such checkpoint.
        """
        from musicvae_jax import checkpoints  # orbax takes seconds to import

        config, params, _ = checkpoints.restore_params(run_dir, checkpoint)
        return cls(config, params)

    @classmethod
    def from_variables(cls, variables: Mapping[str, np.ndarray], task: str) -> MusicVAE:
        """Build a model from the reference's variables.

        Args:
          variables: TensorFlow name to array; layer sizes are read from the shapes.
          task: name of the task they were trained for.

        Raises:
          InputError: a name is missing or unknown, or a shape does not fit.
        """
        model, params = params_from_variables(variables, task)
        return cls(dataclasses.replace(get_task(task).config, model=model), params)

    @property
    def z_size(self) -> int:
        """Z, latent dimensions."""
        return self.config.model.z_size

    def encode(self, tokens: Tokens) -> Posterior:
        """Encode rows: mu and sigma (standard deviation), each [B, Z] float32.

        Raises:
          InputError: the rows are not tokens of the model's task.
        """
        rows = self._rows(tokens)
        mu, sigma = _in_parts(
            lambda part: self._encode(self.params, *part), (rows.tokens, rows.lengths)
        )
        return Posterior(mu[0], sigma[0]) if rows.is_single else Posterior(mu, sigma)

    def decode(self, z: np.ndarray, key: Key = None, temperature: float = 0.0) -> np.ndarray:
        """Decode z to tokens.

        Args:
          z: [B, Z] or [Z] float.
          key: random key; needed if `temperature` is above 0.
          temperature: divides the logits; 0 takes the best token.

        Returns:
          [B, T] or [B, T, K] int32; without B for one z.

        Raises:
          InputError: z has the wrong shape, or key and temperature do not fit.
        """
        points, is_single = self._points(z)
        tokens = self._decode(points, _check_sampling(key, temperature), temperature)
        return tokens[0] if is_single else tokens

    def conductor(self, z: np.ndarray) -> np.ndarray:
        """Compute the bar embeddings [B, U, H] float32 of z [B, Z] or [Z].

        Raises:
          InputError: the model has no conductor, or z has the wrong shape.
        """
        points, is_single = self._points(z)
        run = self._conductor
        if run is None:
            raise InputError("conductor: a flat model has none; hierarchical models do")
        embeddings = _in_parts(lambda part: run(self.params, *part), (points,))
        return embeddings[0] if is_single else embeddings

    def logits(self, z: np.ndarray, tokens: Tokens) -> np.ndarray | tuple[np.ndarray, ...]:
        """Compute teacher-forced logits.

        Args:
          z: [B, Z], or [Z] with one row.
          tokens: B rows; step t sees the row's steps before t.

        Returns:
          [B, T, V] float32, for several tracks a tuple of them; without B for one row, and
          with as many steps as the longest row given.

        Raises:
          InputError: z or the rows do not fit the model or each other.
        """
        rows = self._rows(tokens)
        points, is_single = self._points(z)
        if is_single != rows.is_single or len(points) != len(rows.tokens):
            raise InputError(f"z: {np.shape(z)} holds not one z for each of the rows")
        tracks = _in_parts(lambda part: self._logits(self.params, *part), (points, rows.tokens))
        steps = int(rows.lengths.max())
        tracks = tuple(t[0, :steps] if is_single else t[:, :steps] for t in tracks)
        return tracks[0] if len(tracks) == 1 else tracks

    def sample(self, n: int, key: Key, temperature: float = 1.0) -> np.ndarray:
        """Draw n rows from the prior: [n, T] or [n, T, K] int32.

        Raises:
          InputError: n is below 1, there is no key, or the temperature is negative.
        """
        if n < 1:
            raise InputError(f"n: {n!r} is out of range, it must be 1 or more")
        if key is None:
            raise InputError("key: None; drawing from the prior needs a random key or a seed")
        z_key, token_key = jax.random.split(_check_sampling(key, temperature))
        z = np.asarray(jax.random.normal(z_key, (n, self.z_size)))
        return self._decode(z, token_key, temperature)

    def reconstruct(self, tokens: Tokens, key: Key = None, temperature: float = 0.0) -> np.ndarray:
        """Encode rows and decode the means: [B, T] or [B, T, K] int32, all T steps.

        Raises:
          InputError: the rows are not tokens of the task, or key and temperature do not fit.
        """
        return self.decode(np.asarray(self.encode(tokens).mu), key, temperature)

    def interpolate(
        self,
        a: np.ndarray,
        b: np.ndarray,
        steps: int,
        key: Key = None,
        temperature: float = 0.0,
    ) -> np.ndarray:
        """Decode points on the arc from a to b, both included.

        Args:
          a: one row of tokens [T] or [T, K] (integers), or z [Z] (floats).
          b: likewise.
          steps: number of points, 2 or more.
          key: random key; needed if `temperature` is above 0.
          temperature: divides the logits; 0 takes the best token.

        Returns:
          [steps, T] or [steps, T, K] int32.

        Raises:
          InputError: an end is neither a row nor a z, or `steps` is below 2.
        """
        if steps < 2:
            raise InputError(f"steps: {steps!r} is out of range, it must be 2 or more")
        start, stop = self._end("a", a), self._end("b", b)
        fractions = jnp.linspace(0.0, 1.0, steps)
        z = sampling.slerp(jnp.asarray(start), jnp.asarray(stop), fractions)
        return self.decode(np.asarray(z), key, temperature)

    def log_likelihood(
        self, tokens: Tokens, key: Key, num_samples: int = 1
    ) -> sampling.LogLikelihood:
        """Bound log p(row) from below, in nats: `elbo` and `importance_weighted`, [B] each.

        Args:
          tokens: rows.
          key: random key of the z drawn.
          num_samples: z drawn of each row's posterior.

        Raises:
          InputError: the rows are not tokens of the task, there is no key, or `num_samples` is
            below 1.
        """
        if num_samples < 1:
            raise InputError(f"num_samples: {num_samples!r} is out of range, it must be 1 or more")
        if key is None:
            raise InputError("key: None; drawing z needs a random key or a seed")
        rows = self._rows(tokens)
        bounds = _in_parts(
            lambda part, part_key: self._log_likelihood(self.params, *part, part_key, num_samples),
            (rows.tokens, rows.lengths),
            _as_key(key),
        )
        return sampling.LogLikelihood(*(b[0] if rows.is_single else b for b in bounds))

    def _decode(self, z: np.ndarray, key: jax.Array, temperature: float) -> np.ndarray:
        """Decode z [B, Z]."""

        def run(part: tuple[np.ndarray, ...], part_key: jax.Array) -> jax.Array:
            if temperature == 0:
                return self._greedy(self.params, *part, part_key)
            return self._generate(self.params, *part, part_key, temperature)

        return _in_parts(run, (z,), key)

    def _end(self, name: str, end: np.ndarray) -> np.ndarray:
        """Return the z [Z] of one end of an interpolation."""
        array = np.asarray(end)
        if np.issubdtype(array.dtype, np.floating):
            z, is_single = self._points(array)
        else:
            z = np.asarray(self.encode([array]).mu)
            is_single = array.ndim == len(self.task.row_shape)
        if not is_single:
            raise InputError(f"{name}: shape {list(array.shape)}, it must be one row or one z")
        return z[0]

    def _points(self, z: np.ndarray) -> tuple[np.ndarray, bool]:
        """Check z: ([B, Z] float32, whether one was given)."""
        array = np.asarray(z, np.float32)
        if array.ndim not in (1, 2) or array.shape[-1] != self.z_size or not array.size:
            raise InputError(
                f"z: shape {list(array.shape)}, it must be [B, {self.z_size}] or [{self.z_size}]"
            )
        if not np.isfinite(array).all():
            raise InputError("z: holds values that are not finite")
        return np.atleast_2d(array), array.ndim == 1

    def _rows(self, tokens: Tokens) -> _Rows:
        """Check rows, pad them and cut them to T steps."""
        rank = len(self.task.row_shape)
        is_list = not isinstance(tokens, np.ndarray | jax.Array)
        if is_list and len(tokens) and np.ndim(tokens[0]) == rank:
            rows, is_single = [np.asarray(row) for row in tokens], False
        else:
            array = np.asarray(tokens)
            is_single = array.ndim == rank
            rows = [array] if is_single else list(array)
        if not rows:
            raise InputError("tokens: there are no rows")
        for row in rows:
            self._check_row(row)
        T = self.task.num_steps
        longest = max(len(row) for row in rows)
        if longest > T:
            warnings.warn(f"tokens: {longest} steps, only the first {T} are used", stacklevel=3)
        padded = np.zeros((len(rows), *self.task.row_shape), np.int32)
        for target, row in zip(padded, rows, strict=True):
            target[: min(len(row), T)] = row[:T]
        lengths = np.array([min(len(row), T) for row in rows], np.int32)
        return _Rows(padded, lengths, is_single)

    def _check_row(self, row: np.ndarray) -> None:
        """Raise InputError if a row is not tokens of the task."""
        columns = self.task.row_shape[1:]
        if row.ndim != 1 + len(columns) or row.shape[1:] != columns or not len(row):
            wanted = ["T", *columns]
            raise InputError(
                f"tokens: a row has shape {list(row.shape)}, {self.task.name} has {wanted}"
            )
        if not np.issubdtype(row.dtype, np.integer):
            raise InputError(f"tokens: type {row.dtype}, they must be integers")
        for k, track in enumerate(self.task.tracks):
            column = row[:, k] if columns else row
            if column.min() < 0 or column.max() >= track.num_classes:
                found = f"{column.min()} to {column.max()}"
                allowed = f"0 to {track.num_classes - 1}"
                raise InputError(f"tokens: {track.name} has values {found}, allowed are {allowed}")


def _as_key(key: jax.Array | int) -> jax.Array:
    """Return a random key of a key or a seed."""
    return jax.random.key(key) if isinstance(key, int) else key


def _check_sampling(key: Key, temperature: float) -> jax.Array:
    """Return the random key to decode with; greedy decoding uses none."""
    if not 0.0 <= temperature < float("inf"):
        raise InputError(f"temperature: {temperature!r} is out of range, it must be 0 or more")
    if key is None and temperature > 0:
        raise InputError("key: None; a temperature above 0 needs a random key or a seed")
    return _as_key(0 if key is None else key)


def _in_parts(
    run: Callable[..., Any], arrays: tuple[np.ndarray, ...], key: jax.Array | None = None
) -> Any:
    """Call a compiled function on parts of a batch, and join what it returns.

    Args:
      run: takes a tuple of arrays [P, ...] and, if `key` is given, a key; returns a pytree of
        arrays [P, ...].
      arrays: [B, ...] each.
      key: random key; each part gets its own.
    """
    results = []
    num_rows = len(arrays[0])
    for part, start in enumerate(range(0, num_rows, MAX_BATCH)):
        stop = min(start + MAX_BATCH, num_rows)
        size = 1 << (stop - start - 1).bit_length()
        # Padding repeats the last row: it is valid input, and is dropped again.
        index = np.minimum(np.arange(start, start + size), stop - 1)
        keys = () if key is None else (jax.random.fold_in(key, part),)
        result = run(tuple(array[index] for array in arrays), *keys)
        results.append(jax.tree.map(lambda leaf, n=stop - start: np.asarray(leaf)[:n], result))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)

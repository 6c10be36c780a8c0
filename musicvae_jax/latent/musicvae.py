"""MusicVAE: a trained model, NumPy arrays in and out.

    vae = MusicVAE.restore("runs/mel_2bar")
    tokens = vae.sample(4, key=0, temperature=0.5)

Rows of tokens:

* Several rows are [B, T] (trio: [B, T, 3]), or a list of rows of different lengths. One row
  is [T] (trio: [T, 3]); the result then has no B axis either.
* A row shorter than the model's T is padded. The encoder and likelihoods ignore the padding.
  Decoded rows always have T steps.
* A row longer than T is cut after step T, with a warning.

Batches of any size are cut into parts of at most `batches.MAX_BATCH` rows and padded to a power
of two, so that few sizes are compiled. Longer than 400 lines because every public method of the
class is here.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.config import Config, InputError
from musicvae_jax.latent import attributes, fitted_prior, operations, paths
from musicvae_jax.latent.batches import (
    Key,
    Rows,
    Tokens,
    as_key,
    check_points,
    check_rows,
    check_sampling,
    in_parts,
)
from musicvae_jax.latent.fitted_prior import FITTED, PRIORS, STANDARD
from musicvae_jax.latent.programs import programs_of
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.registry import Params, build_vae
from musicvae_jax.models.variables import params_from_variables
from musicvae_jax.pretrained import packaged
from musicvae_jax.priors import FittedPrior
from musicvae_jax.tasks import get_task


class MusicVAE:
    """A model and its parameters.

    Random keys are `jax.random.key(...)` or an int seed; temperature 0 needs none.

    Attributes:
      config: the configuration.
      task: what a row of tokens means.
      params: parameters, a nested dict of float32 arrays.
      prior: the prior fitted to training rows, None where there is none. Samples come from it
        unless a method is given prior="standard", which takes N(0, I).
      attributes: attribute vectors [Z] by name; empty where none were computed.
      step: optimiser steps done.
    """

    def __init__(
        self,
        config: Config,
        params: Params,
        *,
        prior: FittedPrior | None = None,
        attributes: Mapping[str, np.ndarray] | None = None,
        step: int = 0,
    ) -> None:
        self.config = config
        self.prior, self.attributes, self.step = prior, dict(attributes or {}), step
        self.task = get_task(config.task)
        self.params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
        self._programs = programs_of(build_vae(config))

    @classmethod
    def restore(
        cls, run_dir: str | pathlib.Path, checkpoint: str | int | None = "best"
    ) -> MusicVAE:
        """Load a trained model, with the fitted prior and attribute vectors of that checkpoint.

        Args:
          run_dir: run folder that `experiments.train` wrote.
          checkpoint: "best" (lowest validation loss), "latest" or a saved step.

        Raises:
          InputError: the folder has no such checkpoint, or its prior or vectors are damaged.
        """
        from musicvae_jax.storage import checkpoints  # orbax takes seconds to import

        config, params, step = checkpoints.restore_params(run_dir, checkpoint)
        record = fitted_prior.load(run_dir)
        prior = None if record is None or record.step != step else record.prior
        vectors = attributes.vectors_of_step(run_dir, config.task, step)
        return cls(config, params, prior=prior, attributes=vectors, step=step)

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

    @classmethod
    def from_checkpoint(cls, path: str | pathlib.Path, task: str | None = None) -> MusicVAE:
        """Build a model from a checkpoint that Magenta's TensorFlow code wrote.

        Args:
          path: a prefix ("run/train/model.ckpt-200000"), its index file, a folder (the newest
            checkpoint in it) or a tar file.
          task: name of the task; None infers it from names and shapes.

        Raises:
          InputError: the checkpoint is damaged or not of a supported model, or the shapes fit
            several tasks and `task` is None.
        """
        from musicvae_jax.interop import reference

        found = reference.read_checkpoint(path, task)
        return cls(found.config, found.params)

    @classmethod
    def from_file(cls, path: str | pathlib.Path) -> MusicVAE:
        """Build a model from a safetensors file that `experiments.export` wrote.

        Raises:
          InputError: the file is missing, damaged, or not a model of this library.
        """
        from musicvae_jax.interop import safetensors_file

        saved = safetensors_file.read(path)
        return cls(
            saved.config,
            saved.params,
            prior=saved.prior,
            attributes=saved.attributes,
            step=saved.step,
        )

    @classmethod
    def from_pretrained(cls, name: str) -> MusicVAE:
        """Load a model of this package, such as "drums_2bar".

        Raises:
          InputError: there is no such model; the message lists those there are.
        """
        return cls.from_file(packaged.path_of(name))

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
        mu, sigma = in_parts(
            lambda part: self._programs.encode(self.params, *part), (rows.tokens, rows.lengths)
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
        tokens = self._decode(points, check_sampling(key, temperature), temperature)
        return tokens[0] if is_single else tokens

    def conductor(self, z: np.ndarray) -> np.ndarray:
        """Compute the bar embeddings [B, U, H] float32 of z [B, Z] or [Z].

        Raises:
          InputError: the model has no conductor, or z has the wrong shape.
        """
        points, is_single = self._points(z)
        run = self._programs.conductor
        if run is None:
            raise InputError(
                f"conductor: the architecture {self.config.model.architecture!r} has none"
            )
        embeddings = in_parts(lambda part: run(self.params, *part), (points,))
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
            raise InputError(f"z: {np.shape(z)} must have one z per row")
        tracks = in_parts(
            lambda part: self._programs.logits(self.params, *part), (points, rows.tokens)
        )
        steps = int(rows.lengths.max()) if self.task.has_steps else None
        tracks = tuple(t[0, :steps] if is_single else t[:, :steps] for t in tracks)
        return tracks[0] if len(tracks) == 1 else tracks

    def sample(
        self, n: int, key: Key, temperature: float = 1.0, prior: str | None = None
    ) -> np.ndarray:
        """Draw n rows from the prior: [n, T] or [n, T, K] int32.

        Args:
          n: number of rows.
          key: random key.
          temperature: divides the logits; 0 takes the best token.
          prior: see `draw`.

        Raises:
          InputError: n is below 1, there is no key, the temperature is negative, or there is no
            such prior.
        """
        if key is None:
            raise InputError("key: None; drawing from the prior needs a random key or a seed")
        z_key, token_key = jax.random.split(check_sampling(key, temperature))
        return self._decode(self.draw(n, z_key, prior), token_key, temperature)

    def draw(self, n: int, key: Key, prior: str | None = None) -> np.ndarray:
        """Draw n points from the prior: z [n, Z] float32.

        Args:
          n: number of points.
          key: random key.
          prior: "fitted" (to training rows), "standard" (N(0, I)), or None for the fitted prior
            where the model has one and N(0, I) otherwise.

        Raises:
          InputError: n is below 1, there is no key, or there is no such prior.
        """
        if n < 1:
            raise InputError(f"n: {n!r} is out of range, it must be 1 or more")
        if key is None:
            raise InputError("key: None; drawing from the prior needs a random key or a seed")
        return np.asarray(fitted_prior.draw(self._prior(prior), as_key(key), n, self.z_size))

    def reconstruct(self, tokens: Tokens, key: Key = None, temperature: float = 0.0) -> np.ndarray:
        """Encode rows and decode the means: [B, T] or [B, T, K] int32, all T steps.

        Raises:
          InputError: the rows are not tokens of the task, or key and temperature do not fit.
        """
        return self.decode(np.asarray(self.encode(tokens).mu), key, temperature)

    def log_likelihood(
        self, tokens: Tokens, key: Key, num_samples: int = 1
    ) -> operations.LogLikelihood:
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
        bounds = in_parts(
            lambda part, part_key: self._programs.log_likelihood(
                self.params, *part, part_key, num_samples
            ),
            (rows.tokens, rows.lengths),
            as_key(key),
        )
        return operations.LogLikelihood(*(b[0] if rows.is_single else b for b in bounds))

    def interpolate(
        self,
        a: np.ndarray,
        b: np.ndarray,
        steps: int,
        key: Key = None,
        temperature: float = 0.0,
        kind: str = "slerp",
    ) -> np.ndarray:
        """Decode points on the path from a to b, both included.

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
        self,
        pieces: Tokens,
        amount: float,
        num: int,
        key: Key,
        temperature: float = 0.0,
        prior: str | None = None,
    ) -> np.ndarray:
        """Vary pieces: [B, num, T] or [B, num, T, K]; see `paths.similar`.

        Args:
          pieces: rows (integers) or z.
          amount: from 0, the reconstruction, to 1, a sample from the prior.
          num: variations of each piece.
          key: random key of the variations.
          temperature: divides the logits; 0 takes the best token.
          prior: what an amount of 1 draws from, see `draw`.

        Raises:
          InputError: `amount` is not from 0 to 1, `num` is below 1, or there is no key or prior.
        """
        _check_share("amount", amount)
        if num < 1:
            raise InputError(f"num: {num!r} is out of range, it must be 1 or more")
        if key is None:
            raise InputError("key: None; variations need a random key or a seed")
        z_key, token_key = jax.random.split(check_sampling(key, temperature))
        z = jnp.repeat(jnp.asarray(self._means(pieces)), num, axis=0)
        points = paths.similar(z, jnp.asarray(self.draw(len(z), z_key, prior)), amount)
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
          vector: [Z], such as `self.attributes["note_density"]`.
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
        """Decode a path through several rows or z as one piece: [W * T] or [W * T, K].

        Args:
          points: rows (integers) or z on the path, in order.
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
        prior: str | None = None,
    ) -> np.ndarray:
        """Continue pieces by chained variations, see `operations.continuation`.

        Args:
          pieces: last windows (integers) or z; one or several.
          num_windows: W.
          key: random key of the drift.
          drift: 0 to 1, how far each window is from the previous one.
          temperature: divides the logits; 0 takes the best token.
          prior: what windows drift towards, see `draw`.

        Returns:
          What comes after the pieces: [B, W * T] or [B, W * T, K].

        Raises:
          InputError: `drift` is not from 0 to 1, `num_windows` is below 1, or there is no key or
            prior.
        """
        _check_share("drift", drift)
        _check_windows(num_windows)
        if key is None:
            raise InputError("key: None; drifting needs a random key or a seed")
        checked = check_sampling(key, temperature)
        settings = (num_windows, drift, temperature, temperature == 0, self._prior(prior))
        windows = in_parts(
            lambda part, part_key: self._programs.chain_windows(
                self.params, *part, part_key, *settings
            ),
            (self._means(pieces),),
            checked,
        )
        return self._join(windows)

    def _decode(self, z: np.ndarray, key: jax.Array, temperature: float) -> np.ndarray:
        """Decode z [B, Z]."""

        def run(part: tuple[np.ndarray, ...], part_key: jax.Array) -> jax.Array:
            if temperature == 0:
                return self._programs.greedy(self.params, *part, part_key)
            return self._programs.generate(self.params, *part, part_key, temperature)

        return in_parts(run, (z,), key)

    def _prior(self, chosen: str | None) -> FittedPrior | None:
        """Return the prior to draw from, None for N(0, I)."""
        if chosen is not None and chosen not in PRIORS:
            raise InputError(f"prior: {chosen!r} is not one of {', '.join(PRIORS)}")
        if chosen == FITTED and self.prior is None:
            raise InputError("prior: the model has no fitted prior; musicvae fit_prior makes it")
        return None if chosen == STANDARD else self.prior

    def _rows(self, tokens: Tokens) -> Rows:
        """Check rows, pad them and cut them to T steps."""
        return check_rows(tokens, self.task)

    def _points(self, z: np.ndarray) -> tuple[np.ndarray, bool]:
        """Check z: ([B, Z] float32, whether one was given)."""
        return check_points(z, self.z_size)

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

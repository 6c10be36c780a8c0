"""Scores of a trained model on a split: teacher forced, greedy, sampled, and the ELBO's terms.

Sampling and greedy decoding see z and their own tokens only. z is the posterior's mean where a
prediction is scored teacher forced or greedily, and a draw from the posterior where sampling,
cross-entropy and ELBO ask for one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from musicvae_jax import data, metrics, objectives
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices import sharding
from musicvae_jax.models.registry import Model, build_model
from musicvae_jax.tasks import Task, get_task

Tree = Any
Sums = dict[str, np.ndarray]
Figures = dict[str, dict[str, float]]
Track = Callable[[Sequence[Any], str], Iterable[Any]]


class Evaluation(NamedTuple):
    """Scores of one split.

    Every figure is given by track: {name: {track: value}}; "overall" pools the tracks, and is
    the only entry for a single track.

    Attributes:
      examples: rows scored, all of the split.
      draws: how often each row was sampled.
      teacher_forced: `metrics.scores` of the best token given the true ones before it, z = mu.
      greedy: the same of greedy decoding, z = mu.
      sampled: the same of sampling at temperature 1, z drawn; mean over the draws.
      sampled_error: its standard error over the draws.
      baselines: `metrics.baselines` of the split's own token frequencies.
      cross_entropy: nats per step, teacher forced, z drawn; overall sums the tracks.
      kl_bits: bits per example.
      elbo_nats: nats per example, z drawn once.
      active_units: latent units whose mean varies by more than 0.01.
      z_size: latent units.
    """

    examples: int
    draws: int
    teacher_forced: Figures
    greedy: Figures
    sampled: Figures
    sampled_error: Figures
    baselines: Figures
    cross_entropy: dict[str, float]
    kl_bits: float
    elbo_nats: float
    active_units: int
    z_size: int


def _untracked(batches: Sequence[Any], label: str) -> Iterable[Any]:
    del label
    return batches


def evaluate(
    config: Config,
    params: Tree,
    rows: np.ndarray,
    *,
    draws: int = 3,
    seed: int = 0,
    track: Track = _untracked,
) -> Evaluation:
    """Score every row of a split.

    Args:
      config: of the run.
      params: its parameters.
      rows: integer [N, T] or [N, T, K].
      draws: how often each row is sampled, 2 or more.
      seed: of the draws.
      track: wraps each sequence of batches, to show progress.

    Raises:
      InputError: the split is empty, or there are too few draws.
    """
    return Evaluator(config, rows, draws=draws, seed=seed)(params, track)


class Evaluator:
    """Scores parameters of one configuration on a split: compiled once for many of them.

    Takes what `evaluate` takes, and raises what it raises.
    """

    def __init__(self, config: Config, rows: np.ndarray, *, draws: int = 3, seed: int = 0) -> None:
        if len(rows) == 0:
            raise InputError("split: it holds no rows, so there is nothing to evaluate")
        if draws < 2:
            raise InputError(f"draws: {draws} is out of range, it must be 2 or more")
        self._config, self._rows, self._draws = config, rows, draws
        self._scorer = _Scorer(build_model(config), config, rows, seed)
        task = get_task(config.task)
        histogram = metrics.token_histogram(rows, task)
        self._baselines = _figures(metrics.baselines(histogram, task), task)

    def __call__(self, params: Tree, track: Track = _untracked) -> Evaluation:
        """Score parameters on every row."""
        task, scorer, draws = get_task(self._config.task), self._scorer, self._draws
        scorer.place(params)
        forced, moments = scorer.teacher_forced(track)
        by_draw = [scorer.decoded(1.0, draw, track) for draw in range(1, draws + 1)]
        values = [_figures(metrics.scores(_pooled(sums)), task) for sums in by_draw]
        mean, error = _mean_and_error(values)
        examples = float(forced["examples"])
        steps = examples * task.num_steps
        kl, cost = float(forced["kl_nats"]) / examples, forced["cost"]
        return Evaluation(
            examples=int(examples),
            draws=draws,
            teacher_forced=_figures(metrics.scores(_pooled(forced)), task),
            greedy=_figures(metrics.scores(_pooled(scorer.decoded(0.0, 0, track))), task),
            sampled=mean,
            sampled_error=error,
            baselines=self._baselines,
            cross_entropy=_by_track(metrics.with_total(cost) / steps, task),
            kl_bits=kl / math.log(2.0),
            elbo_nats=-float(cost.sum()) / examples - kl,
            active_units=moments.active_units(),
            z_size=self._config.model.z_size,
        )


class _Scorer:
    """The compiled scoring programs of a model, and the batches of a split."""

    def __init__(self, model: Model, config: Config, rows: np.ndarray, seed: int) -> None:
        mesh = sharding.make_mesh()
        self._rows = rows
        batch_size = _batch_size(config, mesh, len(rows))
        self._batches = data.padded_batches(len(rows), batch_size)
        self._cut, self._whole = sharding.along_data(mesh), sharding.replicated(mesh)
        self._params: Tree = None
        self._key = jax.random.key(seed)
        self._forced = jax.jit(
            functools.partial(_teacher_forced, model, get_task(config.task)),
            out_shardings=(self._whole, self._cut),
        )
        self._decode = jax.jit(
            functools.partial(_decoded, model, get_task(config.task)),
            static_argnums=0,
            out_shardings=self._whole,
        )

    def place(self, params: Tree) -> None:
        """Put the parameters to score on the devices."""
        self._params = jax.device_put(params, self._whole)

    def _place(self, draw: int, indices: np.ndarray, mask: np.ndarray) -> list[Any]:
        """Return the draw's key, row numbers, tokens and mask of a batch on the devices."""
        cut = jax.device_put((indices, self._rows[indices], mask), self._cut)
        return [jax.random.fold_in(self._key, draw), *cut]

    def teacher_forced(self, track: Track) -> tuple[Sums, metrics.LatentMoments]:
        """Sum the scores of all rows, and gather the moments of mu."""
        sums: Sums = {}
        moments = metrics.LatentMoments()
        for indices, mask in track(self._batches, "teacher forced"):
            found, mu = self._forced(self._params, *self._place(0, indices, mask))
            sums = metrics.add_sums(sums, found)
            moments.add(np.asarray(mu)[mask])
        return sums, moments

    def decoded(self, temperature: float, draw: int, track: Track) -> Sums:
        """Sum the scores of decoding all rows; temperature 0 is greedy, from z = mu."""
        sums: Sums = {}
        label = f"sampled, draw {draw}" if temperature else "greedy"
        for indices, mask in track(self._batches, label):
            placed = self._place(draw, indices, mask)
            sums = metrics.add_sums(sums, self._decode(temperature, self._params, *placed))
        return sums


def _batch_size(config: Config, mesh: Mesh, num_rows: int) -> int:
    """Return as many rows as a training batch has at once, shared evenly by the devices."""
    part = min(config.train.batch_size // config.train.accumulation, num_rows)
    return -(-part // mesh.size) * mesh.size


def _row_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """Return a key for each row: its noise depends on neither batch size nor devices."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def _row_noise(keys: jax.Array, size: int) -> jax.Array:
    """Draw standard normal noise [B, size] from the keys [B] of the rows."""
    return jax.vmap(lambda key: jax.random.normal(key, (size,)))(keys)


def _teacher_forced(
    model: Model,
    task: Task,
    params: Tree,
    key: jax.Array,
    indices: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
) -> tuple[metrics.Counts, jax.Array]:
    """Score one batch teacher forced: (masked sums, mu [B, Z])."""
    posterior = model.encode(params, tokens)
    predicted = metrics.best_tokens(model.logits(params, posterior.mu, tokens))
    noise = _row_noise(_row_keys(key, indices), posterior.mu.shape[1])
    z = posterior.mu + posterior.sigma * noise
    drawn_logits = model.logits(params, z, tokens)
    values = metrics.prediction_counts(predicted, tokens, task)
    values["cost"] = objectives.reconstruction_nats_per_track(drawn_logits, tokens)
    values["kl_nats"] = objectives.kl_nats(posterior)
    values["examples"] = mask.astype(values["kl_nats"].dtype)
    return metrics.masked_sums(values, mask), posterior.mu


def _decoded(
    model: Model,
    task: Task,
    temperature: float,
    params: Tree,
    key: jax.Array,
    indices: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
) -> metrics.Counts:
    """Score what one batch's z alone decode to: masked sums."""
    posterior = model.encode(params, tokens)
    z = posterior.mu
    if temperature > 0:
        keys = jax.vmap(jax.random.split)(_row_keys(key, indices))
        z = z + posterior.sigma * _row_noise(keys[:, 0], z.shape[1])

        def generate(row_z: jax.Array, row_key: jax.Array) -> jax.Array:
            return model.generate(params, row_z[None], row_key, temperature)[0]

        predicted = jax.vmap(generate)(z, keys[:, 1])
    else:
        predicted = model.generate(params, z, key, temperature)
    return metrics.masked_sums(metrics.prediction_counts(predicted, tokens, task), mask)


def _pooled(sums: Sums) -> Sums:
    """Append the sum over the tracks to each [K] count; leave the rest out."""
    return {name: metrics.with_total(value) for name, value in sums.items() if value.ndim == 1}


def _figures(values: dict[str, np.ndarray], task: Task) -> Figures:
    """Name the entries of each figure [K + 1]."""
    return {name: _by_track(value, task) for name, value in values.items()}


def _by_track(values: np.ndarray, task: Task) -> dict[str, float]:
    """Name the entries of a figure [K + 1], whose last is over all tracks."""
    names = [track.name for track in task.tracks] if len(task.tracks) > 1 else []
    return dict(zip([*names, "overall"], values[-len(names) - 1 :].tolist(), strict=True))


def _mean_and_error(draws: Sequence[Figures]) -> tuple[Figures, Figures]:
    """Average figures over the draws; the error is the standard deviation over sqrt(draws)."""
    mean: Figures = {}
    error: Figures = {}
    for name, tracks in draws[0].items():
        values = {track: np.array([draw[name][track] for draw in draws]) for track in tracks}
        mean[name] = {track: float(v.mean()) for track, v in values.items()}
        error[name] = {
            track: float(v.std(ddof=1) / math.sqrt(len(draws))) for track, v in values.items()
        }
    return mean, error

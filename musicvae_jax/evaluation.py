"""Evaluation of a model on a split: teacher-forced, greedy and sampled scores, and the ELBO.

A VAE decodes a row from its z and the tokens decoded so far. Teacher-forced and greedy predictions
use z = mu, the posterior mean. Sampled decoding, cross-entropy and ELBO use a z sampled from the
posterior. A forecaster is given the first bars of a row, the seed, and continues them. Only the
steps after the seed are scored; a VAE can be scored on the same steps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from musicvae_jax import data, metrics, objectives
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices import sharding
from musicvae_jax.models.registry import Forecaster, Model, build_model
from musicvae_jax.tasks import STEPS_PER_BAR, Task, get_task

Tree = Any
Sums = dict[str, np.ndarray]
Figures = dict[str, dict[str, float]]
Track = Callable[[Sequence[Any], str], Iterable[Any]]
# Predicted rows that are scored at once.
_SCORED = 4_096
_KEPT = 8  # compiled programs


class Evaluation(NamedTuple):
    """Scores of one split.

    Scores are given per track, {name: {track: value}}. "overall" pools the tracks; it is the only
    entry if there is a single track.

    Attributes:
      examples: number of rows, all those of the split.
      draws: number of samples per row.
      teacher_forced: `metrics.scores` of the most likely next token given the true previous
        ones, z = mu.
      greedy: the same scores for greedy decoding, z = mu.
      sampled: the same scores for sampling at temperature 1, with sampled z; mean over the draws.
      sampled_error: standard error of `sampled` over the draws.
      seed_bars: bars at the start of each row that `greedy` and `sampled` do not score; a
        forecaster is given them.
      baselines: `metrics.baselines` for the token frequencies of the split itself.
      cross_entropy: nats per step, teacher forced, with sampled z; "overall" sums the tracks.
      kl_bits: bits per example; None for a forecaster.
      elbo_nats: nats per example, with one sample of z; for a forecaster log p(row) itself.
      active_units: number of latent units whose mean has a variance above 0.01; None for a
        forecaster.
      z_size: number of latent units; None for a forecaster.
    """

    examples: int
    draws: int
    teacher_forced: Figures
    greedy: Figures
    sampled: Figures
    sampled_error: Figures
    seed_bars: int
    baselines: Figures
    cross_entropy: dict[str, float]
    kl_bits: float | None
    elbo_nats: float
    active_units: int | None
    z_size: int | None


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
    seed_bars: int | None = None,
    track: Track = _untracked,
) -> Evaluation:
    """Score every row of a split.

    Args:
      config: configuration of the run.
      params: model parameters.
      rows: integer [N, T] or [N, T, K].
      draws: number of samples per row, at least 2.
      seed: random seed for sampling.
      seed_bars: bars at the start of each row that decoding does not score, and that a forecaster
        continues; None: 1 for a forecaster, 0 for a VAE.
      track: wraps each sequence of batches, to show progress.

    Raises:
      InputError: the split is empty, there are too few draws, or the seed leaves nothing to score
        or a forecaster nothing to continue.
    """
    evaluator = Evaluator(config, rows, draws=draws, seed=seed, seed_bars=seed_bars)
    return evaluator(params, track)


def score_predictions(predicted: np.ndarray, rows: np.ndarray, task: Task) -> Figures:
    """Score rows that were predicted by other means, such as a baseline.

    Args:
      predicted: integer [N, T] or [N, T, K].
      rows: the true rows, likewise.
      task: what tokens mean.

    Returns:
      `metrics.scores`, {name: {track: value}}.
    """
    sums: Sums = {}
    for start in range(0, len(rows), _SCORED):
        part = slice(start, start + _SCORED)
        counts = metrics.prediction_counts(
            jnp.asarray(predicted[part]), jnp.asarray(rows[part]), task
        )
        sums = metrics.add_sums(sums, {name: jnp.sum(v, axis=0) for name, v in counts.items()})
    return _figures(metrics.scores(_pooled(sums)), task)


class Evaluator:
    """Evaluates any number of parameter sets of one configuration with one compilation.

    Arguments and errors are those of `evaluate`.
    """

    def __init__(
        self,
        config: Config,
        rows: np.ndarray,
        *,
        draws: int = 3,
        seed: int = 0,
        seed_bars: int | None = None,
    ) -> None:
        if len(rows) == 0:
            raise InputError("split: it holds no rows, so there is nothing to evaluate")
        if draws < 2:
            raise InputError(f"draws: {draws} is out of range, it must be 2 or more")
        self._config, self._rows, self._draws = config, rows, draws
        task, model = get_task(config.task), build_model(config)
        fewest = int(isinstance(model, Forecaster))
        if seed_bars and not task.has_steps:
            raise InputError("seed_bars: rows of piano rolls are scored as a whole; leave it out")
        self._seed_bars = fewest if seed_bars is None else seed_bars
        if not fewest <= self._seed_bars < task.num_bars:
            raise InputError(
                f"seed_bars: {self._seed_bars} is out of range, it must be from {fewest} to "
                f"{task.num_bars - 1} for {config.model.architecture} and {task.name}"
            )
        self._has_latent_space = not isinstance(model, Forecaster)
        self._scorer = _Scorer(model, config, rows, seed, self._seed_bars)
        self._baselines = _baselines(rows, task)

    def __call__(self, params: Tree, track: Track = _untracked) -> Evaluation:
        """Score every row with these parameters."""
        task, scorer, draws = get_task(self._config.task), self._scorer, self._draws
        scorer.place(params)
        forced, moments = scorer.teacher_forced(track)
        by_draw = [scorer.decoded(1.0, draw, track) for draw in range(1, draws + 1)]
        values = [_figures(metrics.scores(_pooled(sums)), task) for sums in by_draw]
        mean, error = _mean_and_error(values)
        examples = float(forced["examples"])
        steps = examples * task.num_bars * task.steps_per_bar
        kl, cost = float(forced.get("kl_nats", 0.0)) / examples, forced["cost"]
        has_z = self._has_latent_space
        return Evaluation(
            examples=int(examples),
            draws=draws,
            teacher_forced=_figures(metrics.scores(_pooled(forced)), task),
            greedy=_figures(metrics.scores(_pooled(scorer.decoded(0.0, 0, track))), task),
            sampled=mean,
            sampled_error=error,
            seed_bars=self._seed_bars,
            baselines=self._baselines,
            cross_entropy=_by_track(metrics.with_total(cost) / steps, task),
            kl_bits=kl / math.log(2.0) if has_z else None,
            elbo_nats=-float(cost.sum()) / examples - kl,
            active_units=moments.active_units() if has_z else None,
            z_size=self._config.model.z_size if has_z else None,
        )


def _baselines(rows: np.ndarray, task: Task) -> Figures:
    """Score predictions from token frequencies; undefined for rows that are lists."""
    if not task.has_steps:
        none = [np.zeros(1, np.int64)]
        unknown = metrics.baselines(none, task)
        return {name: _by_track(np.full_like(v, np.nan), task) for name, v in unknown.items()}
    return _figures(metrics.baselines(metrics.token_histogram(rows, task), task), task)


class _Scorer:
    """The compiled scoring programs of a model, and the batches of a split."""

    def __init__(
        self, model: Model, config: Config, rows: np.ndarray, seed: int, seed_bars: int
    ) -> None:
        mesh = sharding.make_mesh()
        self._rows = rows
        batch_size = _batch_size(config, mesh, len(rows))
        self._batches = data.padded_batches(len(rows), batch_size)
        self._data_sharding, self._replicated = sharding.along_data(mesh), sharding.replicated(mesh)
        self._params: Tree = None
        self._key = jax.random.key(seed)
        task = get_task(config.task)
        self._forced = _compiled_teacher_forced(model, task, mesh)
        self._decode = _compiled_decoded(model, task, seed_bars * STEPS_PER_BAR, mesh)

    def place(self, params: Tree) -> None:
        """Place the parameters to score on the devices."""
        self._params = jax.device_put(params, self._replicated)

    def _place(self, draw: int, indices: np.ndarray, mask: np.ndarray) -> list[Any]:
        """Return the draw's key, and a batch's row indices, tokens and mask on the devices."""
        batch = jax.device_put((indices, self._rows[indices], mask), self._data_sharding)
        return [jax.random.fold_in(self._key, draw), *batch]

    def teacher_forced(self, track: Track) -> tuple[Sums, metrics.LatentMoments]:
        """Sum the counts over all rows, and collect the moments of mu."""
        sums: Sums = {}
        moments = metrics.LatentMoments()
        for indices, mask in track(self._batches, "teacher forced"):
            found, mu = self._forced(self._params, *self._place(0, indices, mask))
            sums = metrics.add_sums(sums, found)
            moments.add(np.asarray(mu)[mask])
        return sums, moments

    def decoded(self, temperature: float, draw: int, track: Track) -> Sums:
        """Decode all rows and sum the counts; temperature 0 is greedy decoding of z = mu."""
        sums: Sums = {}
        label = f"sampled, draw {draw}" if temperature else "greedy"
        for indices, mask in track(self._batches, label):
            placed = self._place(draw, indices, mask)
            sums = metrics.add_sums(sums, self._decode(temperature, self._params, *placed))
        return sums


@functools.lru_cache(_KEPT)
def _compiled_teacher_forced(model: Model, task: Task, mesh: Mesh) -> Callable[..., Any]:
    """Return `_teacher_forced` of a model; configurations with equal models share it."""
    return jax.jit(
        functools.partial(_teacher_forced, model, task),
        out_shardings=(sharding.replicated(mesh), sharding.along_data(mesh)),
    )


@functools.lru_cache(_KEPT)
def _compiled_decoded(
    model: Model, task: Task, seed_steps: int, mesh: Mesh
) -> Callable[..., metrics.Counts]:
    """Return `_decoded` of a model; the temperature is static."""
    return jax.jit(
        functools.partial(_decoded, model, task, seed_steps),
        static_argnums=0,
        out_shardings=sharding.replicated(mesh),
    )


def _batch_size(config: Config, mesh: Mesh, num_rows: int) -> int:
    """Return the rows of a training micro-batch, rounded up to a multiple of the devices."""
    part = min(config.train.batch_size // config.train.accumulation, num_rows)
    return -(-part // mesh.size) * mesh.size


def _row_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """Return a key per row, so that noise does not depend on batch size or devices."""
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
    """Score a batch with teacher forcing: (masked sums, mu [B, Z]); Z = 0 for a forecaster."""
    if isinstance(model, Forecaster):
        logits = model.next_logits(params, tokens)
        values = metrics.prediction_counts(metrics.best_tokens(logits), tokens, task)
        values["cost"] = objectives.reconstruction_nats_per_track(logits, tokens)
        values["examples"] = mask.astype(jnp.float32)
        return metrics.masked_sums(values, mask), jnp.zeros((len(tokens), 0))
    posterior = model.encode(params, tokens)
    predicted = model.best(model.logits(params, posterior.mu, tokens))
    noise = _row_noise(_row_keys(key, indices), posterior.mu.shape[1])
    z = posterior.mu + posterior.sigma * noise
    drawn_logits = model.logits(params, z, tokens)
    values = _counts(model, predicted, tokens, task)
    values["cost"] = model.nats(drawn_logits, tokens)
    values["kl_nats"] = objectives.kl_nats(posterior)
    values["examples"] = mask.astype(values["kl_nats"].dtype)
    return metrics.masked_sums(values, mask), posterior.mu


def _counts(model: Model, predicted: jax.Array, tokens: jax.Array, task: Task) -> metrics.Counts:
    """Count what scores are made of, as the model does or token by token."""
    if isinstance(model, Forecaster) or model.counts is None:
        return metrics.prediction_counts(predicted, tokens, task)
    return model.counts(predicted, tokens)


def _decoded(
    model: Model,
    task: Task,
    seed_steps: int,
    temperature: float,
    params: Tree,
    key: jax.Array,
    indices: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
) -> metrics.Counts:
    """Decode a batch and score the steps from `seed_steps` on: masked sums."""
    keys = _row_keys(key, indices)
    if isinstance(model, Forecaster):
        num_steps = task.num_steps - seed_steps

        def forecast(seed: jax.Array, row_key: jax.Array) -> jax.Array:
            return model.continuation(params, seed, num_steps, row_key, temperature)

        predicted = _by_row(forecast, tokens[:, :seed_steps], key, keys, temperature)
    else:
        posterior = model.encode(params, tokens)
        z = posterior.mu
        if temperature > 0:
            pairs = jax.vmap(jax.random.split)(keys)
            z = z + posterior.sigma * _row_noise(pairs[:, 0], z.shape[1])
            keys = pairs[:, 1]

        def generate(z: jax.Array, row_key: jax.Array) -> jax.Array:
            return model.generate(params, z, row_key, temperature)

        predicted = _by_row(generate, z, key, keys, temperature)[:, seed_steps:]
    counts = _counts(model, predicted, tokens[:, seed_steps:], task)
    return metrics.masked_sums(counts, mask)


def _by_row(
    decode: Callable[[jax.Array, jax.Array], jax.Array],
    inputs: jax.Array,
    key: jax.Array,
    keys: jax.Array,
    temperature: float,
) -> jax.Array:
    """Decode inputs [B, ...], each with the key of its row, or greedily all at once."""
    if temperature == 0:
        return decode(inputs, key)
    return jax.vmap(lambda row, row_key: decode(row[None], row_key)[0])(inputs, keys)


def _pooled(sums: Sums) -> Sums:
    """Append the sum over the tracks to each [K] count; drop the other entries."""
    return {name: metrics.with_total(value) for name, value in sums.items() if value.ndim == 1}


def _figures(values: dict[str, np.ndarray], task: Task) -> Figures:
    """Name the entries of each score [K + 1] by track."""
    return {name: _by_track(value, task) for name, value in values.items()}


def _by_track(values: np.ndarray, task: Task) -> dict[str, float]:
    """Name the entries of a score [K + 1] by track; the last one is over all tracks."""
    names = [track.name for track in task.tracks] if len(task.tracks) > 1 else []
    return dict(zip([*names, "overall"], values[-len(names) - 1 :].tolist(), strict=True))


def _mean_and_error(draws: Sequence[Figures]) -> tuple[Figures, Figures]:
    """Return the mean of the scores over the draws, and its standard error."""
    mean: Figures = {}
    error: Figures = {}
    for name, tracks in draws[0].items():
        values = {track: np.array([draw[name][track] for draw in draws]) for track in tracks}
        mean[name] = {track: float(v.mean()) for track, v in values.items()}
        error[name] = {
            track: float(v.std(ddof=1) / math.sqrt(len(draws))) for track, v in values.items()
        }
    return mean, error

"""The training step, the evaluation step, and a program of several training steps.

    state, batch -> transpose -> encode -> z -> logits -> loss -> gradient -> clip -> Adam

Everything is a pure function of arrays. A run is exactly reproducible: the random key of a step is
`fold_in(key, step)`, its batch is a function of (seed, step), and the same compiled program runs
the steps however they are divided into calls.

Reference: magenta/models/music_vae/base_model.py::_compute_model_loss and
music_vae_train.py::train.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from musicvae_jax import metrics, objectives
from musicvae_jax.config import Config, TrainConfig
from musicvae_jax.data import transpose_tokens
from musicvae_jax.models.draws import Columns
from musicvae_jax.models.registry import VAE, Forecaster, Model
from musicvae_jax.tasks import Task, get_task
from musicvae_jax.training.learning_rate import learning_rate_at
from musicvae_jax.training.optimiser import (
    Hyperparameters,
    all_finite,
    make_optimiser,
    select,
)
from musicvae_jax.training.state import TrainState

# Metrics that are not batch means; when aggregating steps, keep the last value.
LAST_VALUES = ("learning_rate", "beta", "sampling_probability", "zeroed", "skipped")

Tree = Any
Metrics = dict[str, jax.Array]


class Batch(NamedTuple):
    """A batch of examples.

    Attributes:
      tokens: integer [B, T] or [B, T, K].
      eps: noise of z, float32 [B, Z]. If None, training steps draw it and evaluation uses
        z = mu. A forecaster does not use it.
    """

    tokens: jax.Array
    eps: jax.Array | None = None


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def example_values(
    model: Model,
    task: Task,
    hyper: Hyperparameters,
    beta: jax.Array,
    params: Tree,
    batch: Batch,
    encode_options: Mapping[str, Any] = MappingProxyType({}),
    **logits_options: Any,
) -> Metrics:
    """Compute the loss and other metrics of each example.

    Args:
      model: the model.
      task: the task, which defines the tracks.
      hyper: hyper-parameters; only `free_bits` is used.
      beta: weight of the KL term, float32 [].
      params: model parameters.
      batch: tokens and noise; without noise, z = mu.
      encode_options: passed to the `encode` of a VAE (dropout).
      **logits_options: passed to the `logits` of a VAE (scheduled sampling, dropout).

    Returns:
      [B] each: "loss" is cross-entropy + beta * max(KL, tau) in nats; "loss_reference" is
      cross-entropy + beta * max(KL - tau, 0), which has the same gradient; "reconstruction_nats"
      is the cross-entropy; "kl_nats" the KL; then `_scores`. A forecaster has no KL: its two losses
      are the cross-entropy, and "kl_nats" is missing.
    """
    if isinstance(model, Forecaster):
        logits = model.next_logits(params, batch.tokens)
        nats = objectives.reconstruction_nats_per_track(logits, batch.tokens)
        kl_values: Metrics = {}
        costs = jnp.float32(0), jnp.float32(0)
    else:
        posterior = model.encode(params, batch.tokens, **encode_options)
        z = posterior.mu if batch.eps is None else posterior.mu + posterior.sigma * batch.eps
        logits = model.logits(params, z, batch.tokens, **logits_options)
        nats = model.nats(logits, batch.tokens)
        kl = objectives.kl_nats(posterior)
        kl_values = {"kl_nats": kl}
        free_bits = hyper.free_bits
        costs = objectives.free_bits_kl(kl, free_bits), objectives.free_bits_cost(kl, free_bits)
    reconstruction = nats.sum(axis=-1)
    values = {
        "loss": reconstruction + beta * costs[0],
        "loss_reference": reconstruction + beta * costs[1],
        "reconstruction_nats": reconstruction,
    }
    return kl_values | values | _scores(model, logits, batch.tokens)


def _scores(model: Model, logits: Columns, tokens: jax.Array) -> Metrics:
    """Return the model's own scores, or "accuracy" over steps and tracks: [B] each."""
    if isinstance(model, VAE) and model.scores is not None:
        return model.scores(logits, tokens)
    correct = metrics.best_tokens(logits) == metrics.track_columns(tokens)
    return {"accuracy": jnp.mean(correct, axis=(1, 2), dtype=jnp.float32)}


def with_kl_bits(figures: dict[str, Any]) -> dict[str, Any]:
    """Replace "kl_nats", if there is one, by "kl_bits"."""
    if "kl_nats" not in figures:
        return figures
    rest = {name: value for name, value in figures.items() if name != "kl_nats"}
    return rest | {"kl_bits": figures["kl_nats"] / math.log(2.0)}


def make_train_step(model: Model, config: Config) -> TrainStep:
    """Build the pure training step `(state, batch) -> (state, metrics)` of a configuration.

    The metrics are scalars: `example_values` averaged over the batch, with "kl_bits" instead of
    "kl_nats", and "gradient_norm", "learning_rate", "zeroed" and "skipped" (the last two counted
    from the start of the run); of a VAE also "beta" and "sampling_probability".
    """
    train, task = config.train, get_task(config.task)
    optimiser = make_optimiser(
        config.optimiser, train.clip_mode, decays_weights=train.weight_decay > 0
    )
    has_latent_space = not isinstance(model, Forecaster)
    teacher_forced = train.sampling_schedule == "constant" and train.sampling_rate == 0

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        hyper = state.hyper
        beta = objectives.scheduled_beta(
            state.step,
            train.beta_schedule,
            hyper.beta,
            rate=hyper.beta_rate,
            steps=hyper.beta_steps,
            rise=hyper.beta_rise,
        )
        probability = objectives.sampling_probability_at(
            state.step, train.sampling_schedule, hyper.sampling_rate
        )

        def loss(params: Tree, part: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
            encode_options, options = _dropout_options(train, key)
            if has_latent_space and not teacher_forced:
                options |= {"sampling_probability": probability, "key": key}
            if has_latent_space and train.input_dropout > 0:
                drop_key = jax.random.fold_in(key, 1)
                options |= {"input_dropout": hyper.input_dropout, "drop_key": drop_key}
            values = example_values(
                model, task, hyper, beta, params, part, encode_options, **options
            )
            return jnp.mean(values["loss_reference"]), values

        batch, sampling_key = _augment(state, batch, task, config.model.z_size)
        grads, values = _gradient(loss, state.params, batch, sampling_key, train.accumulation)
        grads = _without_part(grads, train.freeze)
        measured = with_kl_bits({name: jnp.mean(value) for name, value in values.items()})
        state, more = _update(state, optimiser, grads, measured["loss"], train)
        if has_latent_space:
            more |= {"beta": beta, "sampling_probability": probability}
        return state, measured | more

    return train_step


def _dropout_options(train: TrainConfig, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of `encode` and of `logits` that drop units in a training step."""
    if train.dropout == 0:
        return {}, {}
    keys = jax.random.split(jax.random.fold_in(key, 2))
    encode, logits = ({"dropout": train.dropout, "dropout_key": key} for key in keys)
    return encode, logits


def _augment(state: TrainState, batch: Batch, task: Task, z_size: int) -> tuple[Batch, jax.Array]:
    """Transpose the batch and draw its noise; return it and a key for scheduled sampling."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key_data), state.step)
    transpose_key, eps_key, sampling_key = jax.random.split(key, 3)
    tokens = transpose_tokens(transpose_key, batch.tokens, state.hyper.transpose, task)
    eps = batch.eps
    if eps is None:
        eps = jax.random.normal(eps_key, (tokens.shape[0], z_size))
    return Batch(tokens, eps), sampling_key


def _gradient(
    loss: Callable[[Tree, Batch, jax.Array], tuple[jax.Array, Metrics]],
    params: Tree,
    batch: Batch,
    key: jax.Array,
    parts: int,
) -> tuple[Tree, Metrics]:
    """Differentiate a mean over the batch, accumulating the gradient over equal parts.

    Part a holds the rows a, a + parts, ..., so that every row stays on its device. Noise and
    transposition have been drawn for the whole batch before. Only the samples of scheduled
    sampling depend on the number of parts.

    Returns:
      the gradient, and the values per example, [B] each, not in the order of the batch.
    """
    gradient = jax.grad(loss, has_aux=True)
    if parts == 1:
        return gradient(params, batch, key)

    def split(array: jax.Array) -> jax.Array:
        return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)

    def add_part(total: Tree, part: tuple[Batch, jax.Array]) -> tuple[Tree, Metrics]:
        grads, values = gradient(params, *part)
        return jax.tree.map(jnp.add, total, grads), values

    zeros = jax.tree.map(jnp.zeros_like, params)
    batches = jax.tree.map(split, batch), jax.random.split(key, parts)
    total, values = jax.lax.scan(add_part, zeros, batches)
    mean = jax.tree.map(lambda leaf: leaf / parts, total)
    return mean, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), values)


def _without_part(tree: Tree, part: str) -> Tree:
    """Replace the arrays of `part`, "encoder" or "decoder", by zeros; "none" changes nothing."""
    if part == "none":
        return tree
    return tree | {part: jax.tree.map(jnp.zeros_like, tree[part])}


def _update(
    state: TrainState, optimiser: Any, grads: Tree, loss: jax.Array, train: TrainConfig
) -> tuple[TrainState, Metrics]:
    """Apply one optimiser step, or skip it if loss or gradient is not finite; update the counts."""
    hyper = state.hyper
    norm = optax.tree.norm(grads)
    schedule = train.learning_rate_schedule
    rate = learning_rate_at(state.step, hyper, schedule, jnp.asarray(state.patience.rate_scale))
    updates, new_optimiser = optimiser.update(
        grads, state.optimiser, state.params, hyper=hyper, learning_rate=rate
    )
    updates = _without_part(updates, train.freeze)
    finite = all_finite((loss, grads))
    zeroed = finite & (norm >= hyper.grad_norm_clip_to_zero) & (train.clip_mode == "global_norm")
    new_state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=select(finite, optax.apply_updates(state.params, updates), state.params),
        optimiser=select(finite, new_optimiser, state.optimiser),
        zeroed=state.zeroed + zeroed.astype(jnp.int32),
        skipped=state.skipped + (~finite).astype(jnp.int32),
    )
    return new_state, {
        "gradient_norm": norm,
        "learning_rate": rate,
        "zeroed": new_state.zeroed,
        "skipped": new_state.skipped,
    }


def take_from_device(rows: jax.Array, chunk: jax.Array, i: jax.Array) -> jax.Array:
    """Gather batch `i`'s tokens: `rows` are [N, T(, K)], `chunk` [C, B] row indices."""
    return rows[chunk[i]]


def take_from_chunk(rows: jax.Array, chunk: jax.Array, i: jax.Array) -> jax.Array:
    """Take batch `i`'s tokens from `chunk` [C, B, T(, K)], gathered on the host."""
    del rows
    return chunk[i]


def make_run_steps(
    train_step: TrainStep, take: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Build the program of several steps: `(state, rows, chunk, count) -> (state, record)`.

    `count`, int32 [], is the number of batches of the chunk to use. It is traced, so the same
    compiled steps run for every count and an interrupted run stays bit-identical. `record` holds
    the metrics of the steps, [C] each; entries from `count` on are 0.
    """

    def run_steps(
        state: TrainState, rows: jax.Array, chunk: jax.Array, count: jax.Array
    ) -> tuple[TrainState, Metrics]:
        def one(state: TrainState, i: jax.Array) -> tuple[TrainState, Metrics]:
            return train_step(state, Batch(take(rows, chunk, i)))

        def body(i: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, record = carry
            state, measured = one(state, i)
            return state, {name: record[name].at[i].set(measured[name]) for name in record}

        _, shapes = jax.eval_shape(one, state, jnp.int32(0))
        record = {name: jnp.zeros(chunk.shape[:1], shape.dtype) for name, shape in shapes.items()}
        return jax.lax.fori_loop(0, count, body, (state, record))

    return run_steps


def make_eval_step(
    model: Model, config: Config
) -> Callable[[Tree, Hyperparameters, Batch, jax.Array], Metrics]:
    """Build the evaluation step `(params, hyper, batch, mask) -> sums over the masked rows`.

    It uses teacher forcing, no transposition and the final `beta`, so scores of different steps are
    comparable. It sums `example_values` and counts "examples".
    """
    task = get_task(config.task)

    def eval_step(params: Tree, hyper: Hyperparameters, batch: Batch, mask: jax.Array) -> Metrics:
        values = example_values(model, task, hyper, hyper.beta, params, batch)
        values["examples"] = jnp.ones(mask.shape, jnp.float32)
        return metrics.masked_sums(values, mask)

    return eval_step

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import Config
from musicvae_jax.models.registry import Model, build_model
from musicvae_jax.tasks import get_task
from musicvae_jax.training.state import TrainState, count_parameters, init_state
from musicvae_jax.training.step import (
    Batch,
    Metrics,
    TrainStep,
    make_eval_step,
    make_run_steps,
    make_train_step,
    take_from_device,
)
from tests.support.synthetic_store import random_rows

BATCH_SIZE, NUM_ROWS = 8, 40


@pytest.fixture(scope="module")
def config() -> Config:
    return get_task("mel_2bar").config.replace(
        encoder_sizes=(8,),
        decoder_sizes=(8,),
        z_size=4,
        batch_size=BATCH_SIZE,
        sampling_schedule="constant",
        sampling_rate=0.0,
        free_bits=1.0,
        beta=0.5,
        beta_rate=0.0,
        init="default",
        warmup_steps=0,
        dtype="float32",
    )


@pytest.fixture(scope="module")
def model(config: Config) -> Model:
    return build_model(config)


@pytest.fixture(scope="module")
def rows(config: Config) -> jax.Array:
    generator = np.random.default_rng(0)
    return jnp.asarray(random_rows(generator, get_task(config.task), NUM_ROWS))


@pytest.fixture(scope="module")
def first(model: Model, config: Config) -> TrainState:
    return jax.jit(functools.partial(init_state, model, config))()


@pytest.fixture(scope="module")
def step(model: Model, config: Config) -> TrainStep:
    return jax.jit(make_train_step(model, config))


@pytest.fixture(scope="module")
def batch(rows: jax.Array) -> Batch:
    eps = np.random.default_rng(1).normal(size=(BATCH_SIZE, 4)).astype(np.float32)
    return Batch(rows[:BATCH_SIZE], jnp.asarray(eps))


def _assert_equal(left: Any, right: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


def _is_equal(left: Any, right: Any) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_the_two_forms_of_the_loss_differ_by_beta_tau(
    step: TrainStep, first: TrainState, batch: Batch
) -> None:
    state, at_0 = step(first, batch)
    assert at_0["beta"] == 0.0
    for name in ("loss", "loss_reference"):
        np.testing.assert_allclose(at_0[name], at_0["reconstruction_nats"], rtol=1e-6)
    _, at_1 = step(state, batch)
    assert at_1["beta"] == 0.5
    np.testing.assert_allclose(
        at_1["loss"] - at_1["loss_reference"], 0.5 * math.log(2.0), rtol=1e-3
    )
    assert at_1["loss_reference"] >= at_1["reconstruction_nats"]


def test_a_step_is_a_function_of_its_inputs(
    step: TrainStep, first: TrainState, batch: Batch
) -> None:
    once, again = step(first, batch), step(first, batch)
    _assert_equal(once, again)
    assert int(once[0].step) == 1
    assert not _is_equal(once[0].params, first.params)


def test_a_value_that_is_not_finite_skips_the_whole_update(
    step: TrainStep, first: TrainState, batch: Batch
) -> None:
    good, _ = step(first, batch)
    assert batch.eps is not None
    bad = batch._replace(eps=batch.eps.at[0, 0].set(jnp.nan))
    after, measured = step(good, bad)
    assert (int(after.skipped), int(after.zeroed), int(after.step)) == (1, 0, 2)
    assert int(measured["skipped"]) == 1
    _assert_equal((after.params, after.optimiser), (good.params, good.optimiser))
    recovered, _ = step(after, batch)
    assert int(recovered.skipped) == 1
    assert not _is_equal(recovered.params, good.params)


def test_a_large_norm_zeroes_the_gradient_and_adam_still_steps(
    step: TrainStep, first: TrainState, batch: Batch
) -> None:
    good, measured = step(first, batch)
    limit = dataclasses.replace(good.hyper, grad_norm_clip_to_zero=jnp.float32(1e-6))
    after, _ = step(dataclasses.replace(good, hyper=limit), batch)
    assert (int(after.zeroed), int(after.skipped)) == (1, 0)
    assert float(measured["gradient_norm"]) > 1e-6
    before, now = good.optimiser[1], after.optimiser[1]
    assert int(now.updates) == int(before.updates) + 1
    # A gradient of 0: moments decay, momentum continues.
    expected = jax.tree.map(lambda m: np.float32(0.9) * m, before.first_moment)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(close, now.first_moment, expected)
    assert not _is_equal(after.params, good.params)


def test_accumulation_equals_the_whole_batch(
    model: Model, config: Config, step: TrainStep, first: TrainState, batch: Batch
) -> None:
    in_parts = jax.jit(make_train_step(model, config.replace(accumulation=4)))
    whole, whole_measured = step(first, batch)
    parts, parts_measured = in_parts(first, batch)
    for name, value in whole_measured.items():
        np.testing.assert_allclose(parts_measured[name], value, rtol=1e-5, err_msg=name)
    moments = [state.optimiser[1].first_moment for state in (whole, parts)]
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(moments[0]))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6 * largest)
    jax.tree.map(close, *moments)


@pytest.fixture(scope="module")
def run_steps(model: Model, config: Config) -> Callable[..., tuple[TrainState, Metrics]]:
    train_step = make_train_step(model, config.replace(transpose=5))
    return jax.jit(make_run_steps(train_step, take_from_device))


def test_steps_are_the_same_however_they_are_cut(
    run_steps: Callable[..., tuple[TrainState, Metrics]],
    first: TrainState,
    rows: jax.Array,
) -> None:
    chunk = jnp.arange(NUM_ROWS, dtype=jnp.int32).reshape(5, BATCH_SIZE)
    whole, record = run_steps(first, rows, chunk, jnp.int32(5))
    state, losses = first, []
    for start, count in ((0, 2), (2, 1), (3, 2)):
        part = jnp.roll(chunk, -start, axis=0)
        state, found = run_steps(state, rows, part, jnp.int32(count))
        assert not np.any(found["loss"][count:])
        losses += found["loss"][:count].tolist()
    _assert_equal(state, whole)
    assert losses == record["loss"].tolist()
    assert len(set(losses)) == 5


def test_noise_and_transposition_are_fresh_at_every_step(
    run_steps: Callable[..., tuple[TrainState, Metrics]],
    first: TrainState,
    rows: jax.Array,
) -> None:
    frozen = dataclasses.replace(first.hyper, learning_rate=jnp.float32(0), beta=jnp.float32(0))
    frozen = dataclasses.replace(frozen, min_learning_rate=jnp.float32(0))
    chunk = jnp.zeros((5, BATCH_SIZE), jnp.int32)
    state = dataclasses.replace(first, hyper=frozen)
    after, record = run_steps(state, rows, chunk, jnp.int32(5))
    _assert_equal(after.params, first.params)
    assert len(set(record["loss"].tolist())) == 5


def test_padding_does_not_change_an_evaluation(
    model: Model, config: Config, first: TrainState, rows: jax.Array
) -> None:
    evaluate = jax.jit(make_eval_step(model, config))
    masked = evaluate(first.params, first.hyper, Batch(rows[:8]), jnp.arange(8) < 5)
    other = Batch(rows[jnp.array([0, 1, 2, 3, 4, 20, 21, 22])])
    again = evaluate(first.params, first.hyper, other, jnp.arange(8) < 5)
    assert float(masked["examples"]) == 5
    _assert_equal(masked, again)
    everyone = evaluate(first.params, first.hyper, Batch(rows[:8]), jnp.ones(8, bool))
    assert float(everyone["loss"]) > float(masked["loss"])


def test_parameters_are_counted() -> None:
    assert count_parameters({"a": np.zeros((2, 3)), "b": np.zeros(())}) == 7

"""The three ways to decode, and that they agree."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.models import decoders, draws
from musicvae_jax.models.encoders import split_columns
from musicvae_jax.models.initialisation import REFERENCE
from tests.support import model_cases
from tests.support.model_cases import CASES


def test_shift_puts_none_first() -> None:
    (column,) = decoders.shift((jnp.array([[1, 2], [3, 4], [5, 6]]),), (jnp.array([90, 90]),))
    assert column.tolist() == [[90, 90], [1, 2], [3, 4]]


def test_join_columns_undoes_the_split() -> None:
    single, trio = jnp.arange(6).reshape(2, 3), jnp.arange(12).reshape(2, 2, 3)
    for tokens in (single, trio):
        from_columns = decoders.join_columns(split_columns(tokens))
        np.testing.assert_array_equal(from_columns, tokens)


def test_sample_at_temperature_0_takes_the_best(key: jax.Array) -> None:
    logits = (jax.random.normal(key, (50, 7)), jax.random.normal(key, (50, 3)))
    best = [column.argmax(-1).tolist() for column in logits]
    for temperature in (0, 0.0, jnp.float32(0.0)):
        found = draws.sample(logits, key, temperature)
        assert [column.tolist() for column in found] == best


def test_best_is_the_first_largest_and_always_a_token() -> None:
    x = jnp.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [-jnp.inf, -jnp.inf, 0.0], [jnp.nan, 1, 2]])
    (found,) = draws.best((x,))
    assert found.dtype == jnp.int32
    assert found.tolist()[:3] == [1, 0, 2]
    assert 0 <= int(found[3]) < 3


def test_noise_drawn_for_many_steps_is_that_of_each(
    key: jax.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("mel_2bar", "trio_16bar"):
        case = model_cases.case(task, "flat")
        together = case.model.generate(case.params, case.z, key, 1.0)
        with monkeypatch.context() as patched:
            patched.setattr(draws, "STEPS_OF_NOISE", 1)
            apart = case.model.generate(case.params, case.z, key, 1.0)
        np.testing.assert_array_equal(together, apart)


def test_sample_follows_the_softmax(key: jax.Array) -> None:
    logits = jnp.log(jnp.array([0.1, 0.2, 0.7]))
    n, temperature = 20_000, 2.0
    (tokens,) = draws.sample((jnp.broadcast_to(logits, (n, 3)),), key, temperature)
    expected = np.sqrt([0.1, 0.2, 0.7]) / np.sqrt([0.1, 0.2, 0.7]).sum()
    shares = np.bincount(tokens, minlength=3) / n
    assert np.abs(shares - expected).max() < 5 * np.sqrt(0.25 / n)


# One stream with one column, one with three, three with one.
SCHEDULED = (("drums_2bar", "flat"), ("trio_16bar", "flat"), ("trio_16bar", "hierdec"))


@functools.cache
def scheduled(task: str, architecture: str) -> Any:
    case = model_cases.case(task, architecture)

    def run(probability: float, temperature: float, key: jax.Array) -> Any:
        options = {"sampling_probability": probability, "temperature": temperature, "key": key}
        return case.model.logits(case.params, case.z, case.tokens, **options)

    return jax.jit(run)


@pytest.mark.parametrize(("task", "architecture"), SCHEDULED)
def test_scheduled_sampling_with_probability_0_is_teacher_forcing(
    key: jax.Array, task: str, architecture: str
) -> None:
    case = model_cases.case(task, architecture)
    expected = case.logits(case.params, case.z, case.tokens)
    for a, b in zip(scheduled(task, architecture)(0.0, 1.0, key), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("task", ["drums_2bar", "trio_16bar"])
def test_scheduled_sampling_with_probability_1_is_free_running(key: jax.Array, task: str) -> None:
    case = model_cases.case(task, "flat")
    found = scheduled(task, "flat")(1.0, 0.0, key)
    greedy = case.greedy(case.params, case.z).reshape(model_cases.BATCH, case.task.num_steps, -1)
    for k, logits in enumerate(found):
        np.testing.assert_array_equal(logits.argmax(-1), greedy[..., k])


def test_scheduled_sampling_never_samples_the_first_input_of_a_bar(key: jax.Array) -> None:
    case = model_cases.case("trio_16bar", "hierdec")
    teacher = np.asarray(case.logits(case.params, case.z, case.tokens)[2])
    sampled = np.asarray(scheduled("trio_16bar", "hierdec")(1.0, 1.0, key)[2])
    bar_starts = np.arange(case.task.num_steps) % 16 == 0
    np.testing.assert_allclose(sampled[:, bar_starts], teacher[:, bar_starts], atol=1e-6)
    assert np.abs(sampled[:, ~bar_starts] - teacher[:, ~bar_starts]).max() > 1e-2


def test_scheduled_sampling_probability_counts_per_step(key: jax.Array) -> None:
    columns = (jnp.full((32, 200), 5),)
    case = model_cases.case("mel_2bar", "flat")
    module = decoders.CategoricalDecoder(((90,),), 4, (7, 5), REFERENCE)
    params = {"params": case.params["decoder"]["core"]}

    def fed(module: decoders.CategoricalDecoder, probability: float) -> Any:
        weights = module.weights()
        start = module.prepare(weights, jnp.zeros((200, 4)))
        sampling = decoders.Sampling(probability, key, 50.0)
        return module.feed_back(weights, start, columns, sampling)

    share = float((module.apply(params, 0.3, method=fed)[0][1:] != 5).mean())
    # A sample at temperature 50 is nearly uniform over 90 tokens.
    expected = 0.3 * 89 / 90
    assert abs(share - expected) < 5 * np.sqrt(0.3 * 0.7 / (200 * 31))


@pytest.mark.parametrize(("task", "architecture"), CASES)
def test_greedy_tokens_are_the_best_under_teacher_forcing(task: str, architecture: str) -> None:
    case = model_cases.case(task, architecture)
    tokens = case.greedy(case.params, case.z)
    assert tokens.shape == (model_cases.BATCH, *case.task.row_shape)
    assert tokens.dtype == jnp.int32
    logits = case.logits(case.params, case.z, tokens)
    best = jnp.stack([column.argmax(-1) for column in logits], axis=-1)
    np.testing.assert_array_equal(best.reshape(tokens.shape), tokens)


def test_no_gradient_through_a_sample(key: jax.Array) -> None:
    # At probability 1 and temperature 0 the fed tokens are the greedy ones: the gradient is
    # that of teacher forcing on them.
    case = model_cases.case("drums_2bar", "flat")
    greedy = case.greedy(case.params, case.z)

    def total(params: Any, tokens: jax.Array, **options: Any) -> jax.Array:
        return (case.model.logits(params, case.z, tokens, **options)[0] ** 2).sum()

    options = {"sampling_probability": 1.0, "temperature": 0.0, "key": key}
    sampled = jax.jit(jax.grad(lambda p: total(p, case.tokens, **options)))(case.params)
    forced = jax.jit(jax.grad(lambda p: total(p, greedy)))(case.params)
    for a, b in zip(jax.tree.leaves(sampled), jax.tree.leaves(forced), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_generation_depends_on_the_key_and_the_temperature(key: jax.Array) -> None:
    case = model_cases.case("mel_2bar", "flat")
    generate = jax.jit(case.model.generate)
    first, second = jax.random.split(key)
    warm = generate(case.params, case.z, first, 1.0)
    np.testing.assert_array_equal(warm, generate(case.params, case.z, first, 1.0))
    assert (warm != generate(case.params, case.z, second, 1.0)).any()
    cold = generate(case.params, case.z, first, 0.0)
    np.testing.assert_array_equal(cold, case.greedy(case.params, case.z))


def test_a_schedule_needs_a_key() -> None:
    case = model_cases.case("mel_2bar", "flat")
    with pytest.raises(ValueError, match="needs a random key"):
        case.model.logits(case.params, case.z, case.tokens, sampling_probability=0.5)


def test_dropped_inputs_are_empty(key: jax.Array) -> None:
    case = model_cases.case("trio_16bar", "hierdec")

    @jax.jit
    def logits(tokens: jax.Array, probability: float) -> Any:
        options = {"input_dropout": probability, "drop_key": key}
        return case.model.logits(case.params, case.z, tokens, **options)

    others = jnp.roll(case.tokens, 1, axis=1)
    expected = case.logits(case.params, case.z, case.tokens)
    for kept, true, blind, also_blind, some in zip(
        logits(case.tokens, 0.0),
        expected,
        logits(case.tokens, 1.0),
        logits(others, 1.0),
        logits(case.tokens, 0.5),
        strict=True,
    ):
        np.testing.assert_allclose(kept, true, atol=1e-6)
        np.testing.assert_array_equal(blind, also_blind)
        assert np.abs(some - true).max() > 0.01 < np.abs(some - blind).max()


def test_a_dropped_step_loses_all_its_columns(key: jax.Array) -> None:
    core = decoders.CategoricalDecoder(((5, 3), (4,)), 2, (3,), REFERENCE)
    columns = tuple(jnp.zeros((50, 4), jnp.int32) for _ in range(3))
    dropped = core.drop(columns, decoders.Dropout(0.3, key))
    gone = [np.asarray(column) == depth for column, depth in zip(dropped, (5, 3, 4), strict=True)]
    assert 30 < gone[0].sum() < 90  # of 200, 60 expected
    for column, where in zip(dropped, gone, strict=True):
        np.testing.assert_array_equal(where, gone[0])
        assert not np.asarray(column)[~where].any()

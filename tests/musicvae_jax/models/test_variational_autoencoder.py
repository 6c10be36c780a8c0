"""Whole models against the NumPy oracle, and their shapes at the published sizes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.models.registry import build_vae, compute_dtype
from musicvae_jax.models.variables import variables_from_params
from musicvae_jax.tasks import TASKS
from tests.support import model_cases, numpy_oracle
from tests.support.model_cases import CASES

# Published sizes of the other architecture of a task (spec: flat-mel_16bar, flat-trio_16bar).
FLAT_16BAR = {"architecture": "flat", "decoder_sizes": (2048, 2048, 2048)}


def oracle_inputs(case: model_cases.Case) -> tuple[dict[str, Any], list[int], np.ndarray]:
    variables = variables_from_params(case.params)
    exact = {name: np.asarray(array, np.float64) for name, array in variables.items()}
    depths = [track.num_classes for track in case.task.tracks]
    tokens = np.asarray(case.tokens, np.int64).reshape(model_cases.BATCH, -1, len(depths))
    return exact, depths, tokens


@pytest.mark.parametrize(("task", "architecture"), CASES)
def test_encoder_equals_the_oracle(task: str, architecture: str) -> None:
    case = model_cases.case(task, architecture)
    variables, depths, tokens = oracle_inputs(case)
    steps = case.task.num_steps
    lengths = np.array([steps, steps // 2, 1])
    per_bar = np.clip(lengths[:, None] - 16 * np.arange(steps // 16)[None, :], 0, 16)
    inputs = numpy_oracle.encoder_input(tokens, depths, case.task.tracks[0].encoder_roll)
    mu, sigma = numpy_oracle.encode(
        variables, inputs, (per_bar if architecture == "hier" else lengths).tolist()
    )
    posterior = case.encode(case.params, case.tokens, jnp.array(lengths))
    np.testing.assert_allclose(posterior.mu, mu, atol=1e-5)
    np.testing.assert_allclose(posterior.sigma, sigma, atol=1e-5)


@pytest.mark.parametrize(("task", "architecture"), CASES)
def test_decoder_equals_the_oracle(task: str, architecture: str) -> None:
    case = model_cases.case(task, architecture)
    variables, depths, tokens = oracle_inputs(case)
    is_flat = architecture == "flat"
    run = numpy_oracle.decode_flat if is_flat else numpy_oracle.decode_hierarchical
    z = np.asarray(case.z, np.float64)
    expected, _ = run(variables, z, depths, tokens, case.task.num_steps)
    logits = case.logits(case.params, case.z, case.tokens)
    assert [column.shape[2] for column in logits] == depths
    np.testing.assert_allclose(np.concatenate(logits, axis=2), expected, atol=1e-5)
    _, greedy = run(variables, z, depths, None, case.task.num_steps)
    found = case.greedy(case.params, case.z)
    np.testing.assert_array_equal(found, greedy.reshape(found.shape))


@pytest.mark.parametrize("task", ["mel_16bar", "trio_16bar"])
def test_conductor_equals_the_oracle(task: str) -> None:
    case = model_cases.case(task, "hierdec")
    variables, _, _ = oracle_inputs(case)
    assert case.model.conductor is not None
    expected = numpy_oracle.conductor(variables, np.asarray(case.z, np.float64), 16)
    np.testing.assert_allclose(case.model.conductor(case.params, case.z), expected, atol=1e-5)


def test_only_the_last_token_crosses_a_bar_line() -> None:
    case = model_cases.case("mel_16bar", "hierdec")
    base = np.asarray(case.logits(case.params, case.z, case.tokens)[0])
    inside = case.tokens.at[:, 17].add(1)
    changed = np.asarray(case.logits(case.params, case.z, inside)[0]) != base
    assert changed.any(axis=(0, 2)).nonzero()[0].tolist() == list(range(18, 32))
    last = case.tokens.at[:, 31].add(1)
    changed = np.asarray(case.logits(case.params, case.z, last)[0]) != base
    assert changed.any(axis=(0, 2)).nonzero()[0].tolist() == list(range(32, 48))


def test_tracks_of_a_hierarchical_trio_do_not_see_each_other() -> None:
    case = model_cases.case("trio_16bar", "hierdec")
    base = case.logits(case.params, case.z, case.tokens)
    other = case.tokens.at[:, 3, 1].add(1)
    changed = case.logits(case.params, case.z, other)
    for k, (a, b) in enumerate(zip(base, changed, strict=True)):
        assert bool((a != b).any()) == (k == 1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("architecture", ["published", "flat"])
def test_shapes_at_published_sizes(task: str, architecture: str) -> None:
    config = TASKS[task].config
    if architecture == "flat" and TASKS[task].num_bars == 16:
        config = config.replace(**FLAT_16BAR)
    model, batch = build_vae(config), 4
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(model.init, key)
    tokens = jax.ShapeDtypeStruct((batch, *TASKS[task].row_shape), TASKS[task].token_dtype)
    posterior = jax.eval_shape(model.encode, params, tokens)
    assert posterior.mu.shape == posterior.sigma.shape == (batch, config.model.z_size)
    logits = jax.eval_shape(model.logits, params, posterior.mu, tokens)
    steps = TASKS[task].num_steps
    expected = [(batch, steps, track.num_classes) for track in TASKS[task].tracks]
    assert [column.shape for column in logits] == expected
    assert {column.dtype for column in logits} == {jnp.dtype("float32")}
    generated = jax.eval_shape(model.generate, params, posterior.mu, key, 1.0)
    assert generated.shape == tokens.shape
    if model.conductor is not None:
        bars = jax.eval_shape(model.conductor, params, posterior.mu)
        assert bars.shape == (batch, 16, config.model.resolved_conductor_sizes[-1])


def test_initial_scales_of_the_reference(key: jax.Array) -> None:
    config = model_cases.tiny_config("mel_16bar", "hierdec").replace(
        init="reference", z_size=64, conductor_sizes=(32,), encoder_sizes=(32,), decoder_sizes=(32,)
    )
    variables = variables_from_params(jax.jit(build_vae(config).init)(key))
    touches_z = ("encoder/mu", "encoder/sigma", "z_to_initial_state", "level_0/initial_state")
    for name, array in variables.items():
        if name.endswith("bias"):
            assert not np.asarray(array).any(), name
            continue
        glorot = np.sqrt(2.0 / sum(array.shape))
        small = any(part in name for part in touches_z)
        expected = 0.001 if small else glorot
        # The standard deviation of n draws is within a few parts in sqrt(n).
        assert abs(np.asarray(array).std() / expected - 1) < 4 / np.sqrt(array.size), name
        if not small:
            assert np.abs(array).max() <= np.sqrt(3) * glorot, name


def test_a_reference_start_has_sigma_ln_2(key: jax.Array) -> None:
    case = model_cases.case("mel_2bar", "flat")
    model = build_vae(case.config.replace(init="reference"))
    posterior = case.encode(jax.jit(model.init)(key), case.tokens)
    np.testing.assert_allclose(posterior.sigma, np.log(2), atol=0.01)
    np.testing.assert_allclose(posterior.mu, 0, atol=0.01)


def test_bfloat16_is_near_float32() -> None:
    case = model_cases.case("mel_16bar", "hierdec")
    rounded = build_vae(case.config.replace(dtype="bfloat16"))
    logits = jax.jit(rounded.logits)(case.params, case.z, case.tokens)[0]
    exact = case.logits(case.params, case.z, case.tokens)[0]
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()


def test_auto_dtype_on_a_cpu_is_float32() -> None:
    assert compute_dtype("auto") == jnp.float32
    assert compute_dtype("bfloat16") == jnp.bfloat16


@pytest.mark.parametrize(
    ("field", "name", "known"),
    [("task", "mel_3bar", "mel_2bar"), ("architecture", "deep", "flat, hierdec")],
)
def test_an_unknown_name_is_refused(field: str, name: str, known: str) -> None:
    config = TASKS["mel_2bar"].config.replace(**{field: name})
    with pytest.raises(InputError, match=f"{field}: '{name}' is not one of {known}"):
        build_vae(config)

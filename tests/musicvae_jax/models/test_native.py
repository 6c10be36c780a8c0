"""The native LSTM kernel against the loops of `lstm.py`, and where it does not run."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.models import lstm, native
from musicvae_jax.models.native import uses_native
from musicvae_jax.models.registry import Forecaster, build_model
from musicvae_jax.tasks import get_task


@pytest.fixture(scope="module")
def kernel() -> None:
    """Compile the kernel; skip where it does not run, unless MUSICVAE_REQUIRE_NATIVE is set."""
    if not native.load():
        message = "no C++ compiler, or no x86-64 processor with AVX2"
        if os.environ.get("MUSICVAE_REQUIRE_NATIVE"):
            pytest.fail(message)
        pytest.skip(message)


def arguments(N: int, T: int, B: int, H: int, has_inputs: bool, per_example: bool) -> Any:
    # Drawn by NumPy: JAX would compile a draw of each shape.
    rng = np.random.default_rng(N * T * B * H)

    def draw(*shape: int, scale: float = 1.0) -> jax.Array:
        return jnp.asarray((scale * rng.normal(size=shape)).astype(np.float32))

    inputs = draw(N, T, B, 4 * H) if has_inputs else None
    constant = draw(N, B if per_example else 1, 4 * H)
    kernel = draw(N, H, 4 * H, scale=H**-0.5)
    c, h = draw(N, B, H), draw(N, B, H)
    return inputs, constant, kernel, lstm.State(c, h)


def assert_close(actual: Any, expected: Any) -> None:
    def close(a: jax.Array, b: jax.Array) -> None:
        scale = float(np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * scale)

    jax.tree.map(close, actual, expected)


def run(args: Any, T: int, keep_sequence: bool, use_native: bool) -> jax.Array:
    return lstm.recur(*args, num_steps=T, keep_sequence=keep_sequence, use_native=use_native)


# Row groups of 6 with every remainder, blocks of more than 96 rows, panels of 1 to 4 vectors.
SHAPES = [
    ((2, 6, 40, 64), False, True, False),
    ((1, 3, 5, 192), True, True, True),
    ((3, 5, 7, 80), True, False, True),
    ((1, 2, 211, 48), True, True, True),
    ((2, 3, 1, 16), True, True, False),
    ((2, 1, 5, 32), False, False, False),
    ((1, 4, 10, 112), False, True, True),
]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("shape", "keep_sequence", "has_inputs", "per_example"), SHAPES)
def test_equals_the_loops(
    shape: tuple[int, int, int, int], keep_sequence: bool, has_inputs: bool, per_example: bool
) -> None:
    N, T, B, H = shape
    args = arguments(N, T, B, H, has_inputs, per_example)
    shape_of_h = (N, T, B, H) if keep_sequence else (N, B, H)
    grad = np.random.default_rng(1).normal(size=shape_of_h).astype(np.float32)
    results = []
    for use_native in (False, True):

        def value_and_gradients(args: Any, use_native: bool = use_native) -> Any:
            value, pull = jax.vjp(lambda a: run(a, T, keep_sequence, use_native), args)
            return value, pull(grad)

        # Another program: no gradient is kept.
        alone = jax.jit(run, static_argnums=(1, 2, 3))(args, T, keep_sequence, use_native)
        stacked = jax.tree.map(lambda a: np.stack([a, 0.5 * np.asarray(a)]), args)
        results.append((alone, jax.jit(jax.vmap(value_and_gradients))(stacked)))
    assert_close(results[1], results[0])


@pytest.mark.usefixtures("kernel")
def test_saturated_gates_stay_finite_and_nan_stays_in_its_row() -> None:
    T, B = 3, 8
    inputs, constant, kernel, start = arguments(1, T, B, 32, True, True)
    inputs = inputs.at[0, 0, 0].set(1e4).at[0, 0, 1].set(-1e4).at[0, 1, 2, 5].set(jnp.nan)
    args = (inputs, constant, kernel, start)
    loops, kernel_h = (np.asarray(run(args, T, True, use)) for use in (False, True))
    assert np.isfinite(kernel_h[0, :, [0, 1]]).all()
    np.testing.assert_array_equal(np.isnan(kernel_h), np.isnan(loops))
    np.testing.assert_allclose(kernel_h, loops, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("kernel")
def test_other_platforms_get_the_loop() -> None:
    args = arguments(1, 3, 4, 32, True, True)
    exported = jax.export.export(jax.jit(lambda a: run(a, 3, True, True)), platforms=["cuda"])(args)
    assert native.FORWARD not in exported.mlir_module()
    here = jax.jit(lambda a: run(a, 3, True, True)).lower(args).as_text()
    assert native.FORWARD in here
    low = jax.jit(lambda a: lstm.recur(*a, num_steps=3, dtype=jnp.bfloat16, use_native=True))
    assert native.FORWARD not in jax.export.export(low, platforms=["cuda"])(args).mlir_module()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("architecture", ["lstm_forecaster", "lstm_attention"])
def test_forecasters_use_it(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    config = get_task("mel_2bar").config.replace(
        architecture=architecture, decoder_sizes=(32,), lstm_backend="native"
    )
    model = build_model(config)
    assert isinstance(model, Forecaster)
    params, tokens = model.init(jax.random.key(0)), jnp.zeros((2, 8), jnp.int32)
    assert native.FORWARD in jax.jit(model.next_logits).lower(params, tokens).as_text()


def test_without_a_compiler_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert native.load.__wrapped__() == 0
    monkeypatch.setattr(native, "load", lambda: 0)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    config = get_task("mel_2bar").config
    assert not uses_native(config)
    with pytest.raises(InputError, match="lstm_backend: native needs a C"):
        build_model(config.replace(lstm_backend="native"))


def test_a_compiler_that_fails_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    assert native.load.__wrapped__() == 0
    assert not list((tmp_path / "cache").iterdir())


def test_several_devices_do_not_share_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: 16)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    config = get_task("mel_2bar").config
    assert not uses_native(config)
    with pytest.raises(InputError, match="native runs on one CPU device"):
        uses_native(config.replace(lstm_backend="native"))


@pytest.mark.usefixtures("kernel")
def test_the_vector_length_is_known_without_compiling() -> None:
    assert native.lanes() == native.load()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("keep_sequence", [True, False])
def test_bfloat16_rounds_what_is_multiplied_and_nothing_else(keep_sequence: bool) -> None:
    # One step, so that both sides round equal numbers.
    inputs, constant, kernel, start = arguments(2, 1, 7, 48, True, True)
    plain = (
        inputs,
        constant,
        jnp.asarray(rounded(kernel)),
        lstm.State(start.c, jnp.asarray(rounded(start.h))),
    )
    grad = jax.random.normal(jax.random.key(1), (2, 1, 7, 48) if keep_sequence else (2, 7, 48))

    def value_and_gradients(args: Any, dtype: str) -> Any:
        def recur(args: Any) -> jax.Array:
            return lstm.recur(
                *args, num_steps=1, dtype=dtype, keep_sequence=keep_sequence, use_native=True
            )

        value, pull = jax.vjp(recur, args)
        return value, pull(grad)[0]

    h, (dinputs, dconstant, dkernel, dstart) = value_and_gradients(
        (inputs, constant, kernel, start), "bfloat16"
    )
    expected, (dinputs_32, dconstant_32, _, dstart_32) = value_and_gradients(plain, "float32")
    np.testing.assert_array_equal(h, rounded(expected))
    np.testing.assert_array_equal(dinputs, rounded(dinputs_32))
    np.testing.assert_array_equal(dconstant, dconstant_32)
    np.testing.assert_array_equal(dstart.c, dstart_32.c)
    dgates, weights = np.asarray(dinputs)[:, 0], np.asarray(plain[2])
    assert_close(dstart.h, np.einsum("nbg,nhg->nbh", dgates, weights))
    assert_close(dkernel, np.einsum("nbh,nbg->nhg", np.asarray(plain[3].h), dgates))


def rounded(x: jax.Array) -> np.ndarray:
    """Round by NumPy's bfloat16."""
    return np.asarray(x).astype(jnp.bfloat16).astype(np.float32)


@pytest.mark.usefixtures("kernel")
def test_bfloat16_equals_the_loop_of_another_platform_but_for_rounding() -> None:
    T, B = 6, 9
    args = arguments(2, T, B, 32, True, True)

    def value_and_gradients(use_native: bool) -> Any:
        def recur(args: Any) -> jax.Array:
            h = lstm.recur(*args, num_steps=T, dtype=jnp.bfloat16, use_native=use_native)
            return h.astype(jnp.float32)

        value, pull = jax.vjp(recur, args)
        return value, pull(jnp.ones((2, T, B, 32)))

    def close(a: jax.Array, b: jax.Array) -> None:
        np.testing.assert_allclose(a, b, atol=0.03 * float(np.abs(b).max()))

    jax.tree.map(close, value_and_gradients(True), value_and_gradients(False))


@pytest.mark.parametrize("fast", [True, False])
def test_auto_leaves_bfloat16_to_processors_that_multiply_it_fast(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "load", lambda: 16)
    monkeypatch.setattr(native, "multiplies_bfloat16_fast", lambda: fast)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    config = get_task("mel_2bar").config.replace(dtype="bfloat16")
    assert uses_native(config) != fast
    assert uses_native(config.replace(lstm_backend="native"))

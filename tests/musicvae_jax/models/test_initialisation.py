"""How parameters are drawn: sizes that were worked out, and what the reference leaves as it is."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.models import initialisation
from musicvae_jax.models.hierarchical import Conductor
from musicvae_jax.models.registry import build_model
from musicvae_jax.tasks import TASKS, get_task
from musicvae_jax.training import step
from musicvae_jax.training.state import TrainState, init_state
from tests.support.synthetic_store import random_rows

SIZES = {"encoder_sizes": (64,), "decoder_sizes": (64,), "z_size": 32, "dtype": "float32"}


def drawn(task: str, architecture: str, init: str) -> tuple[Any, Any]:
    """Return a model and its first parameters."""
    config = get_task(task).config.replace(architecture=architecture, init=init, **SIZES)
    model = build_model(config)
    return model, jax.jit(model.init)(jax.random.key(3))


def test_default_spreads_mu_and_lets_z_move_the_logits() -> None:
    spreads = {}
    tokens = jax.random.randint(jax.random.key(0), (64, 32), 0, 90)
    for init in ("reference", "default"):
        model, params = drawn("mel_2bar", "flat", init)
        posterior = jax.jit(model.encode)(params, tokens)
        logits = jax.jit(model.logits)(params, posterior.mu, tokens[:1].repeat(64, axis=0))[0]
        spreads[init] = (
            float(posterior.mu.std(axis=0).mean()),
            float(posterior.sigma.mean()),
            float(logits.std(axis=0).mean()),
        )
    mu, sigma, moved = spreads["default"]
    assert 0.4 < mu < 2.5
    assert sigma == pytest.approx(math.log1p(math.exp(-1.0)), rel=0.2)
    assert sigma < mu
    assert moved > 100 * spreads["reference"][2]
    assert spreads["reference"][0] < 0.01


def test_rows_for_the_context_have_their_own_size_and_the_rest_is_glorots() -> None:
    kernel = initialisation.DEFAULT.context_kernel(90, 32)(jax.random.key(0), (186, 256))
    assert kernel.shape == (186, 256)
    own = initialisation.DEFAULT.context_gain / math.sqrt(32)
    assert float(kernel[90:122].std()) == pytest.approx(own, rel=0.03)
    limit = math.sqrt(6 / (186 + 256))
    rest = np.concatenate([kernel[:90], kernel[122:]])
    assert np.abs(rest).max() <= limit < float(jnp.abs(kernel[90:122]).max())


@pytest.mark.parametrize(("T", "share"), [(16, 0.0), (32, 0.0), (64, 0.75), (256, 63 / 64)])
def test_cells_remember_up_to_the_length_and_take_in_less_beyond_two_bars(
    T: int, share: float
) -> None:
    H = 50
    bias = np.asarray(initialisation.DEFAULT.cell_bias(T)(jax.random.key(0), (4 * H,)))
    inputs, candidates, forget, outputs = bias.reshape(4, H)
    np.testing.assert_allclose(inputs, -share * forget, rtol=1e-6)
    assert not candidates.any()
    assert not outputs.any()
    # A gate that stays at s loses a share e of what it holds in about 1 / (1 - s) steps.
    kept = 1.0 / (1.0 + np.exp(-(forget + 1.0)))
    steps = 1.0 / (1.0 - kept)
    assert steps.min() > 1.0 / (1.0 - 1.0 / (1.0 + math.exp(-1.0))) - 1e-3
    assert 0.7 * T < steps.max() < T + 1


@pytest.mark.parametrize(
    ("num_tokens", "units", "share", "of_states"),
    [
        (256, 32, 1.0, 1.0),
        (256, 64, 1.0, 1.0),
        (256, 256, 0.5, 0.5),
        (32, 128, 1.0, 1.0),
        (32, 512, 0.5, math.sqrt(0.5)),
    ],
)
def test_gains_fall_with_the_square_root_of_the_units(
    key: jax.Array, num_tokens: int, units: int, share: float, of_states: float
) -> None:
    default, Z = initialisation.of_rows("default", num_tokens), 400
    mu = default.mu(key, (2 * units, Z))
    state = default.state(key, (Z, 2 * units))
    context = default.context_kernel(3, Z)(key, (3 + Z + units, 4 * units))[3 : 3 + Z]
    assert float(jnp.std(mu)) * math.sqrt(2 * units) == pytest.approx(6.0 * share, rel=0.03)
    assert float(jnp.std(state)) * math.sqrt(Z) == pytest.approx(2.0 * of_states, rel=0.03)
    assert float(jnp.std(context)) * math.sqrt(Z) == pytest.approx(1.5 * share, rel=0.03)


def test_schemes_are_kept_and_the_references_is_the_same_for_all_rows() -> None:
    of_rows = initialisation.of_rows
    assert of_rows("default", 32) is of_rows("default", 32)  # equal models share programs
    assert of_rows("default", 256) != of_rows("default", 32)
    assert of_rows("reference", 32) == of_rows("reference", 768) == initialisation.REFERENCE


@pytest.mark.parametrize(("num_tokens", "gain"), [(32, 6.0), (256, 6.0), (1024, 3.0)])
def test_the_gain_of_mu_falls_with_the_square_root_of_the_tokens_beyond_256(
    key: jax.Array, num_tokens: int, gain: float
) -> None:
    mu = initialisation.of_rows("default", num_tokens).mu(key, (128, 400))
    assert float(jnp.std(mu)) * math.sqrt(128) == pytest.approx(gain, rel=0.03)


@pytest.mark.parametrize("units", [64, 256])
def test_the_decoder_of_a_bar_takes_in_as_much_as_one_that_reads_z(
    key: jax.Array, units: int
) -> None:
    default = initialisation.DEFAULT
    conductor = Conductor(64, (units, units), default, num_bars=16)
    z = jax.random.normal(key, (64, 64))
    embeddings = np.asarray(conductor.apply(conductor.init(key, z), z)).reshape(-1, units)
    assert np.abs(embeddings.mean(axis=0)).max() < 0.1  # z decides, not the bar
    of_bars = initialisation.of_bars(default, 256, units)
    for initial, context in ((of_bars, embeddings), (default, np.asarray(z))):
        size = context.shape[1]
        rows = initial.context_kernel(0, size)(key, (size + units, 4 * units))[:size]
        states = context @ initial.state(key, (size, 4 * units))
        share = math.sqrt(64 / units)
        assert np.std(context @ rows) == pytest.approx(1.5 * share, rel=0.2)
        assert np.std(states) == pytest.approx(2.0 * share / math.sqrt(2), rel=0.2)  # two layers


def test_the_gain_of_a_bars_embedding_falls_with_the_tokens_beyond_256() -> None:
    default, reference = initialisation.DEFAULT, initialisation.REFERENCE
    one, three = (initialisation.of_bars(default, tokens, 256) for tokens in (256, 768))
    assert one.context_gain == pytest.approx(7.5)
    assert three.context_gain == pytest.approx(2.5)
    assert initialisation.of_bars(default, 256, 256) == one  # equal models share programs
    assert initialisation.of_bars(reference, 768, 64) == reference


def trained(task: str, units: int, num_steps: int) -> tuple[TrainState, list[step.Metrics]]:
    """Train a default start on one small batch: the last state, and each step's metrics."""
    config = get_task(task).config.replace(
        encoder_sizes=(units,), decoder_sizes=(units,), z_size=units, dtype="float32"
    )
    model = build_model(config)
    batch = step.Batch(jnp.asarray(random_rows(np.random.default_rng(0), TASKS[task], 4)))
    state = jax.jit(functools.partial(init_state, model, config))()
    train_step, found = jax.jit(step.make_train_step(model, config)), []
    for _ in range(num_steps):
        state, measured = train_step(state, batch)
        found.append(jax.device_get(measured))
    return state, found


@pytest.mark.parametrize(
    ("task", "units"), [("mel_2bar", 128), ("drums_2bar", 256), ("mel_2bar", 512)]
)
def test_the_first_gradient_is_a_tenth_of_the_threshold_at_most(task: str, units: int) -> None:
    _, (measured,) = trained(task, units, 1)
    threshold = get_task(task).config.train.grad_norm_clip_to_zero
    assert measured["gradient_norm"] < threshold / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "units"), [("mel_16bar", 256), ("drums_16bar", 128), ("trio_16bar", 128)]
)
def test_sixteen_bars_train_from_the_first_step(task: str, units: int) -> None:
    state, found = trained(task, units, 24)
    threshold = get_task(task).config.train.grad_norm_clip_to_zero
    # These rows repeat a few values. Their norms are up to twice those of real rows, which are
    # below a tenth (`experiments/benchmarks/gradient_norms.txt`).
    assert found[0]["gradient_norm"] < threshold / 5
    assert (int(state.zeroed), int(state.skipped)) == (0, 0)
    assert found[-1]["loss"] < 0.9 * found[0]["loss"]


def test_the_references_start_has_no_bias_and_deviations_of_a_thousandth() -> None:
    _, params = drawn("mel_16bar", "hierdec", "reference")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if name.endswith("['bias']"):
            np.testing.assert_array_equal(leaf, 0.0)
        elif "cell" not in name and "output_projection" not in name:
            assert float(leaf.std()) == pytest.approx(1e-3, rel=0.1), name

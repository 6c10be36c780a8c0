"""How parameters are drawn: sizes that were worked out, and what the reference leaves as it is."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.models import initialisation
from musicvae_jax.models.registry import build_model
from musicvae_jax.tasks import get_task

SIZES = {"encoder_sizes": (64,), "decoder_sizes": (64,), "z_size": 32, "dtype": "float32"}


def drawn(task: str, architecture: str, init: str) -> tuple[Any, Any]:
    """Return a model and its first parameters."""
    config = get_task(task).config.replace(architecture=architecture, init=init, **SIZES)
    model = build_model(config)
    return model, model.init(jax.random.key(3))


def test_default_spreads_mu_like_the_prior_and_lets_z_move_the_logits() -> None:
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


def test_forget_gates_of_the_default_keep_up_to_the_length_of_the_sequence() -> None:
    H, T = 50, 256
    bias = np.asarray(initialisation.DEFAULT.cell_bias(T)(jax.random.key(0), (4 * H,)))
    others = np.delete(bias, np.s_[2 * H : 3 * H])
    np.testing.assert_array_equal(others, 0.0)
    # A gate that stays at s loses a share e of what it holds in about 1 / (1 - s) steps.
    kept = 1.0 / (1.0 + np.exp(-(bias[2 * H : 3 * H] + 1.0)))
    steps = 1.0 / (1.0 - kept)
    assert steps.min() > 1.0 / (1.0 - 1.0 / (1.0 + math.exp(-1.0))) - 1e-3
    assert 0.7 * T < steps.max() < T + 1


def test_the_references_start_has_no_bias_and_deviations_of_a_thousandth() -> None:
    _, params = drawn("mel_16bar", "hierdec", "reference")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if name.endswith("['bias']"):
            np.testing.assert_array_equal(leaf, 0.0)
        elif "cell" not in name and "output_projection" not in name:
            assert float(leaf.std()) == pytest.approx(1e-3, rel=0.1), name

"""Layers computed again in the backward pass: the same step in less memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.models.registry import build_model
from musicvae_jax.tasks import get_task
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import Batch, make_train_step

SIZES = {"encoder_sizes": (16, 16), "decoder_sizes": (16, 16), "z_size": 8, "batch_size": 16}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "architecture"), [("mel_2bar", "flat"), ("mel_16bar", "hierdec")])
def test_remat_changes_memory_and_no_number(task: str, architecture: str) -> None:
    results: dict[bool, Any] = {}
    memory = {}
    for remat in (False, True):
        config = get_task(task).config.replace(
            architecture=architecture, remat=remat, dtype="float32", **SIZES
        )
        config = config.replace(sampling_schedule="constant", sampling_rate=0.0, transpose=0)
        model = build_model(config)
        state = init_state(model, config)
        tokens = jax.random.randint(jax.random.key(0), (16, get_task(task).num_steps), 0, 90)
        batch = Batch(tokens, jnp.ones((16, 8)))
        step = jax.jit(make_train_step(model, config)).lower(state, batch).compile()
        sizes: Any = step.memory_analysis()
        memory[remat] = sizes.temp_size_in_bytes
        after, measured = step(state, batch)
        results[remat] = (after.optimiser, measured)
    for plain, again in zip(*(jax.tree.leaves(results[r]) for r in (False, True)), strict=True):
        np.testing.assert_allclose(plain, again, rtol=1e-4, atol=1e-6)
    assert memory[True] < 0.8 * memory[False]

from __future__ import annotations

import jax
import numpy as np

from experiments.benchmarks import train_step
from musicvae_jax.models.registry import build_vae
from musicvae_jax.tasks import get_task


def test_a_call_makes_the_steps_of_a_dispatch_of_train() -> None:
    sizes = {"z_size": 4, "encoder_sizes": (8,), "decoder_sizes": (8,), "batch_size": 4}
    config = get_task("mel_2bar").config.replace(**sizes, steps_per_dispatch=3)
    model, batch = build_vae(config), train_step.random_batch(config)
    ours = train_step.OurSteps(model, config, batch)
    start = jax.tree.map(np.copy, ours.params)
    ours()
    ours()
    assert ours.steps == 3
    assert int(ours.state.step) == 6
    jax.tree.map(np.testing.assert_array_equal, ours.params, start)  # the state is donated
    assert not all(
        jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(ours.state.params), start))
    )

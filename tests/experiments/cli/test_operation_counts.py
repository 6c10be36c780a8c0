"""Counts of operations and parameters, by hand and against the reference's parameter counts."""

from __future__ import annotations

import pytest

from experiments.cli import operation_counts
from musicvae_jax.config import Config
from musicvae_jax.tasks import TASKS

# Trainable parameters of the reference's published configurations.
PUBLISHED = {
    "mel_2bar_small": 4423770,
    "mel_2bar_big": 134571098,
    "drums_2bar_small": 4636672,
    "drums_2bar_big": 137582080,
    "mel_16bar_flat": 235250778,
    "mel_16bar_hierdec": 176061530,
    "trio_16bar_flat": 251279028,
    "trio_16bar_hierdec": 230975156,
    "mel_16bar_hier": 72547418,
    "trio_16bar_hier": 122529460,
}


@pytest.fixture(scope="module")
def published() -> dict[str, Config]:
    return operation_counts.published()


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_references(name: str, published: dict[str, Config]) -> None:
    assert operation_counts.count(published[name]).parameters == PUBLISHED[name]


def test_a_small_model_by_hand() -> None:
    config = TASKS["mel_2bar"].config.replace(
        z_size=3, encoder_sizes=(2,), decoder_sizes=(5,), batch_size=4
    )
    c = operation_counts.count(config)
    encoder = 2 * 32 * 2 * (2 * 8)  # two directions, 32 steps, [2] x [2, 8]
    latent = 2 * 2 * 4 * 3  # mu and sigma, [4] x [4, 3]
    start = 2 * 3 * 10 + 2 * 3 * 20  # initial state, and z's part of the gates
    decoder = 32 * 2 * (5 * 20) + 32 * 2 * (5 * 90)
    assert c.forward == encoder + latent + start + decoder
    assert c.decoding == start + decoder
    assert c.units == 2 * 32 * 2 + 32 * 5
    assert c.logits == 32 * 90
    assert c.operations == 3 * c.forward
    # One-hot tokens are 90 wide in both layers, and z, 3 wide, is multiplied at all 32 steps.
    encoder_inputs = 2 * 32 * 2 * (90 * 8)
    decoder_inputs = 32 * 2 * ((90 + 3) * 20) - 2 * 3 * 20
    assert c.plain_forward == c.forward + encoder_inputs + decoder_inputs
    assert c.plain_operations == 3 * c.plain_forward


def test_the_floor_is_the_larger_of_both_times() -> None:
    c = operation_counts.Counts(
        forward=10**12,
        plain_forward=10**12,
        decoding=0,
        parameters=0,
        units=0,
        logits=25 * 10**10,
        batch_size=1,
    )
    assert c.floor_seconds(tflops=3.0, terabytes_per_second=1.0) == pytest.approx(1.0)
    assert c.floor_seconds(tflops=3.0, terabytes_per_second=0.1) == pytest.approx(10.0)

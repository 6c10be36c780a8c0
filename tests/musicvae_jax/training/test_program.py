"""Trainings and models with equal settings share what JAX compiles."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from musicvae_jax import data, evaluation
from musicvae_jax.config import Config
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import build_model
from musicvae_jax.tasks import get_task
from musicvae_jax.training import loop
from tests.support.listener import Listener
from tests.support.synthetic_store import write_store

# What a second use of a model must not compile again.
LARGE = ("run_steps", "eval_step", "init", "encode", "generate", "_teacher_forced", "_decoded")


@dataclasses.dataclass
class Compilations:
    """Counts the programs that JAX compiles, by the name of their function."""

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def count(self, event: str, duration_secs: float, **labels: str | int) -> None:
        del duration_secs
        if event.endswith("backend_compile_duration"):
            name = str(labels.get("fun_name")).removeprefix("jit(").removesuffix(")")
            if name in LARGE:
                self.counts[name] += 1

    def taken(self) -> dict[str, int]:
        found, self.counts = dict(self.counts), collections.Counter()
        return found


@pytest.fixture
def compilations() -> Iterator[Compilations]:
    counted = Compilations()
    jax.monitoring.register_event_duration_secs_listener(counted.count)
    yield counted
    jax.monitoring.unregister_event_duration_listener(counted.count)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> data.Store:
    return data.open_store(write_store(tmp_path_factory.mktemp("data") / "store", "mel_2bar"))


def config_of(z_size: int) -> Config:
    """Return a configuration of sizes that no other test has, so nothing is compiled before."""
    return get_task("mel_2bar").config.replace(
        encoder_sizes=(11,), decoder_sizes=(13,), z_size=z_size, batch_size=8, train_steps=4,
        log_every=2, eval_every=2, save_every=2, steps_per_dispatch=2,
    )  # fmt: skip


@pytest.mark.slow
def test_a_second_training_compiles_nothing_and_draws_from_its_own_seed(
    store: data.Store, tmp_path: pathlib.Path, compilations: Compilations
) -> None:
    config = config_of(5)
    first = loop.fit(config, store, str(tmp_path / "first"), Listener())
    assert compilations.taken() == {"init": 1, "run_steps": 1, "eval_step": 1}
    other = config.replace(seed=1, train_steps=6)
    second = loop.fit(other, store, str(tmp_path / "second"), Listener())
    assert compilations.taken() == {}
    kernels = [jax.tree.leaves(outcome.state.params)[0] for outcome in (first, second)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0


@pytest.mark.slow
def test_a_setting_that_changes_the_steps_compiles_them_again(
    store: data.Store, tmp_path: pathlib.Path, compilations: Compilations
) -> None:
    config = config_of(6)
    loop.fit(config, store, str(tmp_path / "first"), Listener())
    compilations.taken()
    values = config.replace(clip_mode="value")
    loop.fit(values, store, str(tmp_path / "second"), Listener())
    assert compilations.taken()["run_steps"] == 1


@pytest.mark.slow
def test_two_checkpoints_share_the_compiled_functions(
    store: data.Store, compilations: Compilations
) -> None:
    config, rows = config_of(7), np.asarray(store.splits["test"])
    scores, samples = [], []
    for seed in (0, 1):
        vae = MusicVAE(config, build_model(config).init(jax.random.key(seed)))
        samples.append(vae.sample(2, key=0, temperature=1.0))
        scores.append(evaluation.evaluate(config, vae.params, rows, draws=2))
        found = compilations.taken()
        assert set(found) == ({"generate", "_teacher_forced", "_decoded"} if seed == 0 else set())
    assert np.any(samples[0] != samples[1])
    assert scores[0].elbo_nats != scores[1].elbo_nats

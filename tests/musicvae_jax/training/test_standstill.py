"""Runs whose steps change no parameter end, and say why."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from musicvae_jax import data
from musicvae_jax.config import Config
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import get_task
from musicvae_jax.training import loop
from musicvae_jax.training.standstill import Standstill
from tests.support.commands import run_here
from tests.support.listener import Listener
from tests.support.synthetic_store import write_store

SMALL = {"encoder_sizes": (8,), "decoder_sizes": (8,), "z_size": 4, "batch_size": 8}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> data.Store:
    counts = {"train": 40, "validation": 12, "test": 0}
    return data.open_store(write_store(tmp_path_factory.mktemp("data") / "s", "mel_2bar", counts))


@pytest.fixture(scope="module")
def config() -> Config:
    return get_task("mel_2bar").config.replace(
        **SMALL,
        sampling_schedule="constant",
        sampling_rate=0.0,
        dtype="float32",
        warmup_steps=0,
        train_steps=60,
        log_every=10,
        eval_every=15,
        save_every=20,
        stop_after_skipped=25,
    )


def _fed(config: Config, *parts: tuple[list[int], list[int]]) -> Standstill:
    found = Standstill(config, zeroed=3, skipped=1)
    for zeroed, skipped in parts:
        norms = np.full(len(zeroed), 82_298.0)
        counts = {"zeroed": np.array(zeroed), "skipped": np.array(skipped)}
        found.add(counts | {"gradient_norm": norms})
    return found


def test_steps_in_a_row_are_counted_across_calls(config: Config) -> None:
    # Counters so far: 3 zeroed and 1 skipped; a step that was used leaves both as they are.
    assert _fed(config, ([3], [1])).steps == 0
    assert _fed(config, ([4], [1])).steps == 1
    assert _fed(config, ([4, 4, 5, 5], [1, 1, 1, 2])).steps == 2
    assert _fed(config, ([4, 4, 5, 5], [1, 1, 1, 2]), ([6, 6], [2, 3])).steps == 4
    assert _fed(config, ([4, 5], [1, 1]), ([5, 6], [1, 1])).steps == 1


def test_the_cause_is_that_of_the_last_step(config: Config) -> None:
    config = config.replace(stop_after_skipped=2, learning_rate=1e9)
    zeroed, skipped = _fed(config, ([4, 5], [1, 1])), _fed(config, ([3, 3], [2, 3]))
    assert "gradient norm 82,298, and norms from grad_norm_clip_to_zero (10,000)" in zeroed.cause(9)
    assert "not finite; the learning rate (1e+09)" in skipped.cause(9)
    assert (zeroed.last_is_finite, skipped.last_is_finite) == (True, False)
    assert not _fed(config, ([4], [1])).cause(9)
    assert not _fed(config.replace(stop_after_skipped=0), ([4, 5], [1, 1])).cause(60)


def test_after_the_last_step_of_a_short_run_half_of_its_steps_are_enough(config: Config) -> None:
    config = config.replace(stop_after_skipped=100, train_steps=4)
    assert _fed(config, ([4, 5], [1, 1])).cause(4)
    assert not _fed(config, ([4, 5], [1, 1])).cause(3)
    assert not _fed(config, ([3, 4], [1, 1])).cause(4)


@pytest.mark.slow
def test_a_run_whose_gradients_are_zeroed_ends(
    config: Config, store: data.Store, tmp_path: pathlib.Path
) -> None:
    config, heard = config.replace(grad_norm_clip_to_zero=1e-6), Listener()
    outcome = loop.fit(config, store, str(tmp_path), heard)
    assert 25 <= outcome.step < 60
    assert not outcome.stopped
    assert outcome.cause.startswith("the last 30 steps changed no parameter: gradient norm ")
    assert heard.records[-1]["step"] == outcome.step == 30


def test_a_run_that_diverges_is_never_called_best(
    config: Config, store: data.Store, tmp_path: pathlib.Path
) -> None:
    heard = Listener()
    outcome = loop.fit(config.replace(learning_rate=1e9), store, str(tmp_path), heard)
    assert "not finite" in outcome.cause
    assert [found["step"] for found in heard.validations] == [15]
    assert heard.saves == []
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step() is None


def test_the_command_ends_with_one_line_and_exit_code_3(
    store: data.Store, tmp_path: pathlib.Path
) -> None:
    sizes = ["--encoder_sizes=8", "--decoder_sizes=8", "--z_size=4", "--batch_size=8"]
    limits = ["--train_steps=200", "--log_every=50", "--learning_rate=1e9"]
    where = [f"--data_dir={store.path}", f"--run_dir={tmp_path / 'run'}"]
    done = run_here("experiments.train", *where, *sizes, *limits)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ended after step 1")
    assert "the learning rate (1e+09) is probably too high" in line
    assert "next:" not in done.stdout

"""Models without a latent space in the studio: they sample and continue, and refuse the rest."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from experiments.studio.actions import ACTIONS
from experiments.studio.errors import RefusedError
from experiments.studio.fields import Fields
from experiments.studio.models import warm_up
from experiments.studio.models.forecasters import ForecasterModel
from experiments.studio.models.loading import load
from experiments.studio.models.worker import Worker
from experiments.studio.rows import Given
from musicvae_jax.models.registry import Forecaster, build_model
from musicvae_jax.tasks import get_task
from tests.support.model_cases import random_params
from tests.support.studio_client import tokens_of
from tests.support.untrained_run import make_run

ROW = [41, 0, 43, 0, 45, 0, 46, 0, 48, 0]  # ends inside the first bar
SETTINGS = {"temperature": 0.7, "seed": 3}


@functools.cache
def forecaster() -> tuple[ForecasterModel, Forecaster]:
    """Make a tiny untrained model, as the studio has it and as the library has it."""
    sizes: dict[str, Any] = {"decoder_sizes": (8,), "dtype": "float32"}
    config = get_task("mel_2bar").config.replace(architecture="lstm_forecaster", **sizes)
    model = build_model(config)
    assert isinstance(model, Forecaster)
    params = random_params(model, np.random.default_rng(0))
    return ForecasterModel("ahead", config, params, model, Worker()), model


def ask(action: str, **fields: Any) -> Any:
    content = {"model": "ahead", **SETTINGS, **fields}
    parsed = Fields.parse(json.dumps(content).encode())
    parsed.take("model")
    return ACTIONS[action](forecaster()[0], parsed)


def expected(seed: np.ndarray, num: int, num_steps: int) -> np.ndarray:
    """Continue with the library, as many at once as the studio fills its batch up to."""
    played, model = forecaster()
    seeds = np.tile(seed, (4, 1)).astype(np.int32)
    run = jax.jit(model.continuation, static_argnums=2)
    return np.asarray(run(played.params, seeds, num_steps, jax.random.key(3), 0.7))[:num]


def test_a_continuation_is_that_of_the_library_after_whole_bars() -> None:
    settings = {"bars": 3, "drift": 0.3, "num": 2}
    made = ask("continue", row={"tokens": ROW}, **settings)["rows"]
    bar = np.array(ROW + [0] * (16 - len(ROW)))
    np.testing.assert_array_equal(tokens_of(made), expected(bar, 2, 256)[:, :48])
    longer = ask("continue", row={"tokens": [*ROW, *[0] * 8]}, **settings)["rows"]
    assert len(longer[0]["tokens"]) == 48


def test_samples_are_written_from_nothing() -> None:
    made = ask("sample", num=3)["rows"]
    np.testing.assert_array_equal(tokens_of(made), expected(np.zeros(0), 3, 32))
    assert all("z" not in row for row in made)


@pytest.mark.parametrize("action", ["reconstruct", "palette", "shape", "variations", "map"])
def test_what_needs_a_latent_space_is_refused_in_one_line(action: str) -> None:
    message = "^model: ahead has no latent space; it can only sample and continue$"
    with pytest.raises(RefusedError, match=message):
        ask(action)


def test_a_point_is_refused() -> None:
    settings = {"bars": 1, "drift": 0, "num": 1}
    with pytest.raises(RefusedError, match=r"^row\.z: this model has no latent space$"):
        ask("continue", row={"z": "AAAA"}, **settings)
    with pytest.raises(RefusedError, match=r"^row\.tokens: ahead has no latent space"):
        forecaster()[0].continuation(Given(None, 32, None), 1, 0.0, 1, jax.random.key(0), 0.0)


def test_the_usual_requests_need_no_program_that_was_not_compiled() -> None:
    model, _ = forecaster()
    for step in warm_up.programs(model):
        step()
    run: Any = model._run
    compiled = run._cache_size()
    for temperature in (0, 1):
        ask("sample", num=1, temperature=temperature)
        ask("sample", num=4, temperature=temperature)
        settings = {"bars": 16, "drift": 0.3, "num": 4, "temperature": temperature}
        ask("continue", row={"tokens": [0] * 32}, **settings)
    assert run._cache_size() == compiled


def test_a_run_of_a_forecaster_is_served(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "drums_2bar", architecture="lstm_forecaster")
    (model,) = load((), (run,), Worker())
    about = model.describe()
    assert about["can"] == ["sample", "continue"]
    assert (about["z_size"], about["prior"]) == (0, None)
    assert not any(attribute["can_change"] for attribute in about["attributes"])
    assert len(about["tracks"][0]["lines"]) == 9

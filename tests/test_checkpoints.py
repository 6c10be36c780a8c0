from __future__ import annotations

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import checkpoints
from musicvae_jax.checkpoints import Checkpoints
from musicvae_jax.config import InputError
from musicvae_jax.tasks import get_task

CONFIG = get_task("mel_2bar").config.replace(seed=3, encoder_sizes=(8, 8))


def _params(step: int) -> dict[str, dict[str, jax.Array]]:
    return {"cell": {"kernel": jnp.full((2, 3), step / 3, jnp.float32)}}


def _save(run_dir: pathlib.Path, losses: dict[int, float]) -> None:
    with Checkpoints(run_dir, create=True) as saved:
        for step, loss in losses.items():
            state = {"step": jnp.int32(step), "moments": (jnp.arange(step), jnp.zeros(2))}
            saved.save(step, _params(step), state, CONFIG, loss)


def test_the_best_and_the_latest_are_kept(tmp_path: pathlib.Path) -> None:
    _save(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0, 4: math.inf, 5: math.nan})
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["2", "5"]
    for which, step in (("best", 2), ("latest", 5), (None, 5), ("2", 2), (5, 5)):
        config, params, found = checkpoints.restore_params(tmp_path, which)
        assert (config, found) == (CONFIG, step)
        np.testing.assert_array_equal(params["cell"]["kernel"], _params(step)["cell"]["kernel"])


def test_without_validation_the_latest_is_the_best(tmp_path: pathlib.Path) -> None:
    _save(tmp_path, {1: math.inf, 2: math.inf})
    assert checkpoints.restore_params(tmp_path, "best")[2] == 2


def test_training_state_comes_back_bit_for_bit(tmp_path: pathlib.Path) -> None:
    _save(tmp_path, {4: 1.0})
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state = {"step": jnp.int32(4), "moments": (jnp.arange(4), jnp.zeros(2))}
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        (_params(4), state),
    )
    with Checkpoints(tmp_path) as saved:
        assert saved.latest_step() == saved.best_step() == 4
        found = saved.restore(4, *wanted)
    jax.tree.map(np.testing.assert_array_equal, found, (_params(4), state))


def test_a_saved_step_is_left_as_it_is(tmp_path: pathlib.Path) -> None:
    _save(tmp_path, {1: 1.0})
    before = (tmp_path / "checkpoints" / "1").stat().st_mtime_ns
    _save(tmp_path, {1: 0.5})
    assert (tmp_path / "checkpoints" / "1").stat().st_mtime_ns == before


def test_a_folder_without_checkpoints_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="holds no checkpoints; train first"):
        checkpoints.restore_params(tmp_path)
    Checkpoints(tmp_path, create=True).close()
    with pytest.raises(InputError, match="holds no checkpoint yet; train first"):
        checkpoints.restore_params(tmp_path)


@pytest.mark.parametrize("which", ["first", "7", 7])
def test_an_unknown_checkpoint_names_those_there_are(
    tmp_path: pathlib.Path, which: str | int
) -> None:
    _save(tmp_path, {1: 3.0, 2: 4.0})
    with pytest.raises(InputError, match=r"is not best, latest or one of 1, 2"):
        checkpoints.restore_params(tmp_path, which)

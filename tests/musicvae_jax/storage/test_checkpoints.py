from __future__ import annotations

import errno
import math
import pathlib
import resource
import shutil
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.storage import checkpoints, full_disk
from musicvae_jax.storage.checkpoints import Checkpoints
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


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def _damage(run_dir: pathlib.Path, step: int, name: str) -> None:
    """Change the last byte of a file of a checkpoint."""
    path = run_dir / "checkpoints" / str(step) / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _files(run_dir: pathlib.Path, step: int) -> list[str]:
    folder = run_dir / "checkpoints" / str(step)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_change_in_any_file_is_found(tmp_path: pathlib.Path) -> None:
    _save(tmp_path, {1: 3.0})
    names = _files(tmp_path, 1)
    assert {"checksums.json", "config/metadata", "params/manifest.ocdbt"} < set(names)
    assert len(names) > 8
    kept = shutil.copytree(tmp_path / "checkpoints", tmp_path / "kept")
    for name in names:
        _damage(tmp_path, 1, name)
        with (
            Checkpoints(tmp_path, create=True) as saved,
            pytest.raises(InputError, match=r"checkpoint 1 is damaged, .* is good"),
        ):
            saved.last_good_step()
        shutil.copy(kept / "1" / name, tmp_path / "checkpoints" / "1" / name)
    checkpoints.restore_params(tmp_path)


def test_readers_verify_what_they_read(tmp_path: pathlib.Path) -> None:
    _save(tmp_path, {1: 3.0})
    _damage(tmp_path, 1, "state/manifest.ocdbt")
    assert checkpoints.restore_params(tmp_path)[2] == 1
    with Checkpoints(tmp_path) as saved:
        match = "checkpoint: 1 of .* is damaged, state/manifest.ocdbt is not what was written"
        with pytest.raises(InputError, match=match):
            saved.restore_state(1)
    _damage(tmp_path, 1, "params/manifest.ocdbt")
    with pytest.raises(InputError, match=r"checkpoint 1 is damaged, params/.* is good"):
        checkpoints.restore_params(tmp_path)


def test_numpy_arrays_are_saved(tmp_path: pathlib.Path) -> None:
    params = jax.tree.map(np.asarray, _params(1))
    with Checkpoints(tmp_path, create=True) as saved:
        saved.save(1, params, {"step": np.int32(1), "row": np.arange(3)}, CONFIG)
        assert saved.restore_state(1)["row"].tolist() == [0, 1, 2]
    found = checkpoints.restore_params(tmp_path)[1]
    np.testing.assert_array_equal(found["cell"]["kernel"], params["cell"]["kernel"])


@pytest.mark.parametrize(
    ("which", "damaged", "taken"),
    [("best", 2, 5), ("latest", 5, 2), ("best", 5, 2), ("latest", 2, 5)],
)
def test_another_checkpoint_takes_the_place_of_a_damaged_one(
    tmp_path: pathlib.Path, which: str, damaged: int, taken: int
) -> None:
    _save(tmp_path, {2: 1.0, 5: 2.0})
    _damage(tmp_path, damaged, "params/manifest.ocdbt")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, params, step = checkpoints.restore_params(tmp_path, which)
    assert step == taken
    np.testing.assert_array_equal(params["cell"]["kernel"], _params(taken)["cell"]["kernel"])
    asked = {"best": 2, "latest": 5}[which]
    expected = (
        f"checkpoint {damaged} is damaged, params/manifest.ocdbt is not what was written: "
        f"skipped; step {taken} of {tmp_path} is used"
    )
    assert [str(one.message) for one in caught] == ([expected] if asked == damaged else [])
    with pytest.raises(InputError, match=rf"checkpoint: {damaged} of .* undamaged ones: {taken}"):
        checkpoints.restore_params(tmp_path, damaged)


def test_training_goes_on_from_the_last_good_one(tmp_path: pathlib.Path) -> None:
    _save(tmp_path, {2: 1.0, 5: 2.0})
    (tmp_path / "checkpoints" / "5" / "checksums.json").unlink()  # killed just before it
    with Checkpoints(tmp_path, create=True) as saved:
        match = (
            "checkpoint 5 is half-written, .* moved to damaged_checkpoints; resuming from step 2"
        )
        with pytest.warns(UserWarning, match=match):
            assert saved.last_good_step() == 2
        assert saved.latest_step() == 2
        assert saved.last_good_step() == 2
        saved.save(5, _params(5), {"step": jnp.int32(5)}, CONFIG, 2.0)
    assert (tmp_path / "damaged_checkpoints" / "5" / "params").is_dir()
    assert checkpoints.restore_params(tmp_path, "latest")[2] == 5


def test_where_none_is_good_training_starts_anew_only_if_none_was(tmp_path: pathlib.Path) -> None:
    with Checkpoints(tmp_path, create=True) as saved:
        assert saved.last_good_step() is None
    _save(tmp_path, {2: 1.0})
    (tmp_path / "checkpoints" / "2" / "checksums.json").unlink()
    with (
        Checkpoints(tmp_path, create=True) as saved,
        pytest.warns(UserWarning, match="starting from scratch"),
    ):
        assert saved.last_good_step() is None
    _save(tmp_path, {3: 1.0})
    _damage(tmp_path, 3, "params/manifest.ocdbt")
    with (
        Checkpoints(tmp_path, create=True) as saved,
        pytest.raises(InputError, match=r"is damaged, .* to start from scratch"),
    ):
        saved.last_good_step()
    assert _files(tmp_path, 3)


def test_a_best_one_whose_loss_cannot_be_read_is_named(tmp_path: pathlib.Path) -> None:
    _save(tmp_path, {2: 1.0, 5: 2.0})
    (tmp_path / "checkpoints" / "2" / "config" / "metadata").write_text("{")
    match = "checkpoint 2 is damaged, its configuration cannot be read: skipped; step 5"
    with pytest.warns(UserWarning, match=match):
        assert checkpoints.restore_params(tmp_path, "best")[2] == 5


def test_what_was_left_half_way_goes_when_training_opens_the_folder(tmp_path: pathlib.Path) -> None:
    _save(tmp_path, {2: 1.0})
    left = ("checkpoints/3.orbax-checkpoint-tmp/params", ".removed_checkpoint/params")
    for name in left:
        (tmp_path / name).mkdir(parents=True)
    Checkpoints(tmp_path).close()
    assert all((tmp_path / name).is_dir() for name in left)
    Checkpoints(tmp_path, create=True).close()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]


def test_a_full_disk_keeps_what_was_saved(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, {2: 1.0})
    large = {"kernel": jax.random.normal(jax.random.key(0), (1000, 100))}
    message = r"no space left for the checkpoint of step 3 in .*, that of step 2 is kept; free some"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, create=True) as saved:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(InputError, match=message):
                saved.save(3, large, {"step": jnp.int32(3)}, CONFIG, 0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def full(folder: pathlib.Path, known: dict[str, str]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    with Checkpoints(tmp_path, create=True) as saved:
        monkeypatch.setattr(checkpoints.checksums, "write", full)
        with pytest.raises(InputError, match=message):
            saved.save(3, large, {"step": jnp.int32(3)}, CONFIG, 0.5)
    with Checkpoints(tmp_path, create=True) as saved:
        monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: Usage(10, 9, 1))
        with pytest.raises(InputError, match=message):
            saved.save(3, large, {"step": jnp.int32(3)}, CONFIG, 0.5)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
    assert checkpoints.restore_params(tmp_path)[2] == 2


def test_only_a_full_disk_is_one() -> None:
    assert full_disk.is_disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not full_disk.is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert full_disk.is_disk_full(ValueError("Failed: No space [os_error_code='28']"))
    assert not full_disk.is_disk_full(ValueError("Failed: No such file [os_error_code='2']"))
    assert not full_disk.is_disk_full(ValueError("another"))

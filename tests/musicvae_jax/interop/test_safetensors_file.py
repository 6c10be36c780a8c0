"""Models as safetensors files: equal after a round trip, and what is refused."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from musicvae_jax import MusicVAE
from musicvae_jax.config import InputError
from musicvae_jax.interop import safetensors_file
from tests.support.model_cases import case


@pytest.mark.parametrize("name", [("mel_2bar", "flat"), ("trio_16bar", "hierdec")])
def test_a_round_trip_keeps_every_bit(name: tuple[str, str], tmp_path: pathlib.Path) -> None:
    known = case(*name)
    safetensors_file.write(tmp_path / "a", known.config, known.params, 7)
    found = safetensors_file.read(tmp_path / "a")
    assert (found.config, found.step) == (known.config, 7)
    jax.tree.map(np.testing.assert_array_equal, found.params, known.params)
    safetensors_file.write(tmp_path / "b", *found)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_float16_rounds_to_the_nearest(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    safetensors_file.write(tmp_path / "half", known.config, known.params, 0, "float16")
    vae = MusicVAE.from_file(tmp_path / "half")
    kernel = np.asarray(known.params["encoder"]["mu"]["kernel"])
    rounded = kernel.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(vae.params["encoder"]["mu"]["kernel"], rounded)


def test_a_file_serves_as_the_model(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    safetensors_file.write(tmp_path / "m", known.config, known.params, 0)
    vae = MusicVAE.from_file(tmp_path / "m")
    expected = known.encode(known.params, known.tokens)
    np.testing.assert_array_equal(vae.encode(np.asarray(known.tokens)).mu, expected.mu)


def test_float16_refuses_what_it_cannot_hold(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    params = jax.tree.map(lambda leaf: leaf * 1e6, known.params)
    with pytest.raises(InputError, match="beyond float16's range"):
        safetensors_file.write(tmp_path / "m", known.config, params, 0, "float16")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    with pytest.raises(InputError, match=r"absent/m: cannot be written: .*No such file"):
        safetensors_file.write(tmp_path / "absent" / "m", known.config, known.params, 0)


def test_wrong_files_are_refused(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    good, path = tmp_path / "good", tmp_path / "bad"
    safetensors_file.write(good, known.config, known.params, 0)
    content = good.read_bytes()
    for cut in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match="bad: not a readable safetensors file"):
            safetensors_file.read(path)
    with pytest.raises(InputError, match="absent: not a readable safetensors file"):
        safetensors_file.read(tmp_path / "absent")
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(InputError, match="no configuration of this library"):
        safetensors_file.read(path)
    about = {"config": known.config.flat(), "step": 0}
    save_file({"a": np.zeros(3)}, path, metadata={"musicvae_jax": json.dumps(about)})
    with pytest.raises(InputError, match=r"a has shape \[3\], the configuration needs none"):
        safetensors_file.read(path)
    about = {"config": known.config.flat(), "step": float("inf")}
    save_file({"a": np.zeros(3)}, path, metadata={"musicvae_jax": json.dumps(about)})
    with pytest.raises(InputError, match="no configuration of this library"):
        safetensors_file.read(path)
    about = {"config": known.config.flat() | {"z_size": 0}, "step": 0}
    save_file({"a": np.zeros(3)}, path, metadata={"musicvae_jax": json.dumps(about)})
    with pytest.raises(InputError, match="bad: z_size: 0 is out of range"):
        safetensors_file.read(path)

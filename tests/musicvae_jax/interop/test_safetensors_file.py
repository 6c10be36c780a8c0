"""Models as safetensors files: equal after a round trip, and what is refused."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from musicvae_jax import MusicVAE
from musicvae_jax.config import InputError
from musicvae_jax.interop import safetensors_file
from musicvae_jax.latent import flow
from musicvae_jax.models.registry import build_model
from musicvae_jax.priors import Flow, Mixture
from musicvae_jax.tasks import get_task
from tests.support.model_cases import case

# Two Gaussians over the four dimensions of the models in `model_cases`.
_SCALES = np.tril(np.arange(1, 33).reshape(2, 4, 4) / 8)
PRIOR = Mixture(
    np.array([0.3, 0.7], np.float32),
    np.arange(8, dtype=np.float32).reshape(2, 4) / 4,
    _SCALES.astype(np.float32),
)
ATTRIBUTES = {"note_density": np.array([1, 2, 3, 0.1], np.float32)}


@pytest.mark.parametrize("name", [("mel_2bar", "flat"), ("trio_16bar", "hierdec")])
def test_a_round_trip_keeps_every_bit(name: tuple[str, str], tmp_path: pathlib.Path) -> None:
    known = case(*name)
    extras = (PRIOR, ATTRIBUTES, {"data": "folk", "rows": 3})
    safetensors_file.write(tmp_path / "a", known.config, known.params, 7, *extras)
    found = safetensors_file.read(tmp_path / "a")
    assert (found.config, found.step, found.about) == (known.config, 7, extras[2])
    jax.tree.map(np.testing.assert_array_equal, found.params, known.params)
    jax.tree.map(np.testing.assert_array_equal, (found.prior, found.attributes), extras[:2])
    safetensors_file.write(tmp_path / "b", *found)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_float16_rounds_to_the_nearest(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    safetensors_file.write(tmp_path / "half", known.config, known.params, dtype="float16")
    vae = MusicVAE.from_file(tmp_path / "half")
    kernel = np.asarray(known.params["encoder"]["mu"]["kernel"])
    rounded = kernel.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(vae.params["encoder"]["mu"]["kernel"], rounded)


def test_prior_and_attributes_in_float16(tmp_path: pathlib.Path) -> None:
    known, path = case("mel_2bar", "flat"), tmp_path / "half"
    arguments = (known.config, known.params, 0, PRIOR, ATTRIBUTES)
    safetensors_file.write(path, *arguments, dtype="float16")
    found = safetensors_file.read(path)
    assert isinstance(found.prior, Mixture)
    np.testing.assert_array_equal(found.prior.weights, PRIOR.weights)  # these stay float32
    np.testing.assert_array_equal(found.prior.scales, PRIOR.scales)  # eighths: exact
    vector = found.attributes["note_density"]
    assert (vector.dtype, vector[3]) == (np.float32, np.float32(np.float16(0.1)))
    with safe_open(path, framework="numpy") as file:
        assert file.get_slice("prior/scales").get_shape() == [2, 10]
        stored = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert {name for name, dtype in stored.items() if dtype != "F16"} == {"prior/weights"}


def test_a_flow_in_float16(tmp_path: pathlib.Path) -> None:
    known, path = case("mel_2bar", "flat"), tmp_path / "half"
    mu = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    written = flow.first(mu, np.ones_like(mu), flow.Settings(layers=2, units=3))
    safetensors_file.write(path, known.config, known.params, 0, written, dtype="float16")
    found = safetensors_file.read(path).prior
    assert isinstance(found, Flow)
    for read, array in zip(found, written, strict=True):
        rounded = array if array.dtype == np.int32 else array.astype(np.float16)
        np.testing.assert_array_equal(read, rounded.astype(array.dtype))
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    for changed, message in (({"prior/orders": None}, "orders is missing"),
                             ({"prior/means": mu}, "means is unknown")):  # fmt: skip
        kept = {name: a for name, a in (arrays | changed).items() if a is not None}
        save_file(kept, path, metadata=metadata)
        with pytest.raises(InputError, match=f"half: prior/{message}"):
            safetensors_file.read(path)


def test_a_file_without_prior_and_attributes(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    safetensors_file.write(tmp_path / "m", known.config, known.params)
    assert safetensors_file.read(tmp_path / "m")[3:] == (None, {}, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder/mu/bias": np.zeros(4, np.float64)}, "encoder/mu/bias is F64, it must be F32 or"),
        ({"encoder/mu/bias": np.zeros(4, np.int32)}, "encoder/mu/bias is I32, it must be F32 or"),
        ({"encoder/mu/bias": np.zeros(5, np.float32)}, r"mu/bias has shape \[5\], .* needs \[4\]"),
        ({"prior/weights": None}, "prior/weights is missing"),
        ({"prior/weights": PRIOR.weights / 2}, "prior: weights must be 0 or more, and their sum 1"),
        (
            {"prior/means": PRIOR.means[:, :3]},
            r"means are float32 \[2, 3\], they must be .*\[2, 4\]",
        ),
        (
            {"prior/scales": PRIOR.scales},
            r"prior/scales has shape \[2, 4, 4\], it must be \[2, 10\]",
        ),
        ({"prior/scales": np.zeros((2, 10), np.float32)}, "scales must be lower triangular"),
        ({"prior/means": PRIOR.means * np.nan}, "prior: means are not all finite"),
        ({"attributes/x": np.zeros(3, np.float32)}, r"attributes/x has shape \[3\]; .*\[4\]"),
    ],
)
def test_wrong_arrays_are_refused(
    changes: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    known, path = case("mel_2bar", "flat"), tmp_path / "m"
    safetensors_file.write(path, known.config, known.params, 0, PRIOR, ATTRIBUTES)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    kept = {name: a for name, a in (arrays | changes).items() if a is not None}
    save_file(kept, path, metadata=metadata)
    with pytest.raises(InputError, match=f"m: .*{message}"):
        safetensors_file.read(path)


def test_a_file_serves_as_the_model(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    safetensors_file.write(tmp_path / "m", known.config, known.params)
    vae = MusicVAE.from_file(tmp_path / "m")
    expected = known.encode(known.params, known.tokens)
    np.testing.assert_array_equal(vae.encode(np.asarray(known.tokens)).mu, expected.mu)


def test_float16_refuses_what_it_cannot_hold(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    params = jax.tree.map(lambda leaf: leaf * 1e6, known.params)
    with pytest.raises(InputError, match="beyond float16's range"):
        safetensors_file.write(tmp_path / "m", known.config, params, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    with pytest.raises(InputError, match=r"absent/m: cannot be written: .*No such file"):
        safetensors_file.write(tmp_path / "absent" / "m", known.config, known.params)


def test_wrong_files_are_refused(tmp_path: pathlib.Path) -> None:
    known = case("mel_2bar", "flat")
    good, path = tmp_path / "good", tmp_path / "bad"
    safetensors_file.write(good, known.config, known.params)
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
    save_file({"a": np.zeros(3, np.float32)}, path, metadata={"musicvae_jax": json.dumps(about)})
    with pytest.raises(InputError, match=r"a has shape \[3\], the configuration needs none"):
        safetensors_file.read(path)
    about = {"config": known.config.flat(), "step": float("inf")}
    save_file({"a": np.zeros(3, np.float32)}, path, metadata={"musicvae_jax": json.dumps(about)})
    with pytest.raises(InputError, match="no configuration of this library"):
        safetensors_file.read(path)
    for field, value, message in (
        ("z_size", 0, "z_size: 0 is out of range"),
        ("z_size", "4", "z_size: '4' has the wrong type, it must be a whole number"),
        ("encoder_sizes", 8, "encoder_sizes: 8 has the wrong type"),
        ("architecture", "flatter", "architecture: 'flatter' is not one of"),
        ("task", "mel_3bar", "task: 'mel_3bar' is not one of"),
    ):
        about = {"config": known.config.flat() | {field: value}, "step": 0}
        tensor = {"a": np.zeros(3, np.float32)}
        save_file(tensor, path, metadata={"musicvae_jax": json.dumps(about)})
        with pytest.raises(InputError, match=f"bad: {message}"):
            safetensors_file.read(path)


def test_a_file_has_the_permissions_of_any_other(tmp_path: pathlib.Path) -> None:
    config = get_task("mel_2bar").config.replace(encoder_sizes=(4,), decoder_sizes=(4,), z_size=2)
    params = jax.jit(build_model(config).init)(jax.random.key(0))
    safetensors_file.write(tmp_path / "model.safetensors", config, params)
    (tmp_path / "other").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("model.safetensors", "other")]
    assert modes[0] == modes[1]

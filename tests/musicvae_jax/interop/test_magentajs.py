"""The browser player's folders: content, quantisation, and what is refused."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.interop import magentajs
from musicvae_jax.models.registry import build_model
from musicvae_jax.models.variables import params_from_variables, variables_from_params
from tests.support.model_cases import CASES, Case, case, player_case

PLAYABLE = (("mel_2bar", "flat"), ("drums_2bar", "flat"), ("trio_16bar", "hier"))


@pytest.mark.parametrize("name", PLAYABLE)
def test_a_float32_folder_gives_back_every_bit(
    name: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    known = player_case(*name)
    magentajs.write(tmp_path / "m", known.config, known.params)
    found = magentajs.read_variables(tmp_path / "m")
    expected = variables_from_params(known.params)
    assert set(found) == set(expected)
    for variable, array in expected.items():
        np.testing.assert_array_equal(found[variable], array)
    model, _ = params_from_variables(found, name[0])
    assert model.architecture == name[1]


def test_the_player_is_told_how_to_read_notes(tmp_path: pathlib.Path) -> None:
    found = {}
    for name in PLAYABLE:
        known = player_case(*name)
        magentajs.write(tmp_path / name[0], known.config, known.params)
        found[name[0]] = json.loads((tmp_path / name[0] / "config.json").read_text())
    pitches = {"minPitch": 21, "maxPitch": 108}
    assert found["mel_2bar"] == {
        "type": "MusicVAE",
        "dataConverter": {"type": "MelodyConverter", "args": {"numSteps": 32} | pitches},
    }
    assert found["drums_2bar"]["dataConverter"] == {
        "type": "DrumsConverter",
        "args": {"numSteps": 32},
    }
    assert found["trio_16bar"]["dataConverter"] == {
        "type": "TrioConverter",
        "args": {
            "numSteps": 256,
            "numSegments": 16,
            "melArgs": pitches,
            "bassArgs": pitches,
            "drumsArgs": {},
        },
    }


def test_bytes_are_cut_every_four_megabytes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(magentajs, "SHARD_BYTES", 1001)  # cuts fall inside numbers
    known = player_case("mel_2bar", "flat")
    magentajs.write(tmp_path / "m", known.config, known.params)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "m").glob("group1-shard1of*"))]
    assert sizes == [1001]
    found = magentajs.read_variables(tmp_path / "m")
    np.testing.assert_array_equal(
        found["encoder/mu/kernel"], variables_from_params(known.params)["encoder/mu/kernel"]
    )


# Half of the largest step: 2**-11 of the value, or of the range divided by 65,535 or 255.
@pytest.mark.parametrize(("quantize", "steps"), [("uint16", 65535), ("uint8", 255)])
def test_quantised_weights_are_within_half_a_step(
    quantize: str, steps: int, tmp_path: pathlib.Path
) -> None:
    known = player_case("mel_2bar", "flat")
    params = known.params | {}
    magentajs.write(tmp_path / "m", known.config, params, quantize)
    found = magentajs.read_variables(tmp_path / "m")
    for name, array in variables_from_params(params).items():
        array = np.asarray(array)
        step = (array.max() - array.min()) / steps
        # Moving the range so that 0 is exact moves the ends by up to half a step.
        assert np.abs(found[name] - array).max() <= 1.01 * step


def test_zero_is_exact_and_constants_survive() -> None:
    values = np.array([-0.37, 0.0, 0.81], np.float32)
    about, stored = magentajs._quantized("a", values, "uint8")
    scale, low = about["quantization"]["scale"], about["quantization"]["min"]
    assert stored[1] * scale + low == 0.0
    for constant in (0.0, 2.5):
        about, stored = magentajs._quantized("a", np.full(3, constant, np.float32), "uint8")
        low = about["quantization"]["min"]
        assert (stored * about["quantization"]["scale"] + low).tolist() == [constant] * 3


def test_float16_rounds_to_the_nearest(tmp_path: pathlib.Path) -> None:
    known = player_case("mel_2bar", "flat")
    magentajs.write(tmp_path / "m", known.config, known.params, "float16")
    found = magentajs.read_variables(tmp_path / "m")
    kernel = np.asarray(known.params["encoder"]["mu"]["kernel"])
    np.testing.assert_array_equal(found["encoder/mu/kernel"], kernel.astype(np.float16))


@pytest.mark.parametrize("quantize", ["float16", "uint8"])
def test_values_that_a_type_cannot_hold_are_refused(quantize: str, tmp_path: pathlib.Path) -> None:
    known = player_case("mel_2bar", "flat")
    encoder = dict(known.params["encoder"])
    encoder["mu"] = encoder["mu"] | {"bias": jnp.full(4, jnp.inf)}
    with pytest.raises(InputError, match=f"encoder/mu/bias has values that {quantize} cannot"):
        magentajs.write(tmp_path / "m", known.config, known.params | {"encoder": encoder}, quantize)
    assert list(tmp_path.iterdir()) == []


def _with_sizes(known: Case, **sizes: tuple[int, ...]) -> tuple:
    config = known.config.replace(**{"encoder_sizes": (6,), "decoder_sizes": (5,), **sizes})
    return config, jax.jit(build_model(config).init)(jnp.zeros(2, jnp.uint32))


def test_what_the_player_cannot_load_is_refused(tmp_path: pathlib.Path) -> None:
    refused: list[tuple[tuple[str, str], dict[str, tuple[int, ...]], str]] = [
        (("mel_2bar", "flat"), {"encoder_sizes": (6, 5)}, "reads encoders of one layer, .* has 2"),
        (("mel_2bar", "flat"), {"decoder_sizes": (7, 5)}, "decoder_sizes: .*one size, .* has 7, 5"),
        (("mel_16bar", "hierdec"), {"conductor_sizes": ()}, "no hierdec models.*architecture=hier"),
        (("trio_16bar", "flat"), {}, "a decoder per track, .*architecture=hier"),
        (("mel_16bar", "hier"), {"conductor_sizes": (5, 6)}, "conductor_sizes: .* has 5, 6"),
    ]
    for name, sizes, message in refused:
        assert name in CASES
        config, params = _with_sizes(case(*name), **sizes)
        with pytest.raises(InputError, match=message):
            magentajs.write(tmp_path / "m", config, params)
    assert list(tmp_path.iterdir()) == []


def test_damaged_folders_are_refused(tmp_path: pathlib.Path) -> None:
    known = player_case("mel_2bar", "flat")
    folder = tmp_path / "m"
    magentajs.write(folder, known.config, known.params)
    shard = folder / "group1-shard1of1"
    content = shard.read_bytes()
    for damaged in (content[:-1], content + b"0000", b""):
        shard.write_bytes(damaged)
        with pytest.raises(InputError, match=r"m: not a readable magenta\.js checkpoint"):
            magentajs.read_variables(folder)
    shard.write_bytes(content)
    (folder / "weights_manifest.json").write_text('[{"paths": [], "weights": ["a"]}]')
    with pytest.raises(InputError, match=r"m: not a readable magenta\.js checkpoint"):
        magentajs.read_variables(folder)
    magentajs.write(tmp_path / "n", known.config, known.params)
    folder = tmp_path / "n"
    (folder / shard.name).unlink()
    with pytest.raises(InputError, match=r"n: not a readable magenta\.js checkpoint"):
        magentajs.read_variables(folder)

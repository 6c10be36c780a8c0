"""Exported functions: equal results at any batch size, and programs for every platform."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest
from jax import export

from musicvae_jax.config import InputError
from musicvae_jax.interop import jax_export
from tests.support.model_cases import case


@pytest.mark.slow
@pytest.mark.parametrize("name", [("mel_2bar", "flat"), ("trio_16bar", "hier")])
def test_written_functions_compute_what_the_model_does(
    name: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    known = case(*name)
    jax_export.write(tmp_path / "m", known.config, known.params)
    encode, decode = (
        export.deserialize(bytearray((tmp_path / "m" / f"{part}.jax").read_bytes()))
        for part in ("encode", "decode")
    )
    assert encode.platforms == decode.platforms == ("cpu", "cuda", "tpu")
    expected = known.encode(known.params, known.tokens)
    greedy = np.asarray(known.greedy(known.params, known.z))
    for size in (1, 3):
        mu, sigma = encode.call(known.tokens[:size].astype(np.int32))
        np.testing.assert_allclose(mu, expected.mu[:size], atol=1e-5)
        np.testing.assert_allclose(sigma, expected.sigma[:size], atol=1e-5)
        tokens = decode.call(known.z[:size], np.uint32(0), np.float32(0.0))
        np.testing.assert_array_equal(tokens, greedy[:size])
    drawn = decode.call(known.z, np.uint32(3), np.float32(1.0))
    sampled = known.model.generate(known.params, known.z, jax.random.key(3), 1.0)
    np.testing.assert_array_equal(drawn, sampled)
    about = json.loads((tmp_path / "m" / "model.json").read_text())
    assert about["functions"]["decode"]["inputs"] == ["float32[B,4]", "uint32[]", "float32[]"]


def test_without_flatbuffers_one_line_says_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    known = case("mel_2bar", "flat")
    with pytest.raises(InputError, match=r"format: jax needs flatbuffers: pip install"):
        jax_export.write(tmp_path / "m", known.config, known.params)
    assert list(tmp_path.iterdir()) == []

"""The command `export`: each format, its default place, and what it refuses."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest

from experiments.export import FORMATS, Options, export
from musicvae_jax import MusicVAE
from musicvae_jax.config import InputError
from tests.support.untrained_run import make_run


def test_safetensors_holds_the_run(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "mel_2bar")
    path = export(Options(run, "safetensors"))
    assert path == tmp_path / "run" / "exports" / "model.safetensors"
    known, found = MusicVAE.restore(run), MusicVAE.from_file(path)
    assert found.config == known.config
    jax.tree.map(np.testing.assert_array_equal, found.params, known.params)


@pytest.mark.parametrize("name", FORMATS)
def test_an_existing_output_is_kept(name: str, tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "mel_2bar")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(InputError, match=r"output: .*there exists"):
        export(Options(run, name, output=str(tmp_path / "there")))
    assert (tmp_path / "there").read_text() == "mine"


def test_wrong_options_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="format: 'onnx' is not one of safetensors"):
        export(Options("run", "onnx"))
    with pytest.raises(InputError, match=r"run_dir: .*absent holds no checkpoints"):
        export(Options(str(tmp_path / "absent"), "safetensors"))
    assert list(tmp_path.iterdir()) == []

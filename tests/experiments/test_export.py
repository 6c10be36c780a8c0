"""The command `export`: each format, its default place, and what it refuses."""

from __future__ import annotations

import errno
import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest

from experiments.export import FORMATS, Options, export
from musicvae_jax import MusicVAE
from musicvae_jax.config import InputError
from musicvae_jax.interop.tensor_bundle import TensorBundle
from musicvae_jax.models.registry import build_vae
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import get_task
from musicvae_jax.training.state import init_state
from tests.support.model_cases import compiled
from tests.support.untrained_run import make_run


def test_safetensors_holds_the_run(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "mel_2bar")
    path = export(Options(run_dir=run, format="safetensors"))
    assert path == tmp_path / "run" / "exports" / "model.safetensors"
    known, found = MusicVAE.restore(run), MusicVAE.from_file(path)
    assert found.config == known.config
    jax.tree.map(np.testing.assert_array_equal, found.params, known.params)


def test_moments_of_another_adam_are_left_out(tmp_path: pathlib.Path) -> None:
    config = get_task("mel_2bar").config.replace(
        encoder_sizes=(8,), decoder_sizes=(8,), z_size=4, adam_b2=0.99
    )
    state = init_state(compiled(build_vae(config)), config)
    rest = {name: value for name, value in vars(state).items() if name != "params"}
    with Checkpoints(tmp_path / "run", create=True) as saved:
        saved.save(3, state.params, rest, config)
    with pytest.warns(UserWarning, match=r"moments are left out: .* are 0\.9, 0\.99 and 1e-08"):
        path = export(Options(run_dir=str(tmp_path / "run"), format="tensorflow"))
    with TensorBundle(path) as bundle:
        assert bundle.read("global_step") == 3
        assert not [name for name in bundle.entries if "Adam" in name or "power" in name]


@pytest.mark.parametrize("name", FORMATS)
def test_an_existing_output_is_kept(name: str, tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "mel_2bar")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(InputError, match=r"output: .*there exists"):
        export(Options(run_dir=run, format=name, output=str(tmp_path / "there")))
    assert (tmp_path / "there").read_text() == "mine"


def test_wrong_options_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="format: 'onnx' is not one of safetensors"):
        export(Options(run_dir="run", format="onnx"))
    with pytest.raises(InputError, match=r"run_dir: .*absent holds no checkpoints"):
        export(Options(run_dir=str(tmp_path / "absent"), format="safetensors"))
    assert list(tmp_path.iterdir()) == []


def test_a_page_comes_with_its_scripts(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "mel_2bar")
    path = export(Options(run_dir=run, format="magentajs", quantize="uint8", page=True))
    page = (path / "index.html").read_text()
    scripts = re.findall(r'src="([^"]+)"', page)
    assert scripts == ["vendor/magentamusic.js", "page.js"]
    assert all((path / name).is_file() for name in (*scripts, "vendor/LICENSES.txt"))


def test_options_of_other_formats_are_refused(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "mel_2bar")
    with pytest.raises(InputError, match="page: only with --format=magentajs"):
        export(Options(run_dir=run, format="safetensors", page=True))
    with pytest.raises(InputError, match="quantize: only with --format=magentajs"):
        export(Options(run_dir=run, format="safetensors", quantize="uint8"))
    with pytest.raises(InputError, match="dtype: only with --format=safetensors"):
        export(Options(run_dir=run, format="jax", dtype="float16"))
    assert not (tmp_path / "run" / "exports").exists()


def test_a_refused_model_leaves_nothing(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "mel_16bar")
    before = sorted(path.name for path in pathlib.Path(run).iterdir())
    with pytest.raises(InputError, match="no hierdec models"):
        export(Options(run_dir=run, format="magentajs"))
    assert sorted(path.name for path in pathlib.Path(run).iterdir()) == before


@pytest.mark.parametrize(
    ("options", "module", "name"),
    [
        # The data file is complete by then.
        ({"format": "tensorflow"}, "musicvae_jax.interop.bundle_writer", "table_bytes"),
        # The model is.
        ({"format": "magentajs", "page": True}, "experiments.export", "add_page"),
    ],
)
def test_a_full_disk_leaves_nothing(
    options: dict[str, Any],
    module: str,
    name: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make_run(tmp_path, "mel_2bar")
    before = sorted(path.name for path in pathlib.Path(run).iterdir())

    def fail(what: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"{module}.{name}", fail)
    with pytest.raises(OSError, match="No space left"):
        export(Options(run_dir=run, **options))
    assert sorted(path.name for path in pathlib.Path(run).iterdir()) == before

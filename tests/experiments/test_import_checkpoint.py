"""Checkpoints of the reference as run folders: what is written, used, continued and refused."""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil

import jax
import numpy as np
import pytest

from experiments.export import Options, export
from experiments.import_checkpoint import import_checkpoint, train_config
from musicvae_jax import MusicVAE
from musicvae_jax.config import InputError, ModelConfig
from musicvae_jax.interop import reference, safetensors_file
from musicvae_jax.interop.bundle_writer import write_bundle
from musicvae_jax.interop.tensor_bundle import TensorBundle
from musicvae_jax.latent import fitted_prior
from musicvae_jax.latent.attributes import Vectors, load_vectors, save_vectors
from musicvae_jax.storage import run_folder
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import get_task
from tests.support.commands import run_here
from tests.support.model_cases import case
from tests.support.synthetic_store import write_store
from tests.support.untrained_run import make_run


def _write_checkpoint(folder: pathlib.Path, *, with_adam: bool = True) -> str:
    """Write a checkpoint of a tiny melody model after five steps."""
    params = case("mel_2bar", "flat").params
    moment = jax.tree.map(lambda leaf: np.full(leaf.shape, 1e-4, np.float32), params)
    adam = reference.Adam(moment, moment, 5) if with_adam else None
    folder.mkdir()
    write_bundle(folder / "model.ckpt-5", reference.tensors(params, 5, adam))
    return str(folder)


@pytest.mark.parametrize("with_adam", [True, False])
def test_a_round_trip_keeps_every_byte(with_adam: bool, tmp_path: pathlib.Path) -> None:
    checkpoint = _write_checkpoint(tmp_path / "tf", with_adam=with_adam)
    run = str(tmp_path / "run")
    said = import_checkpoint(checkpoint, run, "mel_2bar")
    assert "mel_2bar, flat: z 4, encoder (6, 5), decoder (7, 5)" in said
    assert ("with Adam's moments" in said) == with_adam
    jax.tree.map(
        np.testing.assert_array_equal,
        MusicVAE.restore(run).params,
        MusicVAE.from_checkpoint(checkpoint, "mel_2bar").params,
    )
    exported = export(Options(run_dir=run, format="tensorflow"))
    with TensorBundle(checkpoint) as one, TensorBundle(exported) as other:
        # A run always has moments; before its first update they are zero.
        assert (one.entries.keys() == other.entries.keys()) == with_adam
        for name in one.entries:
            assert one.read(name).tobytes() == other.read(name).tobytes(), name


def test_a_safetensors_file_becomes_a_run(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "mel_2bar")
    prior = fitted_prior.Record(fitted_prior.standard(4), 7, {"rows": 90})
    fitted_prior.save(run, prior)
    vectors = Vectors("mel_2bar", 7, {"note_density": np.arange(4, dtype=np.float32)}, {"rows": 80})
    save_vectors(run, vectors)
    file, second = export(Options(run_dir=run, format="safetensors")), tmp_path / "run again"
    said = import_checkpoint(str(file), str(second))
    assert "mel_2bar, flat: z 4, encoder (8,), decoder (8,) (read from its header)" in said
    words = [f"--flagfile={second}/train.flags", f"--run_dir={second}", "--data_dir=DATA"]
    assert shlex.split(said.splitlines()[-1])[-4:] == ["experiments.train", *words]
    known, found = MusicVAE.restore(run), MusicVAE.from_file(file)
    assert (known.step, found.step) == (7, 7)
    jax.tree.map(
        np.testing.assert_array_equal,
        (found.prior, found.attributes),
        (prior.prior, vectors.vectors),
    )
    known, found = MusicVAE.restore(run), MusicVAE.restore(second)
    assert found.config == known.config
    jax.tree.map(np.testing.assert_array_equal, found.params, known.params)
    jax.tree.map(np.testing.assert_array_equal, fitted_prior.load(second), prior)
    jax.tree.map(np.testing.assert_array_equal, load_vectors(second)._asdict(), vectors._asdict())
    again = export(Options(run_dir=str(second), format="safetensors"))
    assert again.read_bytes() == file.read_bytes()
    with pytest.raises(InputError, match="is a model of mel_2bar, not of mel_16bar"):
        import_checkpoint(str(file), str(tmp_path / "third"), "mel_16bar")


def test_prior_and_vectors_of_another_step_are_not_exported(tmp_path: pathlib.Path) -> None:
    run = make_run(tmp_path, "mel_2bar")
    fitted_prior.save(run, fitted_prior.Record(fitted_prior.standard(4), 6, {}))
    save_vectors(run, Vectors("mel_2bar", 6, {"note_density": np.zeros(4, np.float32)}, {}))
    assert safetensors_file.read(export(Options(run_dir=run, format="safetensors")))[3:] == (
        None,
        {},
        {},
    )


@pytest.mark.slow
def test_training_continues_with_the_flagfile(tmp_path: pathlib.Path) -> None:
    checkpoint, run = _write_checkpoint(tmp_path / "tf"), tmp_path / "run"
    import_checkpoint(checkpoint, str(run), "mel_2bar")
    store = write_store(tmp_path / "store", "mel_2bar", {"train": 512, "validation": 8, "test": 8})
    flags = [f"--flagfile={run}/train.flags", f"--run_dir={run}", f"--data_dir={store}"]
    done = run_here("experiments.train", *flags, "--train_steps=6", "--log_every=1")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["split"] == "train"] == [6]
    assert run_folder.read_data(run)["path"] == str(store)
    with Checkpoints(run) as saved:
        state = saved.restore_state(6)
    assert (int(state["step"]), int(state["optimiser"][1]["updates"])) == (6, 6)
    # Adam began from the moments given: 0.9 of the first is left where the gradient is 0.
    first = state["optimiser"][1]["first_moment"]["decoder"]["core"]["core_0"]["cell_0"]["kernel"]
    unused_inputs = first[7:90]  # pitches that the store does not hold
    assert np.sum(np.isclose(unused_inputs, 0.9e-4)) > unused_inputs.size // 2


def test_published_sizes_get_the_published_configuration() -> None:
    big = ModelConfig(z_size=512, encoder_sizes=(2048,), decoder_sizes=(2048, 2048, 2048))
    assert train_config("mel_2bar", big).train.beta == 0.5
    other = train_config("mel_2bar", ModelConfig(z_size=8))
    assert (other.train.adam_b2, other.train.warmup_steps) == (0.999, 0)
    assert other.model == ModelConfig(z_size=8)
    assert other.train.transpose == get_task("mel_2bar").config.train.transpose


def test_an_imported_run_has_no_data(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    import_checkpoint(_write_checkpoint(tmp_path / "tf"), str(run), "mel_2bar")
    with pytest.raises(InputError, match=r"run was imported and has no data yet; give --data_dir"):
        run_folder.read_data(run)
    assert json.loads((run / "imported.json").read_text())["step"] == 5


def test_what_is_refused_writes_nothing(tmp_path: pathlib.Path) -> None:
    checkpoint = _write_checkpoint(tmp_path / "tf")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    with pytest.raises(InputError, match="mine exists; name a new folder"):
        import_checkpoint(checkpoint, str(tmp_path / "mine"), "mel_2bar")
    with pytest.raises(InputError, match="give --task"):
        import_checkpoint(checkpoint, str(tmp_path / "run"))
    data = tmp_path / "tf" / "model.ckpt-5.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    with pytest.raises(InputError, match="wrong checksum"):
        import_checkpoint(checkpoint, str(tmp_path / "run"), "mel_2bar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "tf"]


def test_a_full_disk_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _write_checkpoint(tmp_path / "tf")
    total, _, _ = usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(used=total, free=0))
    with pytest.raises(InputError, match=r"no space left for .*run; nothing was written"):
        import_checkpoint(checkpoint, str(tmp_path / "run"), "mel_2bar")
    assert [path.name for path in tmp_path.iterdir()] == ["tf"]


def test_the_command_ends_with_one_line_and_code_2(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m.index").write_bytes(bytes(100))
    flags = (f"--checkpoint={tmp_path / 'm'}", f"--run_dir={tmp_path / 'run'}")
    done = run_here("experiments.import_checkpoint", *flags)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: checkpoint: {tmp_path / 'm.index'}: not an index file")
    assert not (tmp_path / "run").exists()
    done = run_here("experiments.import_checkpoint")
    assert (done.returncode, done.stderr) == (2, "error: checkpoint: --checkpoint is needed\n")

"""Models of the reference: recorded outputs, the resumed training step, what is inferred."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import MusicVAE
from musicvae_jax.config import Config, InputError
from musicvae_jax.interop import reference
from musicvae_jax.interop.bundle_writer import write_bundle
from musicvae_jax.interop.task_inference import infer_task
from musicvae_jax.interop.tensor_bundle import TensorBundle
from musicvae_jax.models.registry import build_model
from musicvae_jax.models.variables import variables_from_params
from musicvae_jax.objectives import reconstruction_nats
from musicvae_jax.training.imported_state import state_at
from musicvae_jax.training.step import Batch, make_train_step
from tests.support.model_cases import case

# Folder -> task, None where it is inferred; and the tolerance of its logits.
MODELS = {
    "cat-mel_2bar": ("mel_2bar", 1e-4),
    "cat-drums_2bar": ("drums_2bar", 1e-4),
    "hier-mel_16bar": (None, 1e-3),
    "hierdec-mel_16bar": (None, 1e-3),
    "hierdec-trio_16bar": (None, 1e-3),
    "flat-trio_16bar": (None, 5e-3),
}


def _folder(shared: pathlib.Path, name: str) -> pathlib.Path:
    return shared / "golden" / "tf_checkpoints" / name


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_the_recorded_ones(name: str, shared: pathlib.Path) -> None:
    task, tolerance = MODELS[name]
    vae = MusicVAE.from_checkpoint(_folder(shared, name), task)
    assert vae.config.task == name.partition("-")[2]
    with np.load(_folder(shared, name) / "expected.npz") as expected:
        mu, sigma = vae.encode(expected["tokens"])
        np.testing.assert_allclose(mu, expected["mu"], atol=1e-5)
        np.testing.assert_allclose(sigma, expected["sigma"], atol=1e-5)
        np.testing.assert_array_equal(vae.decode(expected["z"]), expected["greedy_tokens"])
        found = vae.logits(expected["z"], expected["tokens"])
        tracks = found if isinstance(found, tuple) else (found,)
        first = np.concatenate([track[0] for track in tracks], axis=-1)
        np.testing.assert_allclose(first, expected["logits_row0"], atol=tolerance)
        nats = reconstruction_nats(
            tuple(jnp.asarray(track) for track in tracks), jnp.asarray(expected["tokens"])
        )
        np.testing.assert_allclose(nats, expected["r_loss"], rtol=1e-4)


def _train_config(config: Config, hparams: dict[str, Any]) -> Config:
    """Return the configuration of the recorded step, which is teacher forced."""
    return config.replace(
        batch_size=3,
        beta=float(hparams["max_beta"]),
        beta_rate=hparams["beta_rate"],
        free_bits=float(hparams["free_bits"]),
        sampling_schedule="constant",
        sampling_rate=0.0,
        transpose=0,
        dtype="float32",
        learning_rate=hparams["learning_rate"],
        min_learning_rate=hparams["min_learning_rate"],
        warmup_steps=0,
        adam_b2=0.999,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_training_continues_as_the_reference_does(name: str, shared: pathlib.Path) -> None:
    found = reference.read_checkpoint(_folder(shared, name), MODELS[name][0], with_adam=True)
    assert found.adam is not None
    with np.load(_folder(shared, name) / "expected.npz") as stored:
        expected = dict(stored)
    about = json.loads(str(expected["config"]))
    assert found.step == found.adam.updates == about["global_step"]
    config = _train_config(found.config, about["hparams"])
    state = state_at(found.step, found.params, config, found.adam)
    batch = Batch(jnp.asarray(expected["tokens"]), jnp.asarray(expected["resume_eps"]))
    state, measured = jax.jit(make_train_step(build_model(config), config))(state, batch)
    assert measured["loss_reference"] == pytest.approx(float(expected["resume_loss"]), rel=1e-4)
    assert measured["gradient_norm"] == pytest.approx(float(expected["resume_norm"]), rel=1e-3)
    assert int(state.step) == int(expected["resume_after/global_step"])
    before = variables_from_params(found.params)
    for variable, array in variables_from_params(state.params).items():
        after = expected[f"resume_after/{variable}"]
        moved = np.abs(after - before[variable]).max()
        # Where a gradient is near 0 Adam scales its rounding up, and the rounding depends on how
        # XLA compiles: up to 0.018 of the largest movement, for one element of one model.
        np.testing.assert_allclose(array, after, atol=2e-2 * moved + 2e-7, err_msg=variable)


def test_a_checkpoint_without_moments_starts_adam_anew(shared: pathlib.Path) -> None:
    path = _folder(shared, "cat-mel_2bar_tar") / "cat-mel_2bar.tar"
    found = reference.read_checkpoint(path, "mel_2bar", with_adam=True)
    assert (found.step, found.adam) == (3, None)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("cat-mel_2bar_small", "mel_2bar"),
        ("cat-mel_2bar_big", "mel_2bar"),
        ("cat-drums_2bar_small", "drums_2bar"),
        ("cat-drums_2bar_big", "drums_2bar"),
        ("flat-mel_16bar", "mel_16bar"),
        ("flat-trio_16bar", "trio_16bar"),
        ("hier-mel_16bar", "mel_16bar"),
        ("hier-trio_16bar", "trio_16bar"),
        ("hierdec-mel_16bar", "mel_16bar"),
        ("hierdec-trio_16bar", "trio_16bar"),
    ],
)
def test_tasks_of_published_models_are_inferred(name: str, task: str, shared: pathlib.Path) -> None:
    assert infer_task(_published(name, shared)) == task


@pytest.mark.parametrize(
    "name",
    [
        "cat-mel_2bar_med_chords",
        "groovae_4bar",
        "nade-drums_2bar_full",
        "hier-multiperf_vel_1bar_med",
    ],
)
def test_unsupported_models_are_refused(name: str, shared: pathlib.Path) -> None:
    with pytest.raises(InputError, match="no supported model"):
        infer_task(_published(name, shared))


def test_published_sizes_do_not_exclude_the_only_task() -> None:
    cell = "bidirectional_rnn/fw/multi_rnn_cell/cell_0/lstm_cell"
    decoder = "decoder/multi_rnn_cell/cell_{}/lstm_cell/bias"
    shapes = {  # those of the small two-bar models, but trios
        f"encoder/cell_0/{cell}/kernel": (692 + 512, 4 * 512),
        f"encoder/cell_0/{cell}/bias": (4 * 512,),
        "encoder/mu/bias": (256,),
        decoder.format(0): (4 * 256,),
        decoder.format(1): (4 * 256,),
        "decoder/output_projection/bias": (692,),
    }
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    assert infer_task(zeros) == "trio_16bar"


def _published(name: str, shared: pathlib.Path) -> dict[str, np.ndarray]:
    """Return a published model's variables, of zero memory."""
    spec = json.loads((shared / "spec" / "variables" / f"{name}.json").read_text())
    shapes = {variable: entry["shape"] for variable, entry in spec["variables"].items()}
    return {variable: np.broadcast_to(np.float32(0), shape) for variable, shape in shapes.items()}


def _write_tiny(folder: pathlib.Path, extra: dict[str, np.ndarray] | None = None) -> None:
    tensors = reference.tensors(case("mel_2bar", "flat").params, 5)
    write_bundle(folder / "model.ckpt-5", tensors | (extra or {}))


def test_shapes_that_leave_the_task_open(tmp_path: pathlib.Path) -> None:
    _write_tiny(tmp_path)
    with pytest.raises(InputError, match=r"mel_2bar and mel_16bar; give --task$"):
        MusicVAE.from_checkpoint(tmp_path)
    assert MusicVAE.from_checkpoint(tmp_path, "mel_16bar").config.task == "mel_16bar"
    with pytest.raises(InputError, match=r"model\.ckpt-5\.index: variables: .* shape \[101, 28\]"):
        MusicVAE.from_checkpoint(tmp_path, "drums_2bar")


def test_wrong_contents_are_named(tmp_path: pathlib.Path) -> None:
    _write_tiny(tmp_path, {"encoder/mu/bias": np.zeros(4, np.int32)})
    with pytest.raises(InputError, match="encoder/mu/bias is int32, it must be float32"):
        MusicVAE.from_checkpoint(tmp_path, "mel_2bar")
    _write_tiny(tmp_path, {"encoder/mu/bias/Adam": np.zeros(4, np.float32)})
    with pytest.raises(InputError, match=r"/Adam.* is missing or of another shape"):
        reference.read_checkpoint(tmp_path, "mel_2bar", with_adam=True)
    _write_tiny(tmp_path, {"global_step": np.array([1, 2])})
    with pytest.raises(InputError, match="global_step is not a number"):
        MusicVAE.from_checkpoint(tmp_path, "mel_2bar")


@pytest.mark.parametrize(("updates", "step"), [(5, 5), (400, 5), (2000, 150_000), (200_000, 7)])
def test_adams_updates_follow_from_the_powers(
    updates: int, step: int, tmp_path: pathlib.Path
) -> None:
    params = case("mel_2bar", "flat").params
    adam = reference.Adam(params, params, updates)
    write_bundle(tmp_path / "m", reference.tensors(params, step, adam))
    found = reference.read_checkpoint(tmp_path, "mel_2bar", with_adam=True)
    assert found.adam is not None
    # Both powers of 200,000 updates are 0: only the step is left to go by.
    assert found.adam.updates == (step if updates == 200_000 else updates)


def test_a_round_trip_keeps_every_byte(tmp_path: pathlib.Path) -> None:
    params = case("trio_16bar", "hierdec").params
    moments = [jax.tree.map(lambda leaf, n=n: leaf * n, params) for n in (2, 3)]
    adam = reference.Adam(moments[0], moments[1], 9)
    write_bundle(tmp_path / "m", reference.tensors(params, 9, adam))
    found = reference.read_checkpoint(tmp_path, with_adam=True)
    assert found.adam is not None
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    jax.tree.map(np.testing.assert_array_equal, list(found.adam[:2]), moments)
    write_bundle(tmp_path / "again", reference.tensors(found.params, found.step, found.adam))
    with TensorBundle(tmp_path / "m") as one, TensorBundle(tmp_path / "again") as other:
        assert one.entries == other.entries  # checksums included

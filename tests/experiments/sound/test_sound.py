"""A model of sound from a folder of files to scores and generated files."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import pathlib
import re
import wave
from typing import Any

import jax
import numpy as np
import pytest
import soundfile
from absl import flags

from data_pipeline import cli, prepare_audio
from experiments import analyze, compare, evaluate, generate, grid_search
from experiments.cli import config_flags
from experiments.cli.progress import Recorder
from experiments.generation.options import Options
from experiments.studio.models import loading, worker
from experiments.sweep import executors
from experiments.sweep.points import open_folders
from musicvae_jax import data, sound_evaluation
from musicvae_jax.config import Config, InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.storage import checkpoints, run_folder
from musicvae_jax.training import loop
from tests.support.sound_folder import SAMPLE_RATE, sine, write_folder

SMALL: dict[str, Any] = {
    "encoder_sizes": (4, 4),
    "decoder_sizes": (4, 4),
    "conv_width": 5,
    "dtype": "float32",
    "batch_size": 8,
    "train_steps": 6,
    "log_every": 2,
    "eval_every": 3,
    "save_every": 2,
    "sample_every": 3,
    "steps_per_dispatch": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("sound")


@pytest.fixture(scope="module")
def store(folder: pathlib.Path) -> data.Store:
    clips = write_folder(folder / "clips")
    options = prepare_audio.Options(
        input=str(clips), output=str(folder / "store"), rate=200, seconds=1
    )
    prepare_audio.prepare(options)
    return data.open_store(folder / "store")


@pytest.fixture(scope="module")
def config(store: data.Store) -> Config:
    return store.task.config.replace(**SMALL)


def _fit(
    config: Config, store: data.Store, run_dir: pathlib.Path, stop_after: int = 1000
) -> loop.Outcome:
    run = run_folder.open_run_folder(run_dir, config, store)
    recorder, asked = Recorder(run, config.run.train_steps), iter(range(stop_after))
    outcome = loop.fit(
        config, store, str(run), recorder, should_stop=lambda: next(asked, None) is None
    )
    recorder.close()
    return outcome


@pytest.fixture(scope="module")
def trained(config: Config, store: data.Store, folder: pathlib.Path) -> loop.Outcome:
    return _fit(config, store, folder / "run")


@pytest.fixture(scope="module")
def run_dir(trained: loop.Outcome, folder: pathlib.Path) -> pathlib.Path:
    return folder / "run"


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal(
    trained: loop.Outcome, config: Config, store: data.Store, folder: pathlib.Path
) -> None:
    assert _fit(config, store, folder / "again", stop_after=1).stopped
    resumed = _fit(config, store, folder / "again")
    jax.tree.map(np.testing.assert_array_equal, resumed.state, trained.state)
    written = {path.name: path.read_bytes() for path in (folder / "run" / "samples").iterdir()}
    assert set(written) == {
        f"step_0000000{n}.{end}" for n in (3, 6) for end in ("npz", "png", "wav")
    }
    for name, content in written.items():
        assert (folder / "again" / "samples" / name).read_bytes() == content
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert all({"snr_db", "kl_bits"} <= set(json.loads(line)) for line in lines)


@pytest.mark.slow
def test_evaluate_scores_and_draws_the_map(run_dir: pathlib.Path, store: data.Store) -> None:
    text = evaluate.evaluate(evaluate.Options(run_dir=str(run_dir), split="train"))
    found = json.loads((run_dir / "evaluation_train.json").read_text())
    assert found["examples"] == len(store.splits["train"])
    assert f"signal-to-noise ratio  {found['snr_db']:.2f} dB" in text
    assert "accuracy               not defined" in text
    assert (run_dir / "map_train.png").read_bytes().startswith(b"\x89PNG")
    assert (run_dir / "evaluation_train.csv").read_text().startswith("score,value\nexamples,")
    vae = MusicVAE.restore(run_dir)
    rows = np.asarray(store.splits["train"])
    signal = rows / 2**15
    noise = signal - vae.reconstruct(rows) / 2**15
    ratios = 10 * np.log10((signal**2).sum(axis=1) / (noise**2).sum(axis=1))
    assert found["snr_db"] == pytest.approx(ratios.mean(), abs=0.02)


def test_the_log_spectral_distance_of_a_softer_copy_is_its_attenuation() -> None:
    noise = jax.random.uniform(jax.random.key(0), (2, 3000), minval=-0.5, maxval=0.5)
    distance = sound_evaluation.log_spectral_distance_db(noise, noise * 0.5)
    np.testing.assert_allclose(distance, 20 * np.log10(2.0), rtol=0.01)
    np.testing.assert_allclose(sound_evaluation.log_spectral_distance_db(noise, noise), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "more", "num"),
    [
        ("sample", {"num": 3}, 3),
        ("reconstruct", {"inputs": ("store:train:0", "sound.wav")}, 2),
        ("interpolate", {"inputs": ("store:train:0", "store:train:1"), "steps": 3}, 3),
    ],
)
def test_generate_writes_sound(
    mode: str,
    more: dict[str, Any],
    num: int,
    run_dir: pathlib.Path,
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    soundfile.write("sound.wav", sine(50.0, 1.5), SAMPLE_RATE)
    options = Options(run_dir=str(run_dir), mode=mode, output=str(tmp_path), **more)
    written = generate.generate(options)
    assert sorted(written) == sorted(tmp_path.iterdir())
    sounds = [path for path in written if path.suffix == ".wav"]
    assert len(sounds) == num
    with np.load(tmp_path / f"{mode}.npz") as arrays:
        samples = arrays["samples"]
    assert (samples.shape, samples.dtype) == ((num, 200), np.int16)
    with wave.open(str(sounds[0])) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (200, 200)
        found = np.frombuffer(sound.readframes(200), "<i2")
    np.testing.assert_allclose(found, samples[0], atol=1)
    generate.generate(dataclasses.replace(options, overwrite=True))


def _swept(store: data.Store, folder: pathlib.Path, *arguments: str) -> str:
    """Sweep a tiny model with the command's functions; return what it printed."""
    given = SMALL | {"encoder_sizes": "4,4", "decoder_sizes": "4,4", "sample_every": 0}
    values = flags.FlagValues()
    cli.define_flags(grid_search.Options, values)
    config_flags.define(values)
    fields = [f"--{name}={value}" for name, value in given.items()]
    values(["grid", f"--data_dir={store.path}", f"--run_dir={folder}", *fields, *arguments])
    options = cli.options_from_flags(grid_search.Options, values)
    _, axes, points = grid_search.checked_sweep(options, values)
    tasks = open_folders(folder, points, store)
    executors.train(tasks, store, options, lambda: False, lambda _: None)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        grid_search.compare(options, store, axes, tasks, "command")
    return printed.getvalue()


@pytest.fixture(scope="module")
def swept(
    config: Config, store: data.Store, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, str]:
    """Folder of a sweep of 2 x 2, whose first values are those of `config`, and what it printed."""
    folder, train = tmp_path_factory.mktemp("swept") / "sweep", config.train
    rates, betas = f"{train.learning_rate},0.01", f"{train.beta},0.5"
    return folder, _swept(store, folder, f"--grid=learning_rate={rates}", f"--grid=beta={betas}")


@pytest.mark.slow
def test_a_point_of_a_sweep_equals_its_single_run(
    trained: loop.Outcome, config: Config, swept: tuple[pathlib.Path, str]
) -> None:
    folder, _ = swept
    points = sorted((folder / "points").iterdir())
    restored = [checkpoints.restore_params(point, "latest") for point in points]
    assert [step for _, _, step in restored] == [6] * 4
    (params,) = (
        params
        for found, params, _ in restored
        if (found.train.learning_rate, found.train.beta)
        == (config.train.learning_rate, config.train.beta)
    )
    alone = dict(jax.tree.leaves_with_path(jax.device_get(trained.state.params)))
    for path, value in jax.tree.leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        # The encoder's normalisation removes these biases: their gradients are rounding alone,
        # which Adam scales to steps of full size.
        if not re.search(r"encoder.*conv_[01].*bias", name):
            np.testing.assert_allclose(value, alone[path], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_sweep_ranks_its_points_by_the_signal_to_noise_ratio(
    config: Config, swept: tuple[pathlib.Path, str]
) -> None:
    folder, printed = swept
    with (folder / "results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {(float(row["learning_rate"]), float(row["beta"])) for row in rows} == {
        (rate, beta)
        for rate in (config.train.learning_rate, 0.01)
        for beta in (config.train.beta, 0.5)
    }
    ratios = [float(row["snr_db"]) for row in rows]
    assert ratios == sorted(ratios, reverse=True)
    assert printed.split("rank")[1].splitlines()[1].split()[1] == rows[0]["point"]
    assert "SNR dB  spectral distance dB  KL bits  ELBO nats  active units" in printed
    assert {"sampled_accuracy", "teacher_forced_accuracy"} & set(rows[0]) == set()
    # The scores are those that evaluate writes of the point.
    run_dir = folder / "points" / rows[0]["point"]
    evaluate.evaluate(evaluate.Options(run_dir=str(run_dir), split="validation"))
    alone = json.loads((run_dir / "evaluation_validation.json").read_text())
    for name in ("snr_db", "log_spectral_distance_db", "kl_bits", "elbo_nats", "active_units"):
        assert float(rows[0][name]) == pytest.approx(alone[name], rel=1e-5)
    text = compare.compare([str(folder / "points" / row["point"]) for row in rows])
    (line,) = (t for t in text.splitlines() if t.startswith("validation, sweep: signal-to-noise"))
    assert [float(cell) for cell in line.split("dB")[1].split()] == pytest.approx(ratios, rel=1e-5)
    page = (folder / "report.html").read_text()
    assert "0 dB is that of silence" in page
    assert page.count("<svg") == 4 + 1 + 4  # maps, rate and distortion, curves


@pytest.mark.slow
def test_what_needs_notes_is_refused(run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def make(**given: Any) -> None:
        generate.generate(
            Options(run_dir=str(run_dir), output=str(tmp_path), **{"mode": "sample"} | given)
        )

    with pytest.raises(InputError, match="mode: a sound model supports the modes sample, reconstr"):
        make(mode="long")
    with pytest.raises(InputError, match="format: musicxml needs notes"):
        make(formats=("musicxml",))
    with pytest.raises(InputError, match="temperature: not available for sound models"):
        make(temperature=1.0)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"text.wav: one of the damaged files"):
        make(mode="reconstruct", inputs=(str(tmp_path / "text.wav"),))
    with pytest.raises(InputError, match="is a model of sound, the studio plays notes"):
        list(loading.load((), (str(run_dir),), worker.Worker()))
    with pytest.raises(InputError, match="is a model of sound, but this command needs notes"):
        analyze.analyze(analyze.Options(run_dir=str(run_dir)))

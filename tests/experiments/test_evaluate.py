from __future__ import annotations

import csv
import dataclasses
import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate
from experiments.cli.run_data import open_run_data
from experiments.evaluate import Options
from musicvae_jax import data, evaluation, objectives
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.registry import VAE, build_vae
from musicvae_jax.storage import run_folder
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import get_task
from tests.support.commands import run_python
from tests.support.synthetic_store import random_rows, write_store


def _remembering_model(config: Config, sigma: float) -> VAE:
    """A model whose z is its tokens: it decodes them again, as far as the noise lets it."""
    task = get_task(config.task)
    size = int(np.prod(task.row_shape))
    spread = np.array([0.0, 1.0] + [0.01] * (size - 2), np.float32)

    def encode(params: Any, tokens: jax.Array) -> Posterior:
        mu = tokens.reshape(-1, size).astype(jnp.float32) * spread[None, :]
        return Posterior(mu, jnp.full(mu.shape, sigma) * spread.clip(1e-30)[None, :])

    def tokens_of(z: jax.Array) -> jax.Array:
        rows = jnp.round(z / spread.clip(1e-30)[None, :]).astype(jnp.int32)
        return rows.reshape(-1, *task.row_shape)

    def logits(params: Any, z: jax.Array, tokens: jax.Array) -> tuple[jax.Array, ...]:
        columns = tokens.reshape(*tokens.shape[:2], -1)
        return tuple(
            jnp.zeros((*columns.shape[:2], track.num_classes))
            .at[:, :, 0]
            .set(jnp.where(columns[:, :, k] == 0, 5.0, 0.0))
            for k, track in enumerate(task.tracks)
        )

    def generate(params: Any, z: jax.Array, key: jax.Array, temperature: float) -> jax.Array:
        return tokens_of(z)

    return VAE(lambda key: {}, encode, logits, generate)


def _config(task: str, **fields: Any) -> Config:
    return get_task(task).config.replace(batch_size=4, dtype="float32", **fields)


def test_each_column_decodes_from_its_z(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config("mel_2bar", z_size=32)
    monkeypatch.setattr(evaluation, "build_model", lambda c: _remembering_model(c, 0.3))
    rows = random_rows(np.random.default_rng(0), get_task("mel_2bar"), 11)
    rows[:, 0] = 0
    found = evaluation.evaluate(config, {}, rows)
    assert found.examples == 11
    assert found.greedy["accuracy"] == {"overall": 1.0}
    assert found.greedy["f1"] == {"overall": 1.0}
    # Noise of 0.3 flips a token by more than a half in 10 of 100 draws.
    assert 0.85 < found.sampled["accuracy"]["overall"] < 0.95
    assert 0.0 < found.sampled_error["accuracy"]["overall"] < 0.02
    silent = found.baselines["no_event_accuracy"]["overall"]
    assert found.teacher_forced["accuracy"]["overall"] == pytest.approx(silent)
    assert found.teacher_forced["onset_accuracy"] == {"overall": 0.0}
    assert (found.active_units, found.z_size) == (np.sum(rows.var(axis=0) > 100), 32)


def test_tracks_are_scored_apart_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config("trio_16bar", z_size=768)
    monkeypatch.setattr(evaluation, "build_model", lambda c: _remembering_model(c, 0.0))
    rows = random_rows(np.random.default_rng(0), get_task("trio_16bar"), 5)
    rows[:, 0] = 0
    rows[:, :, 1] = 0
    found = evaluation.evaluate(config, {}, rows)
    tracks = ["melody", "bass", "drums", "overall"]
    assert list(found.greedy["accuracy"]) == list(found.cross_entropy) == tracks
    assert found.teacher_forced["accuracy"]["bass"] == 1.0
    parts = [found.teacher_forced["accuracy"][track] for track in tracks]
    assert parts[3] == pytest.approx(np.mean(parts[:3]))
    costs = [found.cross_entropy[track] for track in tracks]
    assert costs[3] == pytest.approx(sum(costs[:3]))
    assert costs[1] == pytest.approx(math.log(math.e**5 + 89) - 5, rel=1e-5)
    assert math.isnan(found.greedy["recall"]["bass"])
    text = evaluate.table(
        found, {"task": "trio_16bar", "split": "test", "step": 3, "checkpoint": 3}
    )
    assert "accuracy, bass" in text
    assert "notes: recall, overall" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run with untrained parameters."""
    folder = tmp_path_factory.mktemp("evaluate")
    counts = {"train": 4, "validation": 0, "test": 11}
    store = data.open_store(write_store(folder / "store", "drums_2bar", counts))
    sizes = {"encoder_sizes": (8,), "decoder_sizes": (8,), "z_size": 4, "init": "default"}
    config = _config("drums_2bar", **sizes)
    run = run_folder.open_run_folder(folder / "run", config, store)
    with Checkpoints(run, create=True) as saved:
        saved.save(7, jax.jit(build_vae(config).init)(jax.random.key(0)), {"a": 1}, config)
    return run


def test_the_table_of_a_run(run_dir: pathlib.Path) -> None:
    text = evaluate.evaluate(Options(str(run_dir)))
    assert "drums_2bar, test split, 11 examples (all), checkpoint of step 7 (best)" in text
    assert "3 draws of z and tokens" in text
    heads = [line.split() for line in text.splitlines()[2:4]]
    assert heads == [
        ["teacher", "no", "onset"],
        ["forced", "greedy", "sampled", "event", "unigram", "unigram"],
    ]
    found = json.loads((run_dir / "evaluation_test.json").read_text())
    assert (found["examples"], found["step"], found["draws"]) == (11, 7, 3)
    with (run_dir / "evaluation_test.csv").open() as lines:
        rows = {row["score"]: row for row in csv.DictReader(lines)}
    assert float(rows["accuracy"]["sampled"]) == found["sampled"]["accuracy"]["overall"]
    assert float(rows["f1"]["greedy"]) == found["greedy"]["f1"]["overall"]
    assert rows["accuracy"]["track"] == "overall"
    nats = found["cross_entropy"]["overall"] * 32 + found["kl_bits"] * math.log(2)
    assert found["elbo_nats"] == pytest.approx(-nats, rel=1e-6)
    # Untrained: near a uniform guess among 512 tokens.
    assert found["cross_entropy"]["overall"] == pytest.approx(math.log(512), rel=0.02)


def test_the_figures_are_those_of_the_rows_in_one_batch(run_dir: pathlib.Path) -> None:
    found = json.loads((run_dir / "evaluation_test.json").read_text())
    store = open_run_data(run_dir, None, get_task("drums_2bar"))
    rows = jnp.asarray(store.splits["test"])
    config = run_folder.read_config(run_dir)
    model = build_vae(config)
    params = jax.jit(model.init)(jax.random.key(0))
    posterior = model.encode(params, rows)
    assert found["kl_bits"] * math.log(2) == pytest.approx(
        float(objectives.kl_nats(posterior).mean()), rel=1e-5
    )
    (logits,) = model.logits(params, posterior.mu, rows)
    accuracy = float((logits.argmax(-1) == rows).mean())
    assert found["teacher_forced"]["accuracy"]["overall"] == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, "has no validation rows"),
        ({"split": "tset"}, "'tset' is not one of train, validation, test"),
        ({"draws": 1}, "draws: 1 is out of range"),
        ({"checkpoint": "8"}, "is not best, latest or one of 7"),
        ({"data_dir": "nowhere"}, "is not a token store"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    run_dir: pathlib.Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate.evaluate(Options(str(run_dir), **options))


def test_data_of_another_task_is_refused(run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    store = write_store(tmp_path / "store", "mel_2bar")
    with pytest.raises(InputError, match="holds rows of mel_2bar, the model is of drums_2bar"):
        evaluate.evaluate(Options(str(run_dir), data_dir=str(store)))


def test_changed_data_must_be_named(run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    task = get_task("drums_2bar")
    known = run_folder.read_data(run_dir)
    other = {"path": known["path"], "fingerprint": "0"}
    (tmp_path / "data.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="has changed since the run was trained on it"):
        open_run_data(tmp_path, None, task)
    assert open_run_data(tmp_path, known["path"], task).task == task
    assert open_run_data(tmp_path, None, task, allow_changed=True).task == task


def test_edited_data_must_be_allowed(run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    counts = {"train": 4, "validation": 0, "test": 11}
    store = write_store(tmp_path / "store", "drums_2bar", counts)
    rows = np.load(store / "test.npy")
    np.save(store / "test.npy", np.roll(rows, 1, axis=1))
    options = Options(str(run_dir), data_dir=str(store), draws=2)
    with pytest.raises(InputError, match=r"test\.npy has changed .* or give --allow_changed_data"):
        evaluate.evaluate(options)
    assert "11 examples" in evaluate.evaluate(dataclasses.replace(options, allow_changed_data=True))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["flat", "hierdec"])
def test_the_noise_of_a_row_does_not_depend_on_the_batch_size(architecture: str) -> None:
    sizes = {"encoder_sizes": (4,), "decoder_sizes": (4,), "z_size": 3}
    config = _config("drums_2bar", architecture=architecture, **sizes)
    rows = random_rows(np.random.default_rng(0), get_task("drums_2bar"), 6)
    params = build_vae(config).init(jax.random.key(0))
    whole, parts, other = (
        evaluation.evaluate(config.replace(batch_size=size), params, rows, draws=2, seed=seed)
        for size, seed in ((6, 0), (2, 0), (6, 1))
    )
    assert parts.sampled == whole.sampled != other.sampled
    assert parts.elbo_nats == pytest.approx(whole.elbo_nats, rel=1e-5)
    assert other.elbo_nats != pytest.approx(whole.elbo_nats, rel=1e-5)


def sampled_scores(batch_size: int) -> tuple[int, evaluation.Figures]:
    """Score a small model: the number of devices of this process, and the scores."""
    config = _config("drums_2bar", encoder_sizes=(4,), decoder_sizes=(4,), z_size=3)
    rows = random_rows(np.random.default_rng(0), get_task("drums_2bar"), 6)
    params = build_vae(config).init(jax.random.key(0))
    found = evaluation.evaluate(config.replace(batch_size=batch_size), params, rows, draws=2)
    return len(jax.devices()), found.sampled


@pytest.mark.slow
def test_the_noise_of_a_row_does_not_depend_on_the_number_of_devices() -> None:
    # On three devices a batch of 4 rows becomes one of 6.
    program = (
        "import json; from tests.experiments.test_evaluate import sampled_scores; "
        "print(json.dumps(sampled_scores(4)))"
    )
    done = run_python("-c", program, env={"XLA_FLAGS": "--xla_force_host_platform_device_count=3"})
    assert done.returncode == 0, done.stderr
    devices, scores = json.loads(done.stdout)
    assert devices == 3
    assert scores == sampled_scores(4)[1]

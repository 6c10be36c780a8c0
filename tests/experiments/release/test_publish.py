"""A run becomes a model of the package: its file, its card, and every command's --model."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from absl import flags

from experiments import (
    analyze,
    attributes,
    encode,
    evaluate,
    export,
    generate,
    interpolation,
    models,
    train,
)
from experiments.analysis.inputs import Options as AnalyzeOptions
from experiments.cli import config_flags
from experiments.cli.run_options import choose_prior
from experiments.generation.options import Options as GenerateOptions
from experiments.release import publish, results
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.interop import safetensors_file
from musicvae_jax.latent import fitted_prior
from musicvae_jax.latent.fitted_prior import Record
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.pretrained import packaged
from musicvae_jax.priors import Mixture
from tests.support.untrained_run import make_run

NAME, TASK = "tiny", "drums_2bar"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """A folder with a run, its store, and what `publish` made of them; and the card."""
    folder = tmp_path_factory.mktemp("published")
    run = pathlib.Path(make_run(folder, TASK))
    rng = np.random.default_rng(0)
    scales = np.tril(rng.normal(0.0, 0.1, (2, 4, 4))) + np.eye(4)
    means = rng.normal(0.0, 1.0, (2, 4))
    parts = (np.array([0.25, 0.75]), means, scales)
    prior = Mixture(*(part.astype(np.float32) for part in parts))
    fitted_prior.save(run, Record(prior, 7, {"rows": 64}))
    machine = {"cores": 2, "devices": ["cpu"]}
    start: dict[str, Any] = {
        "command": f"python -m experiments.train --run_dir={run} --data_dir=/data --beta=0.1"
    }
    start |= {"machine": machine, "git": {"commit": "0123456789abcdef"}}
    (run / "starts.jsonl").write_text(json.dumps(start) + "\n")
    speed = [{"split": "train", "step": step, "examples_per_second": 2.0} for step in (4, 7)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in speed))
    options = publish.Options(
        run_dir=str(run),
        data_dir=str(folder / "store"),
        name=NAME,
        also=(f"other={folder / 'store'}:validation",),
        num=24,
        changed=24,
        output=str(folder / "models"),
        samples=str(folder / "samples"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaged, "FOLDER", folder / "models")
        text = publish.publish(options)
    return folder, text


@pytest.fixture
def folder(published: tuple[pathlib.Path, str], monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The folder, with its model in place of those of the package."""
    monkeypatch.setattr(packaged, "FOLDER", published[0] / "models")
    return published[0]


def test_the_file_has_the_model_its_prior_and_its_vectors(folder: pathlib.Path) -> None:
    original, found = MusicVAE.restore(folder / "run"), MusicVAE.from_pretrained(NAME)
    assert (found.config, found.step) == (original.config, 7)
    assert original.prior is not None
    assert found.prior is not None
    for known, stored in zip(original.prior, found.prior, strict=True):
        np.testing.assert_allclose(stored, known, rtol=1e-3, atol=1e-6)
    # Nothing in the rows is syncopated.
    assert set(found.attributes) == {"hat_density", "kick_density", "snare_density"}
    rows = np.load(folder / "store" / "test.npy")
    equal = (found.reconstruct(rows) == original.reconstruct(rows)).mean()
    about = safetensors_file.read(packaged.path_of(NAME)).about
    # The logits of an untrained model are nearly equal, so that rounding changes some tokens.
    assert about["float16_equal_steps"] == equal > 0.9
    np.testing.assert_array_equal(found.draw(3, 5), found.draw(3, 5, "fitted"))
    assert not np.array_equal(found.draw(3, 5), found.draw(3, 5, "standard"))


def test_sources_have_the_names_of_folders_and_known_licences(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    entries = [{"name": name, "files": 3} for name in ("groove.TAR.GZ", "pop909", "freedoom.zip")]
    store = data.open_store(folder / "store")
    found = publish.sources_of(store._replace(meta={"sources": entries}))
    assert [entry["name"] for entry in found] == ["groove", "pop909", "freedoom"]
    shutil.copytree(folder / "store", tmp_path / "store")
    meta = tmp_path / "store" / "meta.json"
    entries.append({"name": "lakh.tar.gz", "files": 1})
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"sources": entries}))
    options = publish.Options(
        run_dir=str(folder / "run"),
        data_dir=str(tmp_path / "store"),
        name=NAME,
        output=str(tmp_path / "models"),
        samples=str(tmp_path / "samples"),
    )
    with pytest.raises(InputError, match="the licence of 'lakh' is not known here; known are: "):
        publish.publish(options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_the_card_has_the_numbers_that_evaluate_prints(
    folder: pathlib.Path, published: tuple[pathlib.Path, str]
) -> None:
    options = evaluate.Options(
        model=NAME, data_dir=str(folder / "store"), output=str(folder / "scores")
    )
    text = evaluate.evaluate(options)
    found = json.loads((folder / "scores" / "evaluation_test.json").read_text())
    line = next(line for line in published[1].splitlines() if line.startswith("| test |"))
    cells = [cell.strip() for cell in line.split("|")[2:]]
    assert cells[0] == "24"
    for cell, kind in zip(cells[1:4], ("teacher_forced", "greedy", "sampled"), strict=True):
        assert cell == f"{found[kind]['accuracy']['overall']:.3f}"
    assert cells[6] == f"{found['elbo_nats']:.1f}"
    assert f"checkpoint of step 7 ({NAME})" in text
    # 7 steps of 512 rows at 2 rows per second.
    about = safetensors_file.read(packaged.path_of(NAME)).about
    assert about["minutes"] == round(7 * found_batch_size(folder) / 2 / 60)
    assert (
        "experiments.train --run_dir=runs/tiny --data_dir=data/drums_2bar --beta=0.1"
        in (published[1])
    )
    for seed in range(5):
        assert (folder / "samples" / f"{NAME}_{seed}.mid").read_bytes().startswith(b"MThd")
    assert (folder / "samples" / f"{NAME}.png").read_bytes().startswith(b"\x89PNG")


def found_batch_size(folder: pathlib.Path) -> int:
    return MusicVAE.restore(folder / "run").config.train.batch_size


def test_the_samples_are_those_of_the_command(folder: pathlib.Path) -> None:
    options = GenerateOptions(
        model=NAME, mode="sample", num=1, seed=3, output=str(folder / "again"), formats=("midi",)
    )
    generate.generate(options)
    again = (folder / "again" / "sample_1.mid").read_bytes()
    assert again == (folder / "samples" / f"{NAME}_3.mid").read_bytes()


@pytest.mark.slow
def test_every_command_takes_the_model(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    store: dict[str, Any] = {"model": NAME, "data_dir": str(folder / "store")}
    place: dict[str, Any] = {"output": str(tmp_path / "out")}
    text = analyze.analyze(AnalyzeOptions(**store, **place, num=24))
    assert "24 samples from the fitted prior" in text
    assert "from the fitted prior" in attributes.run(
        attributes.Options(**store, **place, num=8, rows=40)
    )
    assert "pairs of test rows" in interpolation.run(
        interpolation.Options(**store, **place, num=2, steps=2)
    )
    encoded = encode.run(
        encode.Options(model=NAME, inputs=(store["data_dir"],), output=str(tmp_path / "z"))
    )
    assert "112 rows" in encoded
    path = export.export(
        export.Options(format="safetensors", output=str(tmp_path / "m.safetensors"), model=NAME)
    )
    assert MusicVAE.from_file(path).prior is not None
    wanted = GenerateOptions(
        model=NAME, mode="attribute", attribute="swing", inputs=("a",), output="-"
    )
    with pytest.raises(InputError, match="attribute: drums_2bar has no 'swing'"):
        generate.read_vector(wanted, MusicVAE.from_pretrained(NAME))


def test_training_starts_from_the_model_with_its_sizes(folder: pathlib.Path) -> None:
    values = flags.FlagValues()
    config_flags.define(values)
    values(["", "--batch_size=16", "--z_size=5"])
    _, config = train.checked_inputs(str(folder / "store"), values, NAME)
    assert (config.model.encoder_sizes, config.model.decoder_sizes) == ((8,), (8,))
    assert (config.model.z_size, config.train.batch_size) == (5, 16)


def test_the_tables_list_the_model(folder: pathlib.Path) -> None:
    line = next(line for line in models.table().splitlines() if line.startswith(NAME))
    assert line.split()[1] == TASK
    page = results.document()
    for start in (
        f"| {NAME} | test |",
        f"| {NAME} | nearest training row |",
        f"| {NAME} | other |",
    ):
        assert any(line.startswith(start) for line in page.splitlines())


def test_what_does_not_fit_is_refused(folder: pathlib.Path) -> None:
    run, store = str(folder / "run"), str(folder / "store")
    with pytest.raises(InputError, match="there is no 'drum' in this package; there are: tiny"):
        MusicVAE.from_pretrained("drum")
    both, neither = {"run_dir": run, "model": NAME}, {"run_dir": None}
    for given, word in ((both, "both"), (neither, "neither")):
        with pytest.raises(InputError, match=f"give either --run_dir or --model; {word}"):
            evaluate.evaluate(evaluate.Options(**given))
    with pytest.raises(InputError, match="checkpoint: a packaged model has only one"):
        evaluate.evaluate(evaluate.Options(model=NAME, checkpoint="latest"))
    with pytest.raises(InputError, match="a model of the package comes without its data"):
        evaluate.evaluate(evaluate.Options(model=NAME))
    with pytest.raises(InputError, match="output: needed with --model"):
        analyze.analyze(AnalyzeOptions(model=NAME, data_dir=store))
    with pytest.raises(InputError, match="output: needed with --model"):
        export.export(export.Options(format="jax", model=NAME))
    with pytest.raises(InputError, match="prior: 'flat' is not one of fitted, standard"):
        MusicVAE.from_pretrained(NAME).draw(1, 0, "flat")
    bare = MusicVAE.from_pretrained(NAME)
    bare.prior = None
    options = GenerateOptions(model=NAME, mode="sample", output="-", prior="fitted")
    with pytest.raises(InputError, match="prior: tiny has no fitted prior of step 7"):
        choose_prior(options, bare)

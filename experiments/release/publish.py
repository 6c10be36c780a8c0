"""Turn a trained run into a model of the package: weights, card, samples, all scores.

python -m experiments.release.publish --name=NAME --run_dir=RUN --data_dir=STORE --also=web=OTHER

Writes NAME.safetensors (float16, with the fitted prior and the attribute vectors) and the card
NAME.md to musicvae_jax/pretrained, and five samples of seeds 0 to 4 to docs/samples. All scores are
those of the file that was written, so that `evaluate --model=NAME` repeats them. --also names
further stores, NAME=STORE (all rows) or NAME=STORE:SPLIT, to score reconstructions of.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.inputs.archives import without_ending
from data_pipeline.render import files
from experiments import attributes
from experiments.analysis import inputs
from experiments.cli import compile_cache, run_record
from experiments.generation.modes import make
from experiments.generation.options import Options as GenerateOptions
from experiments.release import card, scores
from experiments.release.sources import source_of
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.interop import safetensors_file
from musicvae_jax.latent import fitted_prior
from musicvae_jax.latent.attributes import Vectors
from musicvae_jax.latent.fitted_prior import FITTED
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.pretrained import packaged
from musicvae_jax.storage import run_folder

SEEDS = range(5)
SAMPLES = pathlib.Path(__file__).resolve().parents[2] / "docs" / "samples"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to publish."""

    run_dir: str = option(help="Run folder of the model.")
    data_dir: str = option(help="Token store that it was trained on.")
    name: str = option(help="Name of the model.")
    checkpoint: str = option("best", help="Checkpoint: best, latest or a saved step.")
    also: tuple[str, ...] = option(
        (), help="Further store to score, NAME=STORE or NAME=STORE:SPLIT; may be repeated."
    )
    also_rows: int = option(10_000, help="Most rows of a further store, evenly spaced.")
    temperature: float | None = option(
        None, help="Temperature of the samples that are analysed. Default: that of generate."
    )
    num: int = option(1000, help="Samples and held-out rows to compare.")
    changed: int = option(256, help="Samples whose attributes are changed.")
    output: str = option(str(packaged.FOLDER), help="Folder of weights and card.")
    samples: str = option(str(SAMPLES), help="Folder of the samples.")


def publish(options: Options) -> str:
    """Write weights, samples and card; return the card.

    Raises:
      InputError: there is no such run or store, the run has no fitted prior, or the licence of a
        source of the store is not known.
    """
    original = MusicVAE.restore(options.run_dir, options.checkpoint)
    record = fitted_prior.load(options.run_dir)
    if original.prior is None or record is None:
        raise InputError(
            f"run_dir: {options.run_dir} has no fitted prior of step {original.step}; make it with "
            "python -m experiments.fit_prior"
        )
    store = data.open_store(options.data_dir)
    sources_of(store)  # an unknown licence is an error before the scoring, which takes long
    train = store.splits["train"]
    chosen = np.asarray(train[data.spread_rows(len(train), attributes.Options().rows)])
    vectors = attributes.find_vectors(original, original.step, chosen)
    path = pathlib.Path(options.output) / f"{options.name}{packaged.SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_model(path, original, vectors, {})  # all scores are those of the rounded weights
    vae = MusicVAE.from_file(path)
    about = facts(options, vae, store) | {"prior": record.about, "attributes": vectors.about}
    about["splits"] = score_splits(options, vae, store)
    about["accuracy"] = about["splits"]["test"]["accuracy"]
    about["float16_equal_steps"] = scores.equal_steps(original, vae, store.splits["test"])
    generated = GenerateOptions(
        model=options.name, mode="sample", output="-", temperature=options.temperature
    )
    analysed = inputs.Options(
        data_dir=options.data_dir,
        num=options.num,
        temperature=generated.sampling_temperature,
        prior=FITTED,
    )
    about["quality"] = scores.quality(vae, analysed)
    stored = vectors._replace(vectors=vae.attributes)
    about["changes"] = scores.attribute_changes(vae, stored, FITTED, options.changed)
    write_model(path, original, vectors, about)
    write_samples(options, vae)
    text = card.text(options.name, about, path)
    run_folder.write_text(path.with_suffix(".md"), text)
    return text


def write_model(path: pathlib.Path, vae: MusicVAE, vectors: Vectors, about: dict[str, Any]) -> None:
    """Write the file of a model in float16."""
    safetensors_file.write(
        path,
        vae.config,
        vae.params,
        vae.step,
        prior=vae.prior,
        attributes=vectors.vectors,
        about=about,
        dtype="float16",
    )


def facts(options: Options, vae: MusicVAE, store: data.Store) -> dict[str, Any]:
    """Return where the model comes from: task, sizes, training, data."""
    runs = _runs(pathlib.Path(options.run_dir))
    started = _start(runs[-1])
    minutes = (
        sum(training_seconds(run, run_folder.read_config(run).train.batch_size) for run in runs)
        / 60
    )
    return {
        "task": vae.task.name,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(vae.params)),
        "architecture": vae.config.model.architecture,
        "command": "\n".join(_commands(runs, options.name, vae.task.name)),
        "commit": (started.get("git") or {}).get("commit"),
        "seed": vae.config.train.seed,
        "step": vae.step,
        "minutes": round(minutes),
        "cores": started["machine"]["cores"],
        "devices": started["machine"]["devices"],
        "data": {
            "counts": store.meta["counts"],
            "sources": sources_of(store),
            "options": store.meta.get("options", {}),
            "sha256": store.meta["sha256"],
        },
    }


def sources_of(store: data.Store) -> list[dict[str, Any]]:
    """Return the sources that a store was made from, an archive by the name of its folder.

    Raises:
      InputError: the licence of one is not known.
    """
    found = [
        entry | {"name": without_ending(entry["name"])} for entry in store.meta.get("sources", [])
    ]
    for entry in found:
        source_of(entry)
    return found


def _runs(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return a run and those that its parameters come from, the first one first."""
    path = folder / run_folder.INIT_FROM
    if not path.is_file():
        return [folder]
    before = pathlib.Path(json.loads(path.read_text())["init_from"])
    return [*(_runs(before) if before.is_dir() else []), folder]


def _start(folder: pathlib.Path) -> dict[str, Any]:
    """Return the record of a run's first start."""
    record: dict[str, Any] = run_record.read_starts(folder)[0]
    return record


def _commands(runs: Sequence[pathlib.Path], name: str, task: str) -> list[str]:
    """Return the commands of the runs, with folders that anybody may have."""
    commands = []
    for number, run in enumerate(runs, start=1):
        place = f"runs/{name}" if number == len(runs) else f"runs/{name}_part{number}"
        places = {"run_dir": place, "data_dir": f"data/{task}"}
        places["init_from"] = f"runs/{name}_part{number - 1}"
        command = _start(run)["command"]
        for flag, folder in places.items():
            command = re.sub(rf"--{flag}=\S+", f"--{flag}={folder}", command)
        commands.append(command)
    return commands


def training_seconds(folder: pathlib.Path, batch_size: int) -> float:
    """Add up the time of the training steps, without validation, from the run's records."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    seconds, last = 0.0, 0
    for line in lines:
        if line["split"] == "train" and line.get("examples_per_second"):
            seconds += (line["step"] - last) * batch_size / line["examples_per_second"]
            last = line["step"]
    return seconds


def score_splits(options: Options, vae: MusicVAE, store: data.Store) -> dict[str, Any]:
    """Score reconstructions of the test rows and of the further stores."""
    found = {"test": scores.reconstruction(vae, store.splits["test"])}
    found["test"]["nearest_row"] = scores.nearest_row(store, "test")
    for given in options.also:
        name, _, place = given.partition("=")
        path, _, split = place.partition(":")
        other = data.open_store(path)
        if other.task != vae.task:
            raise InputError(f"also: {path} holds rows of {other.task.name}")
        names = [split] if split else list(data.SPLITS)
        rows = np.concatenate([np.asarray(other.splits[part]) for part in names])
        chosen = rows[data.spread_rows(len(rows), options.also_rows)]
        found[name] = scores.reconstruction(vae, chosen)
    return found


def write_samples(options: Options, vae: MusicVAE) -> None:
    """Write a sample of each seed as MIDI, and a picture of all.

    They are those of `generate --model=NAME --mode=sample --num=1 --seed=SEED`.
    """
    folder = pathlib.Path(options.samples)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in SEEDS:
        wanted = GenerateOptions(
            model=options.name, mode="sample", num=1, seed=seed, output="-", prior=FITTED
        )
        rows.append(make(vae, wanted, None).tokens[0])
        files.write_midi(folder / f"{options.name}_{seed}.mid", rows[-1], vae.task.name)
    titles = [f"seed {seed}" for seed in SEEDS]
    files.piano_roll_png(
        folder / f"{options.name}.png", np.stack(rows), vae.task.name, titles, columns=1
    )


def main(options: Options) -> None:
    """Publish and print the card."""
    compile_cache.switch_on()
    print(publish(options))


if __name__ == "__main__":
    cli.run(main, Options)

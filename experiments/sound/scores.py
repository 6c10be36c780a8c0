"""Evaluation of a model of sound: its table, files, and map of labels."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from data_pipeline.render import waveforms
from experiments.cli.json_files import write_json
from experiments.cli.run_options import Trained
from musicvae_jax import data, sound_evaluation
from musicvae_jax.storage import run_folder


def evaluate(
    trained: Trained,
    store: data.Store,
    folder: pathlib.Path | None,
    about: dict[str, Any],
    seed: int,
    track: Callable[[Sequence[Any], str], Iterable[Any]],
) -> str:
    """Score a split, write JSON, CSV and the map if there is a folder, and return the table.

    Args:
      trained: the model.
      store: its data.
      folder: folder to write into, or None.
      about: facts to write with the scores; its "split" is scored.
      seed: random seed of the z sampled.
      track: shows progress.
    """
    split = about["split"]
    rows = store.splits[split]
    found, mu = sound_evaluation.evaluate(
        trained.config, trained.params, rows, seed=seed, track=track
    )
    lines = [table(found, about)]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"evaluation_{split}.json", about | found._asdict())
        run_folder.write_text(folder / f"evaluation_{split}.csv", as_csv(found))
        picture = folder / f"map_{split}.png"
        labels = np.load(store.path / f"{split}.labels.npy")
        waveforms.map_png(picture, mu, labels, store.meta["labels"])
        lines.append(f"map of z by label: {picture}")
    return "\n".join(lines)


def as_csv(found: sound_evaluation.SoundEvaluation) -> str:
    """Return the scores as CSV, a line for each."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["score", "value"], *found._asdict().items()])
    return text.getvalue()


def table(found: sound_evaluation.SoundEvaluation, about: dict[str, Any]) -> str:
    """Format the scores."""
    return "\n".join(
        [
            f"{about['task']}, {about['split']} split, {found.examples:,} examples (all), "
            f"checkpoint of step {about['step']:,} ({about['checkpoint']})",
            "",
            f"signal-to-noise ratio  {found.snr_db:.2f} dB",
            f"log-spectral distance  {found.log_spectral_distance_db:.2f} dB",
            f"cross-entropy          {found.cross_entropy:.4f} nats per sample",
            f"KL                     {found.kl_bits:.2f} bits per example",
            f"ELBO                   {found.elbo_nats:.3f} nats per example",
            f"active units           {found.active_units} of {found.z_size}",
            "accuracy               not defined: sound has no tokens",
            "",
            "z: the posterior's mean for the first two, a draw from it for the ELBO.",
        ]
    )

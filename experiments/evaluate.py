"""Score a trained model on a split: one table, also as JSON in the run folder.

python -m experiments.evaluate --run_dir=runs/demo --split=test
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags
from tqdm import tqdm

from data_pipeline import command
from musicvae_jax import checkpoints, data, evaluation, run_folder
from musicvae_jax.config import InputError
from musicvae_jax.evaluation import Evaluation

RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.")
SPLIT = flags.DEFINE_string("split", "test", "Rows to score: train, validation or test.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Token store. Default: the run's own.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest or a saved step.")
DRAWS = flags.DEFINE_integer("draws", 3, "How often each row is sampled.")
SEED = flags.DEFINE_integer("seed", 0, "Of the draws.")

SCORES = {
    "accuracy": "accuracy",
    "onset_accuracy": "accuracy where a note starts",
    "precision": "notes: precision",
    "recall": "notes: recall",
    "f1": "notes: F1",
}
# Baselines of a score: column to figure.
BASELINES = {
    "accuracy": {"no event": "no_event_accuracy", "unigram": "unigram_accuracy"},
    "onset_accuracy": {
        "unigram": "unigram_onset_accuracy",
        "onset unigram": "onset_unigram_onset_accuracy",
    },
}
COLUMNS = ("teacher forced", "greedy", "sampled", "no event", "unigram", "onset unigram")


def main(argv: Sequence[str]) -> None:
    """Evaluate, print the table and write the JSON."""
    del argv
    if not RUN_DIR.value:
        raise InputError("--run_dir is needed")
    if SPLIT.value not in data.SPLITS:
        raise InputError(f"split: {SPLIT.value!r} is not one of {', '.join(data.SPLITS)}")
    folder = pathlib.Path(RUN_DIR.value)
    store = open_data(folder, DATA_DIR.value)
    config, params, step = checkpoints.restore_params(folder, CHECKPOINT.value)
    if store.task.name != config.task:
        raise InputError(f"data_dir: {store.path} holds {store.task.name}, the run {config.task}")
    rows = store.splits[SPLIT.value]
    if len(rows) == 0:
        raise InputError(f"split: {store.path} has no {SPLIT.value} rows")
    found = evaluation.evaluate(
        config, params, rows, draws=DRAWS.value, seed=SEED.value, track=show_progress
    )
    about = {
        "task": config.task,
        "split": SPLIT.value,
        "data": str(store.path),
        "checkpoint": CHECKPOINT.value,
        "step": step,
    }
    text = json.dumps(without_nan(about | found._asdict()), indent=1)
    run_folder.write_text(folder / f"evaluation_{SPLIT.value}.json", text + "\n")
    print(table(found, about))


def open_data(folder: pathlib.Path, data_dir: str | None) -> data.Store:
    """Open the given store, or the run's own.

    Raises:
      InputError: there is none, or the run's own has changed since.
    """
    known = run_folder.read_data(folder)
    store = data.open_store(data_dir or known["path"])
    if not data_dir and store.fingerprint != known["fingerprint"]:
        raise InputError(
            f"data_dir: {store.path} has changed since the run was trained on it; name what to "
            "evaluate on with --data_dir"
        )
    return store


def show_progress(batches: Sequence[Any], label: str) -> Iterable[Any]:
    """Show a bar on standard error."""
    return tqdm(batches, desc=label, unit="batch", leave=False)


def without_nan(value: Any) -> Any:
    """Replace what JSON cannot hold by null."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(found: Evaluation, about: dict[str, Any]) -> str:
    """Write the scores, a line for each figure and track."""
    lines = [
        f"{about['task']}, {about['split']} split, {found.examples:,} examples (all), "
        f"checkpoint of step {about['step']:,} ({about['checkpoint']})",
        "",
        " " * 38 + "".join(f"{column:>16}" for column in COLUMNS),
    ]
    for score in SCORES:
        lines += [_score_line(found, score, track) for track in found.greedy[score]]
    costs = ", ".join(f"{track} {cost:.4f}" for track, cost in found.cross_entropy.items())
    lines += [
        "",
        f"cross-entropy  {costs} nats per step",
        f"KL             {found.kl_bits:.2f} bits per example",
        f"ELBO           {found.elbo_nats:.3f} nats per example",
        f"active units   {found.active_units} of {found.z_size}",
        "",
        "z: the posterior's mean for teacher forced and greedy, a draw from it for the others.",
        f"sampled: temperature 1, {found.draws} draws of z and tokens, mean and standard error.",
        "unigram: drawing from the split's token frequencies; onset unigram: from those of note "
        "starts.",
    ]
    return "\n".join(lines)


def _score_line(found: Evaluation, score: str, track: str) -> str:
    """Write one figure of one track in all columns."""
    sampled = f"{found.sampled[score][track]:.4f} ± {found.sampled_error[score][track]:.4f}"
    cells = {
        "teacher forced": f"{found.teacher_forced[score][track]:.4f}",
        "greedy": f"{found.greedy[score][track]:.4f}",
        "sampled": sampled,
    }
    for column, name in BASELINES.get(score, {}).items():
        cells[column] = f"{found.baselines[name][track]:.4f}"
    label = SCORES[score] + ("" if len(found.greedy[score]) == 1 else f", {track}")
    return f"{label:38}" + "".join(f"{cells.get(column, ''):>16}" for column in COLUMNS)


if __name__ == "__main__":
    command.run(main)

"""Score a trained model on a split; print a table and write JSON to the run folder.

python -m experiments.evaluate --run_dir=runs/demo --split=test
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from absl import flags
from tqdm import tqdm

from data_pipeline import cli
from experiments.cli import compile_cache, run_options
from musicvae_jax import data, evaluation
from musicvae_jax.config import InputError
from musicvae_jax.evaluation import Evaluation
from musicvae_jax.storage import checkpoints, run_folder

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


class Options(NamedTuple):
    """What to evaluate.

    Attributes:
      run_dir: folder of the run.
      split: "train", "validation" or "test".
      data_dir: token store; None takes the run's own.
      checkpoint: "best", "latest" or a saved step.
      draws: how often each row is sampled.
      seed: of the draws.
    """

    run_dir: str
    split: str = "test"
    data_dir: str | None = None
    checkpoint: str = "best"
    draws: int = 3
    seed: int = 0


def evaluate(options: Options) -> str:
    """Score the split, write `evaluation_<split>.json` and return the table.

    Raises:
      InputError: there is no such run, checkpoint or split, or the split is empty.
    """
    folder = pathlib.Path(options.run_dir)
    if options.split not in data.SPLITS:
        raise InputError(f"split: {options.split!r} is not one of {', '.join(data.SPLITS)}")
    store = open_data(folder, options.data_dir)
    rows = store.splits[options.split]
    if len(rows) == 0:
        raise InputError(f"split: {store.path} has no {options.split} rows")
    config, params, step = checkpoints.restore_params(folder, options.checkpoint)
    if store.task.name != config.task:
        raise InputError(f"data_dir: {store.path} holds {store.task.name}, the run {config.task}")
    found = evaluation.evaluate(
        config, params, rows, draws=options.draws, seed=options.seed, track=show_progress
    )
    about = {
        "task": config.task,
        "split": options.split,
        "data": str(store.path),
        "checkpoint": options.checkpoint,
        "step": step,
    }
    text = json.dumps(without_nan(about | found._asdict()), indent=1)
    run_folder.write_text(folder / f"evaluation_{options.split}.json", text + "\n")
    return table(found, about)


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
    if isinstance(value, list):
        return [without_nan(part) for part in value]
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


def _number(value: float) -> str:
    """Write a share; "-" where there was nothing to score."""
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _score_line(found: Evaluation, score: str, track: str) -> str:
    """Write one figure of one track in all columns."""
    mean, error = found.sampled[score][track], found.sampled_error[score][track]
    sampled = _number(mean) + (f" ± {error:.4f}" if math.isfinite(error) else "")
    cells = {
        "teacher forced": _number(found.teacher_forced[score][track]),
        "greedy": _number(found.greedy[score][track]),
        "sampled": sampled,
    }
    for column, name in BASELINES.get(score, {}).items():
        cells[column] = _number(found.baselines[name][track])
    label = SCORES[score] + ("" if len(found.greedy[score]) == 1 else f", {track}")
    return f"{label:38}" + "".join(f"{cells.get(column, ''):>16}" for column in COLUMNS)


def define_flags() -> None:
    """Define this entry point's flags."""
    run_options.define()
    flags.DEFINE_string("split", "test", "Split to score: train, validation or test.")
    flags.DEFINE_integer("draws", 3, "Samples per row.")
    flags.DEFINE_integer("seed", 0, "Random seed for sampling.")


def main(argv: Sequence[str]) -> None:
    """Evaluate and print the table."""
    del argv
    compile_cache.switch_on()
    print(evaluate(run_options.given(Options)))


if __name__ == "__main__":
    define_flags()
    cli.run(main)

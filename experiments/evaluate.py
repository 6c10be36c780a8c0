"""Score a trained model on a split: a table, and JSON and CSV in the run folder.

python -m experiments.evaluate --run_dir=runs/demo --split=test
python -m experiments.evaluate --model=drums_2bar --data_dir=data/drums_2bar
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.progress_bar import progress_bar
from experiments.cli import compile_cache
from experiments.cli.json_files import write_json
from experiments.cli.run_data import open_run_data, split_rows
from experiments.cli.run_options import DataOptions, open_trained, output_folder
from experiments.sound import scores
from musicvae_jax import data, evaluation
from musicvae_jax.evaluation import Evaluation
from musicvae_jax.storage import run_folder
from musicvae_jax.tasks import get_task

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
# Columns of the table with their widths; a head of two words takes two lines.
COLUMNS = {
    "teacher forced": 9,
    "greedy": 8,
    "sampled": 17,
    "no event": 8,
    "unigram": 9,
    "onset unigram": 9,
}
LABEL_WIDTH = 37


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """What to evaluate."""

    split: str = option(
        "test", choices=data.SPLITS, help="Split to score: train, validation or test."
    )
    draws: int = option(3, help="Samples per row.")
    seed: int = option(0, help="Random seed for sampling.")
    output: str | None = option(
        None, help="Folder for JSON and CSV. Default: the run folder; with --model, none."
    )
    seed_bars: int | None = option(
        None,
        help="Bars at the start of each row that greedy and sampled scores leave out, and that a "
        "forecaster is given to continue. Default: 1 for a forecaster, else 0.",
    )

    def __post_init__(self) -> None:
        """Check the split."""
        cli.check_choices(self)


def evaluate(options: Options) -> str:
    """Score the split, write `evaluation_<split>.json` and `.csv`, and return the table.

    Raises:
      InputError: there is no such model, checkpoint or split, or the split is empty.
    """
    trained = open_trained(options)
    task = get_task(trained.config.task)
    store = open_run_data(options.run_dir, options.data_dir, task, options.allow_changed_data)
    rows = split_rows(store, options.split)
    writes = bool(options.output or options.run_dir)
    folder = output_folder(options) if writes else None
    if task.is_sound:
        about = _about(options, store, trained.step)
        return scores.evaluate(trained, store, folder, about, options.seed, show_progress)
    found = evaluation.evaluate(
        trained.config,
        trained.params,
        rows,
        draws=options.draws,
        seed=options.seed,
        seed_bars=options.seed_bars,
        track=show_progress,
    )
    about = _about(options, store, trained.step)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"evaluation_{options.split}.json", about | found._asdict())
        run_folder.write_text(folder / f"evaluation_{options.split}.csv", as_csv(found))
    return table(found, about)


def _about(options: Options, store: data.Store, step: int) -> dict[str, Any]:
    """Return what the scores are of."""
    return {
        "task": store.task.name,
        "split": options.split,
        "data": str(store.path),
        "checkpoint": options.model or options.checkpoint,
        "step": step,
    }


def as_csv(found: Evaluation) -> str:
    """Return the scores as CSV, with a line for each score and track; empty where undefined."""
    kinds = ("teacher_forced", "greedy", "sampled", "sampled_error")
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["score", "track", *kinds])
    for score, tracks in found.greedy.items():
        for track in tracks:
            values = [getattr(found, kind)[score][track] for kind in kinds]
            lines.writerow([score, track, *(v if math.isfinite(v) else "" for v in values)])
    return text.getvalue()


def show_progress(batches: Sequence[Any], label: str) -> Iterable[Any]:
    """Show a bar on standard error."""
    return progress_bar(batches, desc=label, unit="batch")


def table(found: Evaluation, about: dict[str, Any]) -> str:
    """Format the scores, a line for each score and track."""
    lines = [
        f"{about['task']}, {about['split']} split, {found.examples:,} examples (all), "
        f"checkpoint of step {about['step']:,} ({about['checkpoint']})",
        "",
        *_heads(),
    ]
    for score in SCORES:
        lines += [_score_line(found, score, track) for track in found.greedy[score]]
    costs = ", ".join(f"{track} {cost:.4f}" for track, cost in found.cross_entropy.items())
    lines += ["", f"cross-entropy  {costs} nats per step", *_latent_lines(found)]
    if found.seed_bars:
        bars = f"{found.seed_bars} bars" if found.seed_bars > 1 else "bar"
        lines.append(f"greedy and sampled: steps after the first {bars}.")
    lines.append(
        "unigram: drawing from the split's token frequencies; onset unigram: from those of note "
        "starts."
    )
    return "\n".join(lines)


def _latent_lines(found: Evaluation) -> list[str]:
    """Format what depends on the latent space, and how z and tokens were drawn."""
    draws = f"sampled: temperature 1, {found.draws} draws of {{}}, mean and standard error."
    if found.kl_bits is None:
        return [
            "KL             not defined: no latent space",
            f"log-likelihood {found.elbo_nats:.3f} nats per example",
            "",
            draws.format("tokens"),
        ]
    return [
        f"KL             {found.kl_bits:.2f} bits per example",
        f"ELBO           {found.elbo_nats:.3f} nats per example",
        f"active units   {found.active_units} of {found.z_size}",
        "",
        "z: the posterior's mean for teacher forced and greedy, a draw from it for the others.",
        draws.format("z and tokens"),
    ]


def _number(value: float) -> str:
    """Format a proportion; "-" if there was nothing to score."""
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _score_line(found: Evaluation, score: str, track: str) -> str:
    """Format one score of one track in all columns."""
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
    shown = "".join(f"{cells.get(name, ''):>{width}}" for name, width in COLUMNS.items())
    return f"{label:{LABEL_WIDTH}}{shown}".rstrip()


def _heads() -> list[str]:
    """Write the names of the columns in two lines."""
    lines = [" " * LABEL_WIDTH] * 2
    for name, width in COLUMNS.items():
        words = ["", *name.split()][-2:]
        lines = [line + f"{word:>{width}}" for line, word in zip(lines, words, strict=True)]
    return lines


def main(options: Options) -> None:
    """Evaluate and print the table."""
    compile_cache.switch_on()
    print(evaluate(options))


if __name__ == "__main__":
    cli.run(main, Options)

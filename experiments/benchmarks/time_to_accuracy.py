"""Compare the reference's recipe with the default one: examples needed, and final scores.

Examples:
  python -m experiments.benchmarks.time_to_accuracy --golden_dir=../shared/golden
  python -m experiments.benchmarks.time_to_accuracy --data_dir=data/mel_2bar --steps=1500

A recipe is an initialisation and Adam's settings (`musicvae_jax.tasks.RECIPES`); model,
objective, rows and batches are equal. With --golden_dir, both train on the recorded 2-bar drum
task, for which the reference's accuracy was recorded too; the table shows accuracy and loss at
each validation and after how many examples 0.45 is reached. With --data_dir, both train on a
token store for an equal budget at reduced sizes; the table shows the scores of the last step on
validation rows. The recipe was developed on the recorded task's training rows alone, 768 of them
held out.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile

import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.follow_curve import TASK, column, curve_config
from experiments.benchmarks.support import machine
from experiments.cli.progress import Silent
from musicvae_jax import data, evaluation
from musicvae_jax.config import Config, InputError
from musicvae_jax.tasks import RECIPES, get_task
from musicvae_jax.training import loop

TARGET = 0.45
ROWS = 1664  # of the recorded task's evaluation rows
SIZES = {
    "flat": {"encoder_sizes": (128,), "decoder_sizes": (128, 128), "z_size": 64},
    "hierdec": {"encoder_sizes": (96,), "decoder_sizes": (128,), "z_size": 64},
}


class Curve(Silent):
    """A callback of the training loop that keeps the validation scores."""

    def __init__(self) -> None:
        self.validations: dict[int, dict[str, float]] = {}

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Keep the scores of a step."""
        self.validations[step] = figures


def train(config: Config, store: data.Store) -> tuple[Curve, loop.Outcome]:
    """Train from the start in a temporary folder."""
    curve = Curve()
    with tempfile.TemporaryDirectory() as folder:
        return curve, loop.fit(config, store, folder, curve)


def recorded_store(golden_dir: pathlib.Path) -> data.Store:
    """Return the recorded task's rows; its evaluation rows are the validation split."""
    rows = np.load(golden_dir / "curve_drums_2bar_rows.npz")
    order = np.random.default_rng(2).permutation(len(rows["eval"]))
    splits = {"train": rows["train"], "validation": rows["eval"][order[:ROWS]]}
    return data.Store(golden_dir, get_task(TASK), splits, {}, "")


def first_at_least(target: float, accuracies: dict[int, float]) -> int | None:
    """Return the first step whose accuracy is at least `target`."""
    return min((step for step, value in accuracies.items() if value >= target), default=None)


def show_curves(golden_dir: pathlib.Path, steps: int, every: int) -> None:
    """Train the recorded task with both recipes and print the table."""
    store = recorded_store(golden_dir)
    recorded = column(golden_dir / "curve_drums_2bar_eval.csv", "accuracy")
    config = curve_config().replace(train_steps=steps, eval_every=every, eval_examples=0)
    config = config.replace(save_every=steps, log_every=every)
    curves = {name: train(config.replace(**RECIPES[name]), store)[0] for name in RECIPES}
    print(f"{TASK}, batch {config.train.batch_size}; accuracy teacher forced, loss in nats")
    names = "".join(f"{name + ' acc.':>16}{'loss':>9}" for name in curves)
    print(f"{'step':>6}{'examples':>10}{'recorded acc.':>15}{names}")
    for step in sorted(curves["default"].validations):
        figures = [curve.validations[step] for curve in curves.values()]
        columns = "".join(f"{f['accuracy']:16.4f}{f['loss']:9.2f}" for f in figures)
        before = f"{recorded[step]:15.4f}" if step in recorded else f"{'':15}"
        print(f"{step:6}{step * config.train.batch_size:10,}{before}{columns}")
    needed = {"recorded": first_at_least(TARGET, recorded)} | {
        name: first_at_least(TARGET, {n: f["accuracy"] for n, f in curve.validations.items()})
        for name, curve in curves.items()
    }
    for name, first in needed.items():
        size = config.train.batch_size
        examples = "not reached" if first is None else f"{first * size:,} examples"
        print(f"accuracy {TARGET}: {name} {examples}")
    if needed["default"] and needed["recorded"]:
        share = needed["default"] / needed["recorded"]
        print(f"default / recorded: {share:.3f} (at most 0.333; aim 0.2)")


def show_ends(folder: str, steps: int, batch_size: int, sampled_rows: int) -> None:
    """Train both recipes on a store for equal budgets and print their scores."""
    store = data.open_store(folder)
    model = store.task.config.model
    config = store.task.config.replace(
        **SIZES[model.architecture],
        batch_size=batch_size,
        train_steps=steps,
        save_every=steps,
        eval_every=max(steps // 5, 1),
        log_every=steps,
        eval_examples=1024,
        sampling_schedule="constant",
        sampling_rate=0.0,
        beta_rate=0.0,
        free_bits=0.0,
        beta=0.2,
    )
    rows = np.asarray(store.splits["validation"])
    rows = rows[data.spread_rows(len(rows), sampled_rows)]
    print(f"{store.task.name}, {model.architecture}, {steps} steps of {batch_size} rows")
    print(f"{'recipe':12}{'loss at fifths of the budget':42}{'ELBO':>9}{'KL bits':>9}"
          f"{'forced':>8}{'greedy':>8}{'sampled':>9}{'+-':>8}")  # fmt: skip
    for name in RECIPES:
        chosen = config.replace(**RECIPES[name])
        curve, outcome = train(chosen, store)
        losses = "".join(f"{f['loss']:8.2f}" for f in curve.validations.values())
        scores = evaluation.evaluate(chosen, outcome.state.params, rows)
        accuracies = [
            figures["accuracy"]["overall"]
            for figures in (scores.teacher_forced, scores.greedy, scores.sampled)
        ]
        error = scores.sampled_error["accuracy"]["overall"]
        print(f"{name:12}{losses:42}{scores.elbo_nats:9.2f}{scores.kl_bits:9.1f}"
              f"{accuracies[0]:8.4f}{accuracies[1]:8.4f}{accuracies[2]:9.4f}{error:8.4f}",
              flush=True)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to train on, and for how long."""

    golden_dir: str | None = option(None, help="Folder of the recorded curve.")
    data_dir: tuple[str, ...] = option((), help="Token store to compare the recipes on.")
    steps: int = option(1250, low=1, help="Steps of each training.")
    every: int = option(50, low=1, help="Steps between evaluations of the recorded task.")
    batch_size: int = option(64, low=1, help="Rows per step on a token store.")
    rows: int = option(512, low=1, help="Validation rows of the final scores.")


def main(options: Options) -> None:
    """Compare the recipes on the recorded task or a store."""
    if not options.golden_dir and not options.data_dir:
        raise InputError("--golden_dir or --data_dir is needed")
    print(machine.describe("jaxlib", "flax"))
    for name, recipe in RECIPES.items():
        print(f"{name}: " + ", ".join(f"{field} {value}" for field, value in recipe.items()))
    if options.golden_dir:
        show_curves(pathlib.Path(options.golden_dir), options.steps, options.every)
    for folder in options.data_dir:
        show_ends(folder, options.steps, options.batch_size, options.rows)


if __name__ == "__main__":
    cli.run(main, Options)

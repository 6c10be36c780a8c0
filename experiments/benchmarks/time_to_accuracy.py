"""Compare the reference's recipe, the default one and Muon: examples needed, and final scores.

Examples:
  python -m experiments.benchmarks.time_to_accuracy --golden_dir=../shared/golden --seed=0,1,2
  python -m experiments.benchmarks.time_to_accuracy --data_dir=data/mel_2bar --steps=1500

A recipe is an initialisation and an optimiser's settings (`musicvae_jax.tasks.RECIPES`); model,
objective, rows and, for a seed, batches are equal. With --golden_dir, all train on the recorded
2-bar drum task, for which the reference's accuracy was recorded too; the tables show accuracy and
loss at each validation of the first seed, and after how many examples and how much processor time
0.45 is reached, with medians over the seeds. With --data_dir, all train on a token store for an
equal budget at reduced sizes; the table shows the scores of the last step on validation rows. The
default recipe was developed on the recorded task's training rows alone, 768 of them held out;
the learning rate of Muon was chosen on this table's rows, among 0.005 and 0.01.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to train on, and for how long."""

    golden_dir: str | None = option(None, help="Folder of the recorded curve.")
    data_dir: tuple[str, ...] = option((), help="Token store to compare the recipes on.")
    steps: int = option(1250, low=1, help="Steps of each training.")
    every: int = option(50, low=1, help="Steps between evaluations of the recorded task.")
    batch_size: int = option(64, low=1, help="Rows per step on a token store.")
    rows: int = option(512, low=1, help="Validation rows of the final scores.")
    recipes: tuple[str, ...] = option(
        tuple(RECIPES), flag="recipe", comma=True, help="Recipes, comma separated."
    )
    seeds: tuple[int, ...] = option(
        (0,), flag="seed", comma=True, help="Seeds, comma separated; a store takes the first."
    )

    def __post_init__(self) -> None:
        """Check the names of the recipes."""
        for name in self.recipes:
            if name not in RECIPES:
                raise InputError(f"recipe: {name!r} is not one of {', '.join(RECIPES)}")


class Curve(Silent):
    """A callback of the training loop that keeps the validation scores.

    Attributes:
      validations: step to scores.
      seconds: step to processor time since the start, compilation and validation included.
    """

    def __init__(self) -> None:
        self.validations: dict[int, dict[str, float]] = {}
        self.seconds: dict[int, float] = {}
        self._start = time.process_time()

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Keep the scores of a step."""
        self.validations[step] = figures
        self.seconds[step] = time.process_time() - self._start

    def first_at_least(self, target: float) -> int | None:
        """Return the first step whose accuracy is at least `target`."""
        return first_at_least(target, {n: f["accuracy"] for n, f in self.validations.items()})


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


def show_curves(options: Options, golden_dir: pathlib.Path) -> None:
    """Train the recorded task with every recipe and print the tables."""
    store = recorded_store(golden_dir)
    recorded = column(golden_dir / "curve_drums_2bar_eval.csv", "accuracy")
    config = curve_config().replace(train_steps=options.steps, eval_every=options.every)
    config = config.replace(eval_examples=0, save_every=options.steps, log_every=options.every)
    all_curves = {
        name: [
            train(config.replace(**RECIPES[name], seed=seed), store)[0] for seed in options.seeds
        ]
        for name in options.recipes
    }
    curves = {name: of_seeds[0] for name, of_seeds in all_curves.items()}
    print(f"{TASK}, batch {config.train.batch_size}; accuracy teacher forced, loss in nats")
    names = "".join(f"{name + ' acc.':>16}{'loss':>9}" for name in curves)
    print(f"{'step':>6}{'examples':>10}{'recorded acc.':>15}{names}")
    for step in sorted(next(iter(curves.values())).validations):
        figures = [curve.validations[step] for curve in curves.values()]
        columns = "".join(f"{f['accuracy']:16.4f}{f['loss']:9.2f}" for f in figures)
        before = f"{recorded[step]:15.4f}" if step in recorded else f"{'':15}"
        print(f"{step:6}{step * config.train.batch_size:10,}{before}{columns}")
    reached, size = first_at_least(TARGET, recorded), config.train.batch_size
    assert reached is not None  # the recorded curve passes it
    print(f"accuracy {TARGET}: recorded {reached * size:,} examples")
    for name, of_seeds in all_curves.items():
        print(f"accuracy {TARGET}: {name} {needed(of_seeds, reached, size)}")


def needed(curves: list[Curve], before: int, batch_size: int) -> str:
    """Say after how many examples, and how much processor time, curves reach the target.

    Args:
      curves: a curve of each seed.
      before: step at which the recorded curve reaches it.
      batch_size: rows per step.
    """
    steps = [curve.first_at_least(TARGET) for curve in curves]
    reached = [step for step in steps if step is not None]
    if len(reached) < len(steps):
        return f"not reached by {len(steps) - len(reached)} of {len(steps)}"
    median = float(np.median(reached))
    seconds = np.median([c.seconds[s] for c, s in zip(curves, reached, strict=True)])
    each = ", ".join(f"{step * batch_size:,}" for step in reached)
    return (
        f"{median * batch_size:,.0f} examples ({each}), {seconds:.0f} s of processor time; "
        f"{median / before:.3f} of the recorded"
    )


def show_ends(options: Options, folder: str) -> None:
    """Train every recipe on a store for equal budgets and print their scores."""
    store, steps, batch_size = data.open_store(folder), options.steps, options.batch_size
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
        seed=options.seeds[0],
    )
    rows = np.asarray(store.splits["validation"])
    rows = rows[data.spread_rows(len(rows), options.rows)]
    print(f"{store.task.name}, {model.architecture}, {steps} steps of {batch_size} rows")
    print(f"{'recipe':12}{'loss at fifths of the budget':42}{'ELBO':>9}{'KL bits':>9}"
          f"{'forced':>8}{'greedy':>8}{'sampled':>9}{'+-':>8}")  # fmt: skip
    for name in options.recipes:
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


def main(options: Options) -> None:
    """Compare the recipes on the recorded task or a store."""
    if not options.golden_dir and not options.data_dir:
        raise InputError("--golden_dir or --data_dir is needed")
    print(machine.describe("jaxlib", "flax"))
    for name in options.recipes:
        fields = ", ".join(f"{field} {value}" for field, value in RECIPES[name].items())
        print(f"{name}: {fields}")
    if options.golden_dir:
        show_curves(options, pathlib.Path(options.golden_dir))
    for folder in options.data_dir:
        show_ends(options, folder)


if __name__ == "__main__":
    cli.run(main, Options)

r"""Train along a recorded curve of the reference, from its start with its batches and noise.

Example:
  python -m experiments.benchmarks.follow_curve \
    --golden_dir=../shared/golden > experiments/benchmarks/follow_curve.txt

The table shows, every 50 steps, the loss of both before that step's update and the accuracy
of both on the evaluation rows (teacher forced, z = mu). Up to about step 300 the losses agree
to the recorded digits. There training leaves a plateau by steps that amplify rounding a
millionfold within 20, so from then on two runs with different rounding follow the same course
at slightly different times. Four runs that differ in nothing but rounding (the order in which
the gates are summed, or a start changed by 1e-7 of each parameter) had accuracies of 0.366,
0.370, 0.377 and 0.388 at step 500, where the record has 0.357, and of 0.514 to 0.520 at 1,250,
where it has 0.499: the agreement asked for there, 0.02, is about the size of that scatter.
"""

from __future__ import annotations

import csv
import datetime
import pathlib
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from data_pipeline import cli
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import build_model
from musicvae_jax.models.variables import params_from_variables
from musicvae_jax.tasks import RECIPES, get_task
from musicvae_jax.training import step as training
from musicvae_jax.training.step import Batch

TASK = "drums_2bar"
ALL_STEPS, BATCH_SIZE, EVAL_EVERY, EVAL_BATCHES = 1250, 128, 50, 13


class Point(NamedTuple):
    """One step of both runs, before its update.

    Attributes:
      step: 0 for the first.
      loss: ours, in the reference's form; None after the last step.
      reference_loss: what was recorded; likewise.
      accuracy: ours on the evaluation rows; None at steps that were not evaluated.
      reference_accuracy: likewise.
    """

    step: int
    loss: float | None
    reference_loss: float | None
    accuracy: float | None
    reference_accuracy: float | None

    @property
    def loss_difference(self) -> float:
        """Relative difference of the losses; 0 where there are none."""
        if self.loss is None or self.reference_loss is None:
            return 0.0
        return abs(self.loss - self.reference_loss) / self.reference_loss

    @property
    def accuracy_difference(self) -> float:
        """Absolute difference of the accuracies; 0 where there are none."""
        if self.accuracy is None or self.reference_accuracy is None:
            return 0.0
        return abs(self.accuracy - self.reference_accuracy)


def curve_config() -> Config:
    """Return the configuration of the recorded run."""
    return get_task(TASK).config.replace(
        encoder_sizes=(128,),
        decoder_sizes=(128, 128),
        z_size=64,
        batch_size=BATCH_SIZE,
        free_bits=48.0,
        beta=0.2,
        beta_rate=0.0,
        sampling_schedule="constant",
        sampling_rate=0.0,
        dtype="float32",
        **RECIPES["reference"],
    )


def follow(golden_dir: pathlib.Path, num_steps: int = ALL_STEPS) -> Iterator[Point]:
    """Train `num_steps` steps from the recorded start and compare each.

    Evaluations are at every 50th step and at `num_steps`.
    """
    config = curve_config()
    variables = np.load(golden_dir / "curve_drums_2bar_init.npz")
    sizes, params = params_from_variables({name: variables[name] for name in variables}, TASK)
    if sizes != config.model:
        raise InputError(f"golden_dir: the curve's start has sizes {sizes}, not {config.model}")
    rows = np.load(golden_dir / "curve_drums_2bar_rows.npz")
    train, evaluation = (rows[name].astype(np.int32) for name in ("train", "eval"))
    batches, noise = _recorded_draws(num_steps, len(train), config.model.z_size)
    losses = _column(golden_dir / "curve_drums_2bar.csv", "loss")
    accuracies = _column(golden_dir / "curve_drums_2bar_eval.csv", "accuracy")

    model = build_model(config)
    step_fn = jax.jit(training.make_train_step(model, config), donate_argnums=0)
    eval_fn = jax.jit(training.make_eval_step(model, config))
    state = training.state_from_params(
        jax.tree.map(jnp.array, params), config, jax.random.key(config.train.seed)
    )
    for step in range(num_steps + 1):
        ours = theirs = None
        if step % EVAL_EVERY == 0 or step == num_steps:
            ours, theirs = _accuracy(eval_fn, state, evaluation), accuracies.get(step)
        if step == num_steps:
            yield Point(step, None, None, ours, theirs)
            return
        batch = Batch(jnp.asarray(train[batches[step]]), jnp.asarray(noise[step]))
        state, measured = step_fn(state, batch)
        yield Point(step, float(measured["loss_reference"]), losses[step], ours, theirs)


def _recorded_draws(num_steps: int, num_rows: int, z_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows [steps, B] and the noise [steps, B, Z] of the recorded run."""
    batches = np.random.default_rng(0).integers(0, num_rows, (ALL_STEPS, BATCH_SIZE))
    # The generator fills in order, so fewer steps are the beginning of all.
    noise = np.random.default_rng(1).normal(size=(num_steps, BATCH_SIZE, z_size))
    return batches[:num_steps], noise.astype(np.float32)


def _column(path: pathlib.Path, name: str) -> dict[int, float]:
    """Read one column of a CSV file by step."""
    with path.open(newline="") as lines:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(lines)}


def _accuracy(
    eval_fn: Callable[..., training.Metrics], state: training.TrainState, rows: np.ndarray
) -> float:
    """Score the rows that the recorded run evaluated."""
    order = np.random.default_rng(2).permutation(len(rows))
    mask = np.ones(BATCH_SIZE, bool)
    total = 0.0
    for n in range(EVAL_BATCHES):
        tokens = jnp.asarray(rows[order[n * BATCH_SIZE : (n + 1) * BATCH_SIZE]])
        sums = eval_fn(state.params, state.hyper, Batch(tokens), mask)
        total += float(sums["accuracy"])
    return total / (EVAL_BATCHES * BATCH_SIZE)


def define_flags() -> None:
    """Define this entry point's flags."""
    flags.DEFINE_string("golden_dir", "../shared/golden", "Folder of the recorded curve.")
    flags.DEFINE_integer("steps", ALL_STEPS, f"Steps to follow, at most {ALL_STEPS}.")


def main(argv: Sequence[str]) -> None:
    """Follow the curve and print the table."""
    del argv
    steps, folder = flags.FLAGS.steps, pathlib.Path(flags.FLAGS.golden_dir)
    if not 1 <= steps <= ALL_STEPS:
        raise InputError(f"steps: {steps} is out of range, it must be from 1 to {ALL_STEPS}")
    if not (folder / "curve_drums_2bar_init.npz").is_file():
        raise InputError(f"golden_dir: {folder} has no curve_drums_2bar_init.npz")
    print(
        f"{datetime.date.today()}, {platform.machine()}, {jax.devices()[0].device_kind}, "
        f"Python {platform.python_version()}, jax {jax.__version__}"
    )
    print(
        f"{'step':>5} {'loss':>9} {'reference':>9} {'differs':>8} {'accuracy':>9} {'reference':>9}"
    )
    points = []
    for point in follow(folder, steps):
        points.append(point)
        if point.accuracy is not None:
            print(_line(point), flush=True)
    first = max(point.loss_difference for point in points[:100])
    print(f"largest difference of the loss in the first 100 steps: {first:.4%} (at most 1%)")
    print(f"in all {steps} steps: {max(point.loss_difference for point in points):.4%}")
    for point in points:
        if point.step in (500, ALL_STEPS) and point.accuracy is not None:
            print(
                f"difference of the accuracy at step {point.step}: "
                f"{point.accuracy_difference:.4f} (at most 0.02)"
            )


def _line(point: Point) -> str:
    """Write one line of the table."""
    losses = f"{'':>9} {'':>9} {'':>8}"
    if point.loss is not None:
        losses = f"{point.loss:9.3f} {point.reference_loss:9.3f} {point.loss_difference:8.4%}"
    theirs = "" if point.reference_accuracy is None else f"{point.reference_accuracy:.4f}"
    return f"{point.step:5} {losses} {point.accuracy:9.4f} {theirs:>9}"


if __name__ == "__main__":
    define_flags()
    cli.run(main)

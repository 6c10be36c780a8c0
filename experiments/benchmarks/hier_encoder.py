"""Compare the flat encoder of `hierdec` with the hierarchical one of `hier`: speed and scores.

Example:
  python -m experiments.benchmarks.hier_encoder --data_dir=data/mel_16bar --steps=2000

Sizes, decoder, rows and batches are equal. A flat encoder makes T steps, one after the other; a
hierarchical one makes S steps for all bars side by side, and then one step per bar. The first
table has the seconds of a training step and the processor's seconds in it (of all cores), the least
of several rounds in which the two take turns: other programs on the machine only add to them. With
--data_dir, the second has the scores on validation rows after equal examples, and those of `hier`
after the minutes that `hierdec` needed for them, by the seconds per step of these two trainings
without their first dispatch, which compiles. The third is what `evaluate` prints for that last
`hier` model on test rows. Progress goes to standard error.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import machine
from experiments.benchmarks.time_to_accuracy import Curve
from experiments.benchmarks.train_step import random_batch
from experiments.evaluate import table
from musicvae_jax import data, evaluation
from musicvae_jax.config import Config
from musicvae_jax.models.registry import build_vae
from musicvae_jax.tasks import get_task
from musicvae_jax.training import callbacks, loop
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import make_train_step

Tree = Any
NAMES = ("hierdec", "hier")


def configs(task: str, units: int, batch_size: int) -> dict[str, Config]:
    """Return the two configurations by architecture."""
    sizes: dict[str, Any] = {
        "encoder_sizes": (units,),
        "decoder_sizes": (units,),
        "z_size": max(units // 2, 1),
        "batch_size": batch_size,
        "free_bits": 0.0,
    }
    start = get_task(task).config.replace(**sizes)
    return {name: start.replace(architecture=name) for name in NAMES}


def stepper(config: Config) -> Callable[[], object]:
    """Return a call that makes one training step on random rows and waits for it."""
    model = build_vae(config)
    step = jax.jit(make_train_step(model, config))
    state, batch = init_state(model, config), random_batch(config)
    return lambda: jax.block_until_ready(step(state, batch))


class Clock(Curve):
    """A callback of the training loop that times its steps and prints progress.

    Args:
      name: of what is trained.
      steps: how many will be made.
    """

    def __init__(self, name: str, steps: int) -> None:
        super().__init__()
        self.name, self.steps = name, steps
        self.times: list[tuple[int, float, float]] = []

    def trained(self, progress: callbacks.Progress) -> None:
        """Keep step, seconds and CPU seconds, and print every tenth of the steps."""
        self.times.append((progress.step, time.perf_counter(), time.process_time()))
        if progress.is_record:
            left = f"about {progress.seconds_left:.0f} s left"
            print(f"{self.name}: step {progress.step} of {self.steps}, {left}", file=sys.stderr)

    def per_step(self) -> tuple[float, float]:
        """Return seconds and CPU seconds per step after the first dispatch; nan if there is one."""
        (first, *starts), (last, *ends) = self.times[0], self.times[-1]
        if first == last:
            return math.nan, math.nan
        wall, busy = (
            (end - start) / (last - first) for start, end in zip(starts, ends, strict=True)
        )
        return wall, busy


def show_speed(chosen: dict[str, Config], rounds: int) -> float:
    """Print seconds per training step; return how much less processor time `hier` takes."""
    calls = {name: stepper(config) for name, config in chosen.items()}
    wall: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            wall[name].append(machine.seconds(call))
            processor[name].append(time.process_time() - start)
    print(f"{'architecture':14}{'s / step':>10}{'CPU s / step':>14}")
    for name in calls:
        print(f"{name:14}{min(wall[name]):10.3f}{min(processor[name]):14.3f}")
    ratio = min(processor["hierdec"]) / min(processor["hier"])
    walls = min(wall["hierdec"]) / min(wall["hier"])
    print(f"hierdec / hier: {walls:.2f} in seconds, {ratio:.2f} in CPU seconds", flush=True)
    return ratio


def show_scores(
    chosen: dict[str, Config], store: data.Store, steps: int, ratio: float
) -> tuple[int, Tree]:
    """Train for equal examples and equal time, and print scores of validation rows.

    `ratio` of processor time decides if a training has one dispatch only, and so no time.

    Returns:
      steps and parameters of the last `hier` model.
    """
    size = len(spread(store, "validation"))
    print(f"{len(store.splits['train']):,} training rows, {size} validation rows")
    print(f"{'architecture':14}{'steps':>7}{'examples':>10}{'minutes':>9}{'CPU min':>9}"
          f"{'ELBO nats':>11}{'KL bits':>9}{'forced':>8}{'greedy':>8}")  # fmt: skip
    seconds = {name: train_and_score(chosen[name], store, steps)[0] for name in NAMES}
    faster = seconds["hierdec"] / seconds["hier"]
    equal_minutes = max(round(steps * (faster if faster > 0 else ratio)), 1)
    return equal_minutes, train_and_score(chosen["hier"], store, equal_minutes)[1]


def train_and_score(config: Config, store: data.Store, num: int) -> tuple[float, Tree]:
    """Train, print a line of the table, and return seconds per step and parameters."""
    name = config.model.architecture
    every = {"save_every": num, "eval_every": num, "log_every": max(num // 10, 1)}
    config = config.replace(train_steps=num, eval_examples=64, **every)
    clock = Clock(name, num)
    with tempfile.TemporaryDirectory() as folder:
        params = loop.fit(config, store, folder, clock).state.params
    wall, busy = clock.per_step()
    scores = evaluation.evaluate(config, params, spread(store, "validation"))
    forced, greedy = (
        figures["accuracy"]["overall"] for figures in (scores.teacher_forced, scores.greedy)
    )
    print(f"{name:14}{num:7}{num * config.train.batch_size:10,}"
          f"{wall * num / 60:9.2f}{busy * num / 60:9.2f}"
          f"{scores.elbo_nats:11.2f}{scores.kl_bits:9.1f}{forced:8.4f}{greedy:8.4f}",
          flush=True)  # fmt: skip
    return wall, params


def show_evaluation(config: Config, store: data.Store, step: int, params: Tree) -> None:
    """Print what `evaluate` prints, for test rows."""
    found = evaluation.evaluate(config, params, spread(store, "test"))
    about = {"task": config.task, "split": "test", "step": step, "checkpoint": "the last hier"}
    print(table(found, about))


def spread(store: data.Store, split: str) -> np.ndarray:
    """Return up to 512 rows of a split, evenly spaced."""
    rows = np.asarray(store.splits[split])
    return rows[data.spread_rows(len(rows), 512)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to train, and on what."""

    task: str = option("mel_16bar", help="Task of the speed table, and of the store.")
    units: int = option(96, low=1, help="Units of every layer; z has half as many.")
    batch_size: int = option(64, low=1, help="Rows per step.")
    rounds: int = option(7, low=1, help="Rounds of the speed table.")
    data_dir: str | None = option(None, help="Token store to train on.")
    steps: int = option(600, low=1, help="Steps of equal training.")


def main(options: Options) -> None:
    """Print the tables."""
    chosen = configs(options.task, options.units, options.batch_size)
    print(machine.describe("jaxlib", "flax"))
    print(f"{options.task}, {options.units} units, batch {options.batch_size}")
    ratio = show_speed(chosen, options.rounds)
    if options.data_dir:
        store = data.open_store(options.data_dir)
        step, params = show_scores(chosen, store, options.steps, ratio)
        show_evaluation(chosen["hier"], store, step, params)


if __name__ == "__main__":
    cli.run(main, Options)

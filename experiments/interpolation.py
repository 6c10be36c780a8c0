"""Repeat the paper's interpolation experiment, in latent space and in the data.

python -m experiments.interpolation --run_dir=runs/mel_2bar

For pairs of held-out rows A and B: through the latent space, points on an arc between the
posterior means are decoded; through the data, each token is taken from B with a probability equal
to the fraction of the way, otherwise from A. Each point is scored by the share of tokens that
differ from A and from B (normalised Hamming distance) and by its cost under a 5-gram model of the
training rows, in nats per step; a high cost means sequences that training rows do not have. In a
good latent space the distances change evenly and the cost stays near that of real rows.

Writes interpolation.json and interpolation.svg into the run folder, or below --output, and prints
the table.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.reporting import charts
from data_pipeline.reporting.charts import Line, Panel
from experiments.cli import compile_cache
from experiments.cli.run_data import open_run_data
from experiments.cli.run_options import (
    LARGEST_SEED,
    HeldOutOptions,
    check_ranges,
    open_model,
    output_folder,
)
from experiments.generation.modes import decode
from musicvae_jax import data
from musicvae_jax.analysis import interpolation, ngram
from musicvae_jax.config import InputError
from musicvae_jax.latent import paths
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.storage import run_folder
from musicvae_jax.tasks import Task
from musicvae_jax.tokens import columns_of

ORDER = 5
LATENT, DATA = "latent space", "data space"


@dataclasses.dataclass(frozen=True)
class Options(HeldOutOptions):
    """What to compare."""

    num: int = option(256, help="Largest number of pairs of held-out rows.")
    steps: int = option(11, help="Points of an interpolation, including both ends.")
    temperature: float = option(0.0, help="Decoding temperature; 0 takes the best token.")
    train_rows: int = option(50_000, help="Training rows of the 5-gram model; 0: all.")

    def __post_init__(self) -> None:
        """Check every field that needs neither model nor data."""
        cli.check_choices(self)
        check_ranges(
            self,
            num=(2, 100_000),
            steps=(2, 1000),
            temperature=(0, math.inf),
            train_rows=(0, math.inf),
            seed=(0, LARGEST_SEED),
        )


class Scores(NamedTuple):
    """Scores of one interpolation, over P pairs and F points, float64 [P, F] each.

    Attributes:
      from_a: share of tokens that differ from A.
      from_b: share of tokens that differ from B.
      cost: nats per step.
    """

    from_a: np.ndarray
    from_b: np.ndarray
    cost: np.ndarray


class Result(NamedTuple):
    """Result of the experiment.

    Attributes:
      fractions: float64 [F].
      ways: scores of the interpolations through the latent space and through the data.
      real_cost: cost of the held-out rows themselves, nats per step.
    """

    fractions: np.ndarray
    ways: dict[str, Scores]
    real_cost: float


def draw_pairs(rows: np.ndarray, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of different rows, each row at most once: both ends, [P, ...].

    Raises:
      InputError: there are fewer than 4 rows.
    """
    if len(rows) < 4:
        raise InputError(f"split: it holds {len(rows)} rows, at least 4 are needed")
    order = np.random.default_rng([seed, 0]).permutation(len(rows))
    num = min(num, len(rows) // 2)
    return np.asarray(rows[order[:num]]), np.asarray(rows[order[num : 2 * num]])


def compare(
    vae: MusicVAE, ends: tuple[np.ndarray, np.ndarray], train: np.ndarray, options: Options
) -> Result:
    """Interpolate between all pairs in both spaces, and score the points."""
    task = vae.task
    models = [
        ngram.fit(column, track.num_classes, ORDER)
        for column, track in zip(columns_of(train, task), task.tracks, strict=True)
    ]
    a, b = ends
    fractions = np.linspace(0.0, 1.0, options.steps)
    mu_a, mu_b = (jnp.asarray(vae.encode(end).mu) for end in ends)
    along = jax.vmap(paths.slerp, (0, 0, None))
    arcs = along(mu_a, mu_b, jnp.asarray(fractions, jnp.float32))
    z = np.asarray(arcs).reshape(-1, vae.z_size)
    decoded = decode(vae, z, jax.random.key(options.seed), options.temperature, "points")
    generator = np.random.default_rng([options.seed, 1])
    ways = {
        LATENT: decoded.reshape(len(a), options.steps, *task.row_shape),
        DATA: interpolation.mix(a, b, fractions, generator),
    }
    return Result(
        fractions,
        {name: _measure(rows, ends, models, task) for name, rows in ways.items()},
        float(_cost(np.concatenate(ends), models, task).mean()),
    )


def _measure(
    rows: np.ndarray, ends: tuple[np.ndarray, np.ndarray], models: Sequence[ngram.NGram], task: Task
) -> Scores:
    """Score the points [P, F, ...] of one interpolation."""
    a, b = ends
    costs = _cost(rows.reshape(-1, *task.row_shape), models, task).reshape(rows.shape[:2])
    return Scores(interpolation.hamming(rows, a), interpolation.hamming(rows, b), costs)


def _cost(rows: np.ndarray, models: Sequence[ngram.NGram], task: Task) -> np.ndarray:
    """Sum the costs of all tracks, nats per step [N]."""
    pairs = zip(models, columns_of(rows, task), strict=True)
    return np.sum([ngram.cost_nats(model, column) for model, column in pairs], axis=0)


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average over the pairs [P, F], with the standard error: [F] each."""
    return values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(len(values))


def table(result: Result, about: dict[str, Any]) -> str:
    """Write a line for each fraction."""
    num = len(next(iter(result.ways.values())).cost)
    lines = [
        f"{about['task']}, {num:,} pairs of {about['split']} rows, decoded at temperature "
        f"{about['temperature']:g}, {ORDER}-gram model of {about['train_rows']:,} train rows",
        f"the held-out rows themselves cost {result.real_cost:.3f} nats per step",
        "",
        f"{'':12}" + "".join(f"{name:>44}" for name in result.ways),
        f"{'from A to B':12}" + f"{'from A':>14}{'from B':>14}{'cost, nats':>16}" * 2,
    ]
    for i, fraction in enumerate(result.fractions.tolist()):
        cells = []
        for way in result.ways.values():
            for values, width in zip(way, (14, 14, 16), strict=True):
                mean, error = mean_and_error(values)
                cells.append(f"{mean[i]:.3f} ± {error[i]:.3f}".rjust(width))
        lines.append(f"{fraction:<12.2f}" + "".join(cells))
    return "\n".join(lines)


def picture(result: Result) -> str:
    """Draw distances and costs along both paths, with a band of one standard error."""

    def line(values: np.ndarray) -> Line:
        return Line(result.fractions, *mean_and_error(values))

    ways = result.ways.items()
    distances = {f"{name}, to A": line(way.from_a) for name, way in ways}
    distances |= {f"{name}, to B": line(way.from_b) for name, way in ways}
    costs = {name: line(way.cost) for name, way in ways}
    costs["held-out rows"] = Line([0.0, 1.0], [result.real_cost] * 2)
    axis = "from A to B"
    panels = [
        Panel(distances, axis, "share of tokens that differ"),
        Panel(costs, axis, "5-gram cost, nats per step"),
    ]
    return charts.curves("interpolation between held-out rows", *panels) + "\n"


def as_json(result: Result, about: dict[str, Any]) -> str:
    """Write all means and standard errors."""
    ways: dict[str, Any] = {}
    for name, way in result.ways.items():
        ways[name] = {}
        for key, values in way._asdict().items():
            mean, error = mean_and_error(values)
            ways[name][key] = {"mean": mean.round(6).tolist(), "error": error.round(6).tolist()}
    found = {"fractions": result.fractions.round(6).tolist(), "real_cost": result.real_cost}
    return json.dumps(about | found | {"ways": ways}, indent=1) + "\n"


def run(options: Options) -> str:
    """Run the experiment, write both files, and return the table.

    Raises:
      InputError: there is no such model, checkpoint or data, or the output cannot be written.
    """
    folder = output_folder(options)
    vae = open_model(options)
    store = open_run_data(options.run_dir, options.data_dir, vae.task, options.allow_changed_data)
    ends = draw_pairs(store.splits[options.split], options.num, options.seed)
    train = store.splits["train"]
    train = np.asarray(train[data.spread_rows(len(train), options.train_rows)])
    result = compare(vae, ends, train, options)
    about = {
        "task": vae.task.name,
        "split": options.split,
        "pairs": len(ends[0]),
        "train_rows": len(train),
        "temperature": options.temperature,
        "checkpoint": options.model or options.checkpoint,
        "seed": options.seed,
    }
    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_text(folder / "interpolation.json", as_json(result, about))
    run_folder.write_text(folder / "interpolation.svg", picture(result))
    return f"{table(result, about)}\n\n{folder / 'interpolation.svg'}"


def main(options: Options) -> None:
    """Run the experiment and print the table."""
    compile_cache.switch_on()
    print(run(options))


if __name__ == "__main__":
    cli.run(main, Options)

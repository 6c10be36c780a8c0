"""Train every model of rows of tokens with equal budgets, and print two tables.

  python -m experiments.benchmarks.systems --data_dir=data/groove/drums_2bar \
    --data_dir=data/mel_2bar --output=runs/systems --minutes=3 --examples=100000

Each model is trained once on each store and scored twice: after --examples, and after --minutes of
processor time on all cores, so that other programs do not count. The first table has accuracy, the
second says how alike rows from the model and held-out rows are. Everything of a training is in a
folder of its own below --output; the same command continues where it was ended. Compilation takes
none of the minutes, validation does.

A forecaster is given the first bars of a row, the seed, and continues them; a VAE encodes the whole
row, and is scored on the same steps. So a forecaster is asked how music goes on, a VAE how well z
keeps it. A VAE samples from a prior that is fitted to training rows, as after `train`. MusicVAE has
sizes that train on two cores; the sizes of other models are their sources'.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.reporting import charts
from experiments.benchmarks.support import budgets, machine
from experiments.benchmarks.support.tables import as_markdown, as_text
from experiments.cli import compile_cache
from experiments.cli.json_files import write_json
from experiments.cli.outputs import check_writable
from experiments.cli.run_options import Trained, check_ranges
from experiments.encoding import prior
from experiments.generation import forecasts
from experiments.generation.options import Options as GenerateOptions
from musicvae_jax import data, evaluation
from musicvae_jax.analysis import originality, sets, structure
from musicvae_jax.config import Config, InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import Forecaster, build_model
from musicvae_jax.storage import checkpoints, run_folder

RATE: dict[str, Any] = {"learning_rate": 1e-3, "min_learning_rate": 1e-5, "decay_rate": 0.9999}
FORECASTER = RATE | {"warmup_steps": 0, "adam_b2": 0.999}
# Sizes that train on two cores; a recipe for the whole of a short training.
MUSICVAE: dict[str, Any] = {
    "encoder_sizes": (256,),
    "decoder_sizes": (256, 256),
    "z_size": 128,
    "beta": 0.2,
    "free_bits": 0.0,
    "sampling_schedule": "constant",
    "sampling_rate": 0.0,
    "learning_rate": 2.5e-3,
}
DENSE = {"beta": 0.5, "beta_schedule": "constant", "learning_rate": 1e-3}
SYSTEMS: dict[str, dict[str, Any]] = {
    "lstm_forecaster": FORECASTER | {"decoder_sizes": (32, 32, 32)},
    "conv_forecaster": FORECASTER | {"conv_filters": 32, "conv_width": 32, "conv_pool": 2},
    "gru_attention": FORECASTER | {"decoder_sizes": (256,), "attention_size": 64},
    "lstm_attention": FORECASTER | {"decoder_sizes": (256,), "attention_heads": 4},
    "dense_vae": DENSE
    | {"encoder_sizes": (256, 256), "decoder_sizes": (256, 256), "z_size": 50, "dropout": 0.5},
    "stacked_vae": DENSE
    | {
        "bar_sizes": (2000, 200),
        "encoder_sizes": (1600,),
        "decoder_sizes": (1600,),
        "z_size": 120,
    },
    "flat": MUSICVAE,
    "hierdec": MUSICVAE,
}
# Table 1 of a course project of 2020, as printed there (docs/systems.md).
PRINTED = (
    "printed in 2020, drums: teacher forced 2 bars 0.982 (simple), 0.963 (hierarchical), 16 bars "
    "0.812, 0.943;",
    "sampled 2 bars 0.834, 0.924, 16 bars 0.392, 0.893; how a simple model was sampled is not said",
)
FAMILIES = ("rhythm", "melody", "structure")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to train on, for how long, and where results go."""

    data_dirs: tuple[str, ...] = option((), flag="data_dir", help="Token store; may be repeated.")
    output: str = option("", help="Folder of all runs and tables.")
    systems: tuple[str, ...] = option(
        tuple(SYSTEMS), flag="system", comma=True, help="Models, comma separated."
    )
    minutes: float = option(3.0, help="Minutes of training of each model, on all cores.")
    examples: int = option(100_000, help="Training examples of each model.")
    batch_size: int = option(128, help="Rows per step.")
    rows: int = option(1000, help="Held-out rows that are scored, and samples.")
    width: int = option(0, help="Units of all layers, to try the script; 0: the sizes above.")
    seed: int = option(0, help="Random seed.")

    def __post_init__(self) -> None:
        """Check every field."""
        check_ranges(
            self, examples=(1, 1e12), batch_size=(1, 1e6), rows=(16, 1e6), width=(0, 4096),
            seed=(0, 2**31 - 1), minutes=(0.001, 1e6),
        )  # fmt: skip
        if not self.data_dirs or not self.output:
            raise InputError("data_dir: --data_dir (once or more) and --output are needed")
        for name in self.systems:
            if name not in SYSTEMS:
                raise InputError(f"system: {name!r} is not one of {', '.join(SYSTEMS)}")


class Job(NamedTuple):
    """One training: a store, a model, and the folder of it all."""

    store: data.Store
    system: str
    folder: pathlib.Path


def config_of(job: Job, options: Options) -> Config:
    """Return the configuration of a training."""
    fields = SYSTEMS[job.system]
    if options.width:
        sizes = ("encoder_sizes", "decoder_sizes", "bar_sizes")
        fields = fields | {
            name: (options.width,) * len(fields[name]) for name in sizes if name in fields
        }
    every = 10 if options.width else 500
    return job.store.task.config.replace(
        architecture=job.system,
        **fields,
        batch_size=options.batch_size,
        eval_every=every,
        save_every=every,
        log_every=50,
        eval_examples=1024,
        seed=options.seed,
    )


def score(job: Job, run_dir: pathlib.Path, options: Options) -> budgets.Scores:
    """Score the latest checkpoint of a run on test rows."""
    trained = Trained(*checkpoints.restore_params(run_dir, "latest"))
    split = job.store.splits["test"]
    chosen = data.spread_rows(len(split), options.rows)
    rows = np.asarray(split[chosen])
    seeds = [1] if job.store.task.num_bars == 2 else [1, 4, 8]
    accuracies = {}
    for bars in seeds:
        scored = evaluation.evaluate(
            trained.config, trained.params, rows, draws=2, seed=options.seed, seed_bars=bars
        )
        accuracies[str(bars)] = {
            "sampled": scored.sampled["accuracy"]["overall"],
            "greedy": scored.greedy["accuracy"]["overall"],
        }
    return {
        "teacher_forced": scored.teacher_forced["accuracy"]["overall"],
        "after_seed": accuracies,
        **compare_samples(job, run_dir, trained, sets.Rows(rows, chosen), options),
    }


def compare_samples(
    job: Job, run_dir: pathlib.Path, trained: Trained, real: sets.Rows, options: Options
) -> budgets.Scores:
    """Compare rows that a model samples with held-out rows."""
    task, num = job.store.task, len(real.tokens)
    model = build_model(trained.config)
    if isinstance(model, Forecaster):
        how = GenerateOptions(
            mode="sample", output="", run_dir="run", num=num, temperature=1.0, seed=options.seed
        )
        samples = forecasts.make(trained, model, how, None).tokens
    else:
        vae = MusicVAE(trained.config, trained.params)
        fitted = prior.fit_run(run_dir, vae, trained.step, job.store, options.seed).prior
        vae = MusicVAE(trained.config, trained.params, prior=fitted)
        samples = vae.sample(num, jax.random.key(options.seed)).astype(task.token_dtype)
    known = originality.know(np.asarray(job.store.splits["train"]), task)
    analysis = sets.analyse(real, {"samples": sets.Rows(samples)}, known, task, options.seed)
    near = {name: float(found.distance.mean()) for name, found in analysis.nearest.items()}
    both = {"samples": samples, sets.REAL: real.tokens}
    return {
        "overlap": {
            family: {
                "samples": found.others["samples"]["overlap"].value,
                sets.REAL: found.real["overlap"].value,
            }
            for family, found in analysis.families.items()
        },
        "originality": near,
        "variety": {name: structure.mean_row_distance(part, task) for name, part in both.items()},
    }


def accuracy_table(task: str, found: dict[tuple[str, str], budgets.Scores]) -> list[list[str]]:
    """Return the lines of the first table of a task: heads, then a line for each training."""
    seeds = list(next(iter(found.values()))["after_seed"])
    heads = [task, "budget", "examples", "minutes", "teacher forced"]
    lines = [
        [*heads, *(f"sampled after {n}" for n in seeds), *(f"greedy after {n}" for n in seeds)]
    ]
    for (system, budget), scores in found.items():
        after = scores["after_seed"]
        lines.append(
            [
                system,
                f"equal {budget}",
                f"{scores['examples']:,}",
                f"{scores['seconds'] / 60:.1f}",
                f"{scores['teacher_forced']:.4f}",
                *(f"{after[n]['sampled']:.4f}" for n in seeds),
                *(f"{after[n]['greedy']:.4f}" for n in seeds),
            ]
        )
    return lines


def sample_table(task: str, found: dict[tuple[str, str], budgets.Scores]) -> list[list[str]]:
    """Return the lines of the second table of a task; the last is of the held-out rows."""
    first = next(iter(found.values()))
    families = [name for name in FAMILIES if name in first["overlap"]]
    overlaps = [f"overlap: {name}" for name in families]
    lines = [[task, "budget", *overlaps, "distance to nearest train row", "distance of two rows"]]
    named = [(system, f"equal {budget}", s, "samples") for (system, budget), s in found.items()]
    for system, budget, scores, part in [*named, ("held-out rows", "", first, sets.REAL)]:
        values = [scores["overlap"][name][part] for name in families]
        values += [scores["originality"][part], scores["variety"][part]]
        shown = ["-" if value is None else f"{value:.3f}" for value in values]
        lines.append([system, budget, *shown])
    return lines


def picture(task: str, found: dict[tuple[str, str], budgets.Scores]) -> str:
    """Draw the accuracies of a task as SVG."""
    seeds = list(next(iter(found.values()))["after_seed"])
    values = [
        [s["teacher_forced"], *(s["after_seed"][n]["sampled"] for n in seeds)]
        for s in found.values()
    ]
    names = [f"{system}, equal {budget}" for system, budget in found]
    columns = [
        "teacher\nforced",
        *(f"sampled\nafter {n} {'bar' if n == '1' else 'bars'}" for n in seeds),
    ]
    return charts.heat_map(np.array(values), names, columns, f"accuracy, {task}", ("", task))


def write_tables(
    folder: pathlib.Path, options: Options, found: dict[str, dict[tuple[str, str], budgets.Scores]]
) -> str:
    """Write the tables as text and Markdown, and a picture of each task; return the text."""
    tables = [
        table(task, scores)
        for table in (accuracy_table, sample_table)
        for task, scores in found.items()
    ]
    about = (
        f"{machine.describe('jaxlib', 'flax')}; batch {options.batch_size}, one run each; "
        f"up to {options.rows:,} test rows; sampled: temperature 1, 2 draws"
    )
    text = "\n\n".join([about, *map(as_text, tables), "\n".join(PRINTED)]) + "\n"
    run_folder.write_text(folder / "systems.txt", text)
    run_folder.write_text(folder / "systems.md", "\n\n".join(map(as_markdown, tables)) + "\n")
    for task, scores in found.items():
        run_folder.write_text(folder / f"{task}.svg", picture(task, scores))
    return text


def run(options: Options) -> str:
    """Train and score everything that is not done yet; return the tables."""
    folder = check_writable(options.output, "output")
    stores = [data.open_store(path) for path in options.data_dirs]
    jobs = [
        Job(store, system, folder / store.task.name / system)
        for store in stores
        for system in options.systems
    ]
    settings = dataclasses.asdict(options) | {"systems": None, "data_dirs": None, "output": None}
    record = folder / "settings.json"
    if record.is_file() and json.loads(record.read_text()) != settings:
        raise InputError(f"output: {folder} was made with other settings; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, settings)
    # First the lines of equal minutes, then those of equal examples.
    lines = [(name, budget) for budget in budgets.BUDGETS for name in options.systems]
    found: dict[str, dict[tuple[str, str], budgets.Scores]] = {
        store.task.name: {key: {} for key in lines} for store in stores
    }
    start, made = time.monotonic(), 0
    limits = budgets.Budgets(options.minutes, options.examples)
    for number, job in enumerate(jobs, start=1):
        was_done = budgets.is_done(job.folder)
        scorer = functools.partial(score, job, options=options)
        scores = budgets.train_and_score(
            config_of(job, options), job.store, job.folder, limits, scorer
        )
        for budget, scored in scores.items():
            found[job.store.task.name][job.system, budget] = scored
        made += not was_done
        left = (time.monotonic() - start) / max(made, 1) * (len(jobs) - number)
        state = "done before" if was_done else f"about {left / 60:.0f} minutes left"
        name = f"{job.store.task.name}, {job.system}"
        print(f"{number}/{len(jobs)} {name}: {state}", file=sys.stderr, flush=True)
    return write_tables(folder, options, found)


def main(options: Options) -> None:
    """Print the tables."""
    compile_cache.switch_on()
    print(run(options))


if __name__ == "__main__":
    cli.run(main, Options)

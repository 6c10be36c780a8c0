"""Train flat and hierarchical models of equal size on 16 bars, and print the paper's table.

  python -m experiments.benchmarks.hierarchy --data_dir=data/mel_16bar --output=runs/hierarchy \
    --seed=0,1,2
  python -m experiments.benchmarks.hierarchy --data_dir=data/drums_16bar --output=runs/hierarchy
  python -m experiments.benchmarks.hierarchy --results=experiments/benchmarks/hierarchy.json

`hierdec` has --units in every layer. `flat` has the same encoder and z; its decoder has as many
units as make the numbers of parameters equal within 3%. Each model is trained once and scored at
two budgets, after --examples and after --minutes of processor time on all cores
(`support/budgets.py`). With --init=default,reference and one model, the same tables compare two
initialisations; nothing else of the recipe differs.

The results file has everything that the tables show. A training that is in it is not repeated, so
the work can be divided over days, and over machines by copying the file. All trainings of a task
have the same settings; those of different tasks may differ. Without --data_dir the tables are
printed from the file alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import budgets, hierarchy_tables, machine
from experiments.cli import compile_cache
from experiments.cli.json_files import write_json
from experiments.cli.outputs import check_writable
from experiments.cli.run_options import Trained, check_ranges
from experiments.encoding import prior
from musicvae_jax import data, evaluation
from musicvae_jax.analysis import sets
from musicvae_jax.config import INITS, OPTIMISERS, Config, InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage import checkpoints
from musicvae_jax.tasks import NO_EVENT, Task
from musicvae_jax.training.state import count_parameters

FLAT, HIERARCHICAL = MODELS = ("flat", "hierdec")
LARGEST_DIFFERENCE = 0.03  # of the numbers of parameters
KERNEL_UNITS = 16  # the native LSTM kernel needs a multiple
# What all trainings of a task have in common.
SETTINGS = (
    *("minutes", "examples", "units", "batch_size", "optimiser", "learning_rate", "beta"),
    *("free_bits", "rows"),
)

Results = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """What to train, for how long, and where results go."""

    data_dirs: tuple[str, ...] = option(
        (), flag="data_dir", help="Token store of 16-bar rows; may be repeated. None: only tables."
    )
    output: str = option("", help="Folder of runs, tables and pictures.")
    results: str = option("", help="JSON file of finished trainings. Default: in --output.")
    models: tuple[str, ...] = option(
        MODELS, flag="model", comma=True, help="Models, comma separated."
    )
    inits: tuple[str, ...] = option(
        ("default",), flag="init", comma=True, help="Initialisations, comma separated."
    )
    seeds: tuple[int, ...] = option((0,), flag="seed", comma=True, help="Seeds, comma separated.")
    minutes: float = option(20.0, help="Minutes of training of each model, on all cores.")
    examples: int = option(20_000, help="Training examples of each model.")
    units: int = option(256, help="Units of every layer of hierdec, and of the encoders.")
    batch_size: int = option(16, help="Rows per step.")
    learning_rate: float = option(2e-3, help="Initial learning rate.")
    optimiser: str = option("adam", help="Optimiser: adam, muon or auto.")
    rows: int = option(1000, help="Held-out rows that are scored, and samples.")
    beta: float = option(0.2, help="Weight of the KL divergence.")
    free_bits: float = option(256.0, help="Bits of KL divergence per row that cost nothing.")
    eval_every: int = option(150, help="Steps between points of the validation curve.")

    def __post_init__(self) -> None:
        """Check every field."""
        check_ranges(
            self, examples=(1, 1e12), batch_size=(1, 1e6), rows=(16, 1e6), units=(2, 4096),
            minutes=(0.001, 1e6), learning_rate=(1e-9, 1e3), eval_every=(1, 1e6),
            beta=(0, 1e3), free_bits=(0, 1e4),
        )  # fmt: skip
        for name, given, known in (
            ("model", self.models, MODELS),
            ("init", self.inits, INITS),
            ("optimiser", (self.optimiser,), OPTIMISERS),
        ):
            for value in given:
                if value not in known:
                    raise InputError(f"{name}: {value!r} is not one of {', '.join(known)}")
        if any(not 0 <= seed < 2**31 for seed in self.seeds):
            raise InputError(f"seed: {self.seeds} is out of range, it must be from 0 to 2**31 - 1")
        if self.data_dirs and not self.output:
            raise InputError("output: --output is needed to train")
        if not (self.output or self.results):
            raise InputError("results: --results, or --output and --data_dir, are needed")

    @property
    def results_path(self) -> pathlib.Path:
        """Path of the results file."""
        return pathlib.Path(self.results or pathlib.Path(self.output) / "results.json")

    def settings(self) -> Results:
        """Return the `SETTINGS`."""
        return {name: getattr(self, name) for name in SETTINGS}


class Job(NamedTuple):
    """One training."""

    store: data.Store
    model: str
    init: str
    seed: int

    @property
    def key(self) -> Results:
        """Identify the training in the results file."""
        return {"task": self.store.task.name, **self._asdict()} | {"store": self.store.fingerprint}


def parameters(config: Config) -> int:
    """Count the parameters of a model."""
    return count_parameters(jax.eval_shape(build_model(config).init, jax.random.key(0)))


def config_of(job: Job, options: Options) -> Config:
    """Return the configuration of a training.

    Raises:
      InputError: no flat decoder has as many parameters as the hierarchical one.
    """
    units, every = options.units, options.eval_every
    hierarchical = job.store.task.config.replace(
        architecture=HIERARCHICAL,
        encoder_sizes=(units,),
        decoder_sizes=(units, units),
        z_size=units // 2,
        init=job.init,
        beta=options.beta,
        free_bits=options.free_bits,
        sampling_schedule="constant",
        sampling_rate=0.0,
        learning_rate=options.learning_rate,
        optimiser=options.optimiser,
        batch_size=options.batch_size,
        eval_every=every,
        save_every=2 * every,
        log_every=every,
        eval_examples=512,
        seed=job.seed,
    )
    return hierarchical if job.model == HIERARCHICAL else flat_as_large_as(hierarchical)


def flat_as_large_as(hierarchical: Config) -> Config:
    """Return a configuration with a flat decoder and about as many parameters.

    Raises:
      InputError: the numbers differ by 3% or more.
    """

    def flat(units: int) -> Config:
        return hierarchical.replace(architecture=FLAT, decoder_sizes=(units, units))

    aim, low, high = parameters(hierarchical), 1, 16 * hierarchical.model.decoder_sizes[0]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(flat(middle)) <= aim else (low, middle)
    down = low // KERNEL_UNITS * KERNEL_UNITS
    rounded = [units for units in (down, down + KERNEL_UNITS) if units]
    for candidates in (rounded, [low, high]):
        sizes = {units: abs(parameters(flat(units)) / aim - 1) for units in candidates}
        best = min(candidates, key=lambda units: sizes[units])
        if sizes[best] < LARGEST_DIFFERENCE:
            return flat(best)
    raise InputError(f"units: no flat decoder has {aim:,} parameters within 3%; take more units")


def score(job: Job, run_dir: pathlib.Path, options: Options) -> budgets.Scores:
    """Score the latest checkpoint of a run on test rows."""
    trained = Trained(*checkpoints.restore_params(run_dir, "latest"))
    split, task = job.store.splits["test"], job.store.task
    chosen = data.spread_rows(len(split), options.rows)
    rows = np.asarray(split[chosen])
    found = evaluation.evaluate(trained.config, trained.params, rows, draws=2, seed=job.seed)
    vae = MusicVAE(trained.config, trained.params)
    fitted = prior.fit_run(
        run_dir, vae, trained.step, job.store, job.seed, hierarchy_tables.PRIOR_ROWS
    ).prior
    vae = MusicVAE(trained.config, trained.params, prior=fitted)
    overall = {
        name: figures["accuracy"]["overall"]
        for name, figures in (
            ("teacher_forced", found.teacher_forced),
            ("sampled", found.sampled),
            ("greedy", found.greedy),
        )
    }
    return overall | {
        "elbo_nats": found.elbo_nats,
        "kl_bits": found.kl_bits,
        "no_event": found.baselines["no_event_accuracy"]["overall"],
        "unigram": found.baselines["unigram_accuracy"]["overall"],
        "sampled_by_bar": by_bar(sampled_again(vae, rows, job.seed) == rows, task),
        "no_event_by_bar": by_bar(rows == NO_EVENT, task),
        "overlap": overlaps(vae, sets.Rows(rows, chosen), task, job.seed),
    }


def sampled_again(vae: MusicVAE, rows: np.ndarray, seed: int) -> np.ndarray:
    """Sample each row from a z that is drawn from its posterior, at temperature 1."""
    posterior = vae.encode(rows)
    noise = np.random.default_rng(seed).normal(size=posterior.mu.shape).astype(np.float32)
    z = np.asarray(posterior.mu) + np.asarray(posterior.sigma) * noise
    return vae.decode(z, jax.random.key(seed), 1.0)


def by_bar(is_true: np.ndarray, task: Task) -> list[float]:
    """Average booleans [N, T] or [N, T, K] over the rows, for each bar."""
    bars = is_true.reshape(len(is_true), task.num_bars, -1)
    return [float(share) for share in bars.mean(axis=(0, 2))]


def overlaps(vae: MusicVAE, real: sets.Rows, task: Task, seed: int) -> Results:
    """Compare samples of the fitted prior with held-out rows, by family of measures."""
    samples = vae.sample(len(real.tokens), jax.random.key(seed)).astype(task.token_dtype)
    analysis = sets.analyse(real, {"samples": sets.Rows(samples)}, None, task, seed)
    return {
        family: {
            "samples": found.others["samples"]["overlap"].value,
            sets.REAL: found.real["overlap"].value,
        }
        for family, found in analysis.families.items()
    }


def curve(run_dir: pathlib.Path) -> tuple[list[list[float]], float]:
    """Return [step, validation loss] of each validation, and how many steps were zeroed."""
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [[r["step"], r["loss"]] for r in records if r["split"] == "validation"]
    zeroed = [r["zeroed"] for r in records if r["split"] == "train"]
    return losses, zeroed[-1] if zeroed else 0.0


def read_results(path: pathlib.Path) -> Results:
    """Read the finished trainings, and the settings of each task.

    Raises:
      InputError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise InputError(f"results: there is no file {path}")
    try:
        found: Results = json.loads(path.read_text())
        tasks = {entry["task"] for entry in found["trainings"]}
        known = all(set(SETTINGS) <= set(found["settings"][task]) for task in tasks)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise InputError(f"results: {path} is not a results file of this script")
    return found


def set_settings(found: Results, task: str, settings: Results) -> None:
    """Note the settings of the trainings of a task.

    Raises:
      InputError: the finished trainings of the task have others.
    """
    before = found["settings"].setdefault(task, settings)
    for name, value in settings.items():
        if before.get(name) != value:
            raise InputError(
                f"{name}: the trainings of {task} so far have {before.get(name)}, not {value}; "
                "give the same, or another --results"
            )


def train(job: Job, options: Options) -> Results:
    """Train and score a model; return its entry of the results file."""
    config = config_of(job, options)
    folder = pathlib.Path(options.output) / "/".join(
        (job.store.task.name, job.model, job.init, f"seed_{job.seed}")
    )
    limits = budgets.Budgets(options.minutes, options.examples)
    scorer = functools.partial(score, job, options=options)
    points = budgets.train_and_score(config, job.store, folder, limits, scorer)
    losses, zeroed = curve(folder / "run")
    return job.key | {
        "decoder_units": config.model.decoder_sizes[0],
        "parameters": parameters(config),
        "train_rows": len(job.store.splits["train"]),
        "machine": machine.describe("jaxlib", "flax"),
        "zeroed": zeroed,
        "curve": losses,
        "points": points,
    }


def run(options: Options) -> str:
    """Train and score everything that is not done yet; return the tables."""
    path = options.results_path
    stores = [data.open_store(folder) for folder in options.data_dirs]
    is_new = bool(stores) and not path.exists()
    found = {"settings": {}, "trainings": []} if is_new else read_results(path)
    for store in stores:
        check_store(store, found["trainings"])
        set_settings(found, store.task.name, options.settings())
    jobs = [
        Job(store, model, init, seed)
        for seed in options.seeds
        for store in stores
        for init in options.inits
        for model in options.models
    ]
    if options.output:
        check_writable(options.output, "output").mkdir(parents=True, exist_ok=True)
    for number, job in enumerate(jobs, start=1):
        name = f"{job.store.task.name}, {job.model}, {job.init} start, seed {job.seed}"
        is_done = any(job.key.items() <= entry.items() for entry in found["trainings"])
        state = "done before" if is_done else "training"
        print(f"{number}/{len(jobs)} {name}: {state}", file=sys.stderr, flush=True)
        if not is_done:
            found["trainings"].append(train(job, options))
            write_json(path, found)
    if not found["trainings"]:
        raise InputError(f"results: {path} has no training")
    return hierarchy_tables.write(found, pathlib.Path(options.output) if options.output else None)


def check_store(store: data.Store, trainings: Sequence[Results]) -> None:
    """Check that a store has rows of 16 bars, and those of the trainings of its task so far.

    Raises:
      InputError: it does not.
    """
    task = store.task
    if task.num_bars != 16 or task.content != "tokens":
        raise InputError(f"data_dir: {store.path} has rows of {task.name}, not of 16 bars")
    for entry in trainings:
        if entry["task"] == task.name and entry["store"] != store.fingerprint:
            raise InputError(f"data_dir: {store.path} differs from the results' {task.name} rows")


def main(options: Options) -> None:
    """Print the tables."""
    compile_cache.switch_on()
    print(run(options), end="")


if __name__ == "__main__":
    cli.run(main, Options)

"""Take every architecture that Magenta does not have through all commands; print a table.

Example:
  python -m experiments.benchmarks.architectures --architecture=lstm_forecaster,waveform_vae

For each, on a tiny model and made-up rows: train, killed by SIGKILL between two checkpoints and
resumed by the same command, compared to the bit with a run that was never interrupted; evaluate;
generate in every mode, which writes or refuses in one line; a sweep of 2 x 2; compare. Each command
is a process of its own. A command that fails ends the benchmark with exit code 2.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipeline import cli, prepare_audio
from data_pipeline.cli import option
from experiments.benchmarks import kill_train
from experiments.benchmarks.support import machine
from experiments.cli.outputs import check_writable
from experiments.generation.options import MODES
from musicvae_jax.config import InputError
from musicvae_jax.models.registry import ARCHITECTURES, architectures_with, find_architecture
from musicvae_jax.storage import checkpoints

OTHERS = tuple(name for name, entry in ARCHITECTURES.items() if not entry.in_magenta)
# Tiny sizes; an architecture is given those that it uses.
SIZES = {
    "encoder_sizes": "8",
    "decoder_sizes": "8",
    "z_size": "4",
    "bar_sizes": "8",
    "conv_filters": "4",
    "conv_width": "5",
    "attention_size": "4",
    "attention_heads": "2",
}
# The second axis of the sweep: the first of these that the architecture uses.
AXES = {"conv_filters": "4,6", "decoder_sizes": "8,12"}
SPLIT = "validation"
# Mode -> number of inputs, more flags.
_MODES: dict[str, tuple[int, tuple[str, ...]]] = {
    "sample": (0, ("--num=2",)),
    "reconstruct": (1, ()),
    "interpolate": (2, ("--steps=3",)),
    "grid": (4, ("--rows=2", "--columns=2")),
    "similar": (1, ("--num=2",)),
    "attribute": (1, ("--attribute=note_density", "--amount=1")),
    "continue": (1, ("--bars=2",)),
    "long": (0, ("--windows=2",)),
}
_COLUMNS = {
    "architecture": 17,
    "parameters": 10,
    "steps": 5,
    "killed after": 12,
    "resumed": 13,
    "parameters' hash": 16,
    "scores": 28,
    "sweep": 8,
    "compare": 7,
    "generate wrote": 0,
}


class Taken(NamedTuple):
    """What the commands did with one architecture.

    Attributes:
      name: the architecture.
      parameters: number of parameters.
      trial: the training processes and what differs in the end.
      digest: SHA-256 of the final parameters of the resumed run.
      scores: of the validation rows, for a reader.
      wrote: modes in which generate wrote files; it refused the others.
      finished: points of the sweep that finished and have scores.
      compared: whether compare printed the scores of the run and those of the best point.
    """

    name: str
    parameters: int
    trial: kill_train.Trial
    digest: str
    scores: str
    wrote: tuple[str, ...]
    finished: int
    compared: bool


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, to exit code 0 or to a refusal in one line.

    Raises:
      InputError: it failed otherwise.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    is_refusal = done.returncode == 2 and done.stderr.startswith("error: ")
    if done.returncode and not (is_refusal and done.stderr.count("\n") == 1):
        last = (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]
        raise InputError(f"{module} {' '.join(arguments)}: exit code {done.returncode}: {last}")
    return done


def _succeed(module: str, *arguments: str) -> str:
    """Run a command that must not refuse; return what it printed."""
    done = _run(module, *arguments)
    if done.returncode:
        raise InputError(f"{module}: refused: {done.stderr.strip()}")
    return done.stdout


def write_sound(folder: pathlib.Path) -> None:
    """Write a store of 80 rows of a second, sines with two labels."""
    import soundfile

    rate, rng = 400, np.random.default_rng(0)
    for label, lowest in (("low", 20.0), ("high", 60.0)):
        (folder / "clips" / label).mkdir(parents=True)
        for number in range(40):
            time = np.arange(rate) / rate
            sound = rng.uniform(0.2, 0.8) * np.sin(2 * np.pi * (lowest + number * 0.7) * time)
            soundfile.write(folder / "clips" / label / f"{number:02}.wav", sound, rate)
    options = prepare_audio.Options(
        input=str(folder / "clips"), output=str(folder / "sound"), rate=200, seconds=1
    )
    prepare_audio.prepare(options)


def model_flags(name: str, without: str = "") -> list[str]:
    """Return the flags of a tiny model, but for one field, with the schedule of `kill_train`."""
    fields = {field: value for field, value in SIZES.items() if name in architectures_with(field)}
    common = [flag for flag in kill_train.MODEL if flag[2:].split("=")[0] not in SIZES]
    sizes = [f"--{field}={value}" for field, value in fields.items() if field != without]
    return [f"--architecture={name}", *sizes, *common]


def take(name: str, stores: dict[str, pathlib.Path], folder: pathlib.Path) -> Taken:
    """Take one architecture through all commands.

    Args:
      name: the architecture.
      stores: content of rows to a store.
      folder: an empty folder to work in.

    Raises:
      InputError: a command failed.
    """
    folder.mkdir()
    store = stores[find_architecture(name).reads[0]]
    kinds = (kill_train.KINDS[2],)
    trial = kill_train.kill_often(store, folder, kinds, seed=0, model=model_flags(name))
    run_dir = folder / "killed"
    _succeed("experiments.evaluate", f"--run_dir={run_dir}", f"--split={SPLIT}", "--draws=2")
    wrote = tuple(mode for mode in MODES if _generates(mode, run_dir, store, folder))
    rows = _sweep(name, store, folder / "sweep")
    best = folder / "sweep" / "points" / rows[0]["point"]
    table = _succeed("experiments.compare", str(run_dir), str(best))
    _, params, _ = checkpoints.restore_params(run_dir, "latest")
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return Taken(
        name=name,
        parameters=sum(leaf.size for leaf in leaves),
        trial=trial,
        digest=hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest(),
        scores=_scores(run_dir),
        wrote=wrote,
        finished=sum(row["end"] == "finished" and bool(row["best_step"]) for row in rows),
        compared=f"\n{SPLIT}: " in table and f"\n{SPLIT}, sweep: " in table,
    )


def _generates(mode: str, run_dir: pathlib.Path, store: pathlib.Path, folder: pathlib.Path) -> bool:
    """Generate in a mode; return whether files were written, false for a refusal."""
    if mode == "attribute":
        _run("experiments.attributes", f"--run_dir={run_dir}", "--num=16")
    count, more = _MODES[mode]
    inputs = [f"--input={store}:train:{row}" for row in range(count)]
    output = folder / "music" / mode
    arguments = (f"--run_dir={run_dir}", f"--output={output}", f"--mode={mode}", "--format=midi")
    done = _run("experiments.generate", *arguments, *inputs, *more)
    if done.returncode == 0:
        written = [path for path in output.iterdir() if path.stat().st_size]
        if not any(path.suffix == ".npz" for path in written) or len(written) < 2:
            raise InputError(f"generate: --mode={mode} wrote only {written}")
    return done.returncode == 0


def _sweep(name: str, store: pathlib.Path, folder: pathlib.Path) -> list[dict[str, Any]]:
    """Sweep the learning rate and a size, two values each; return the rows of results.csv."""
    axis = next(field for field in AXES if name in architectures_with(field))
    _succeed(
        "experiments.grid_search",
        *model_flags(name, without=axis),
        *(f"--data_dir={store}", f"--run_dir={folder}", "--train_steps=6", "--executor=vmap"),
        *("--grid=learning_rate=0.001,0.003", f"--grid={axis}={AXES[axis]}", "--score_draws=2"),
    )
    with (folder / "results.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _scores(run_dir: pathlib.Path) -> str:
    """Write what evaluate found: accuracies, or those of sound."""
    found = json.loads((run_dir / f"evaluation_{SPLIT}.json").read_text(encoding="utf-8"))
    if "sampled" not in found:
        return f"{found['snr_db']:.2f} dB, {found['log_spectral_distance_db']:.2f} dB"
    kinds = ("teacher_forced", "greedy", "sampled")
    return ", ".join(f"{found[kind]['accuracy']['overall']:.3f}" for kind in kinds)


def is_wrong(taken: Taken) -> bool:
    """Tell whether something of an architecture is not as it should be."""
    return bool(taken.trial.differing) or taken.finished < 4 or not (taken.compared and taken.wrote)


def line(taken: Taken) -> str:
    """Write the line of the table."""
    killed, last = taken.trial.processes[-2:]
    wrote = ", ".join(taken.wrote) if len(taken.wrote) < len(MODES) else "all modes"
    refused = len(MODES) - len(taken.wrote)
    cells = (
        taken.name,
        f"{taken.parameters:,}",
        last.last_step,
        f"step {killed.last_step}",
        f"at {last.first_step}, " + ("differs" if taken.trial.differing else "equal"),
        taken.digest[:12],
        taken.scores,
        f"{taken.finished} of 4",
        "yes" if taken.compared else "no",
        wrote + (f"; refused: {refused}" if refused else ""),
    )
    return "  ".join(f"{cell!s:{n}}" for cell, n in zip(cells, _COLUMNS.values(), strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to take through the commands, and where."""

    architectures: tuple[str, ...] = option(
        OTHERS, flag="architecture", comma=True, help="Architectures, comma separated."
    )
    output: str | None = option(None, help="New folder for all runs. Default: a temporary one.")
    jobs: int = option(1, low=1, help="Architectures at a time.")

    def __post_init__(self) -> None:
        """Check the architectures."""
        cli.check_choices(self)
        for name in self.architectures:
            find_architecture(name)


def main(options: Options) -> None:
    """Print a line for each architecture, in their order, as they are done."""
    print(machine.describe("orbax-checkpoint"))
    print("scores of validation rows: accuracy teacher forced, greedy, sampled;")
    print("of sound: signal-to-noise ratio, log-spectral distance")
    print("  ".join(f"{head:{width}}" for head, width in _COLUMNS.items()).rstrip(), flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if options.output:
            folder = check_writable(options.output, "output")
            folder.mkdir(parents=True)
        kill_train.write_rows(folder / "rows")
        stores = {"tokens": folder / "rows", "sound": folder / "sound"}
        if any(find_architecture(name).reads[0] == "sound" for name in options.architectures):
            write_sound(folder)
        done: list[Taken] = []
        with ThreadPoolExecutor(options.jobs) as pool:
            paths = [folder / architecture for architecture in options.architectures]
            tried = functools.partial(take, stores=stores)
            for taken in pool.map(lambda path: tried(path.name, folder=path), paths):
                done.append(taken)
                print(line(taken).rstrip(), flush=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"processor time of all commands: {seconds:,.0f} s")
    if any(map(is_wrong, done)):
        raise InputError(f"not as it should be: {', '.join(t.name for t in done if is_wrong(t))}")


if __name__ == "__main__":
    cli.run(main, Options)

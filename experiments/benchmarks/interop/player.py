"""Compare trained models with what the browser player computes from our exports of them.

python -m experiments.benchmarks.interop.player --data_dir=data --models=mel_2bar,drums_2bar \
    --run_dirs=runs/mel_16bar_hier

Needs Node and `npm ci --ignore-scripts` in tests/browser. `--data_dir` has a token store per task
(data/mel_2bar). Each model is exported with float32 weights and loaded by version 1.23.1 of the
player. The table has the largest difference of mu on test rows, how many greedy rows are equal
(half of them decoded from the means of test rows, half from draws from N(0, I)), and how many of
seven rows that `sample`, `interpolate` and `similar` return have all steps.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import machine
from musicvae_jax import MusicVAE, data
from musicvae_jax.config import InputError
from musicvae_jax.interop import magentajs
from musicvae_jax.models import encoders
from musicvae_jax.tasks import Task

SCRIPT = pathlib.Path(__file__).parents[3] / "tests" / "browser" / "player.js"
PLAYER = SCRIPT.parent / "node_modules" / "@magenta" / "music"


class Comparison(NamedTuple):
    """What the player computed, beside the model.

    Attributes:
      mu_error: largest absolute difference of mu.
      equal_rows: greedy rows that are equal, token for token.
      rows: rows decoded greedily.
      complete: rows of sample, interpolate and similar that have all steps, of seven.
    """

    mu_error: float
    equal_rows: int
    rows: int
    complete: int


def request(folder: pathlib.Path, task: Task, tokens: np.ndarray, z: np.ndarray) -> dict[str, Any]:
    """Ask the player to encode rows [B, T] and to decode points [B, Z] greedily."""
    if task.tracks[0].encoder_roll:
        roll = np.asarray(encoders.drum_roll(jnp.asarray(tokens)))
        inputs = [[np.flatnonzero(step).tolist() for step in row] for row in roll]
    else:
        inputs = [[[int(token)] for token in row] for row in tokens]
    depth = task.encoder_depth
    return {"folder": str(folder), "inputs": inputs, "depth": depth, "z": z.tolist()}


def ask(requests: list[dict[str, Any]], folder: pathlib.Path) -> list[dict[str, Any]]:
    """Run the player in Node.

    Args:
      requests: see `player.js`.
      folder: where the file with the requests is written.

    Raises:
      InputError: Node or the player is missing, or the player failed.
    """
    node = shutil.which("node")
    if node is None or not PLAYER.is_dir():
        raise InputError(f"the player needs node, and npm ci --ignore-scripts in {SCRIPT.parent}")
    path = folder / "request.json"
    path.write_text(json.dumps(requests))
    done = subprocess.run([node, SCRIPT, path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"the player failed: {done.stderr.strip()}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def compare(vae: MusicVAE, tokens: np.ndarray) -> Comparison:
    """Export a model, and let the player and the model encode and decode the same.

    Args:
      vae: the model.
      tokens: rows [B, T]; half as many means and as many draws are decoded.
    """
    mu, _ = vae.encode(tokens)
    half = len(tokens) // 2
    z = np.concatenate([mu[:half], jax.random.normal(jax.random.key(0), mu[:half].shape)])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        magentajs.write(folder / "model", vae.config, vae.params)
        (answer,) = ask([request(folder / "model", vae.task, tokens, z)], folder)
    is_equal = np.array(answer["outputs"])[..., 0] == vae.decode(z)
    return Comparison(
        mu_error=float(np.abs(np.array(answer["mu"]) - mu).max()),
        equal_rows=int(is_equal.all(axis=-1).sum()),
        rows=len(z),
        complete=answer["steps"].count(vae.task.num_steps),
    )


def show(vae: MusicVAE, folder: pathlib.Path, num: int) -> None:
    """Print a model's line of the table, from test rows of a store."""
    rows = np.asarray(data.open_store(folder).splits["test"])
    found = compare(vae, rows[data.spread_rows(len(rows), num)])
    model = vae.config.model
    sizes = "/".join(",".join(map(str, s)) for s in (model.encoder_sizes, model.decoder_sizes))
    name = f"{vae.config.task} {model.architecture} {sizes} z {model.z_size}"
    print(
        f"{name:42}{vae.step:8,}{found.mu_error:12.1e}{found.equal_rows:10} of {found.rows}"
        f"{found.complete:8} of 7",
        flush=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which models to compare, and on what."""

    data_dir: str = option(help="Folder with a token store per task.")
    models: tuple[str, ...] = option(
        ("mel_2bar", "drums_2bar"), comma=True, help="Models of this package."
    )
    run_dirs: tuple[str, ...] = option((), comma=True, help="Run folders of other models.")
    rows: int = option(16, low=2, help="Test rows per model.")


def main(options: Options) -> None:
    """Print the table."""
    print(machine.describe())
    print(f"{'model':42}{'steps':>8}{'error of mu':>12}{'equal rows':>16}{'complete':>12}")
    models = [MusicVAE.from_pretrained(name) for name in options.models]
    models += [MusicVAE.restore(folder) for folder in options.run_dirs]
    for vae in models:
        show(vae, pathlib.Path(options.data_dir) / vae.config.task, options.rows)


if __name__ == "__main__":
    cli.run(main, Options)

"""Compare a model's samples and reconstructions with held-out rows.

python -m experiments.analyze --run_dir=runs/mel_2bar --num=1000

Writes analysis.json and analysis.html (one page with all pictures) into the run folder, or below
--output, and prints a summary. Every measure is a distance between distributions, with an
interval, next to the same distance between two halves of the real rows.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

from absl import flags

from data_pipeline import cli
from experiments.analysis import page as analysis_page
from experiments.analysis.material import Options, gather, look_at_latents
from experiments.analysis.report import as_json, table
from experiments.cli import compile_cache, run_options
from musicvae_jax import data
from musicvae_jax.analysis import comparison, originality, sets
from musicvae_jax.config import InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.storage import run_folder


def check(options: Options) -> None:
    """Check what needs neither model nor data.

    Raises:
      InputError: an option is out of range.
    """
    held_out = data.SPLITS[1:]
    if options.split not in held_out:
        raise InputError(f"split: {options.split!r} is not one of {', '.join(held_out)}")
    if not 16 <= options.num <= 100_000:
        raise InputError(f"num: {options.num} is out of range, it must be from 16 to 100000")
    if not 0.0 <= options.temperature < math.inf:
        raise InputError(f"temperature: {options.temperature} is out of range, 0 or more")
    if options.train_rows < 0:
        raise InputError(f"train_rows: {options.train_rows} is out of range, it must be 0 or more")
    if not 0 <= options.seed < 2**31:
        raise InputError(f"seed: {options.seed} is out of range, from 0 to 2**31 - 1")


def analyze(options: Options) -> str:
    """Analyse a run, write both files, and return the summary.

    Raises:
      InputError: an option is out of range, or there is no such run, checkpoint or data.
    """
    check(options)
    folder = pathlib.Path(options.output or options.run_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output: {folder} is a file, it must be a folder")
    vae = MusicVAE.restore(options.run_dir, options.checkpoint)
    material = gather(vae, options)
    known = originality.know(material.train, vae.task)
    analysis = sets.analyse(material.real, material.others, known, vae.task, options.seed)
    latents = look_at_latents(vae, material, analysis, options.seed)
    about = {
        "task": vae.task.name,
        "checkpoint": options.checkpoint,
        "split": options.split,
        "samples": options.num,
        "held_out_rows": len(material.real.tokens),
        "train_rows": len(material.train),
        "temperature": options.temperature,
        "seed": options.seed,
        "rows_per_side": analysis.rows_per_side,
        "draws": comparison.DRAWS,
    }
    summary = table(about, analysis, latents)
    folder.mkdir(parents=True, exist_ok=True)
    page = analysis_page.html(about, material, analysis, latents, summary)
    run_folder.write_text(folder / "analysis.json", as_json(about, analysis, latents))
    run_folder.write_text(folder / "analysis.html", page)
    return f"{summary}\n\n{folder / 'analysis.json'}\n{folder / 'analysis.html'}"


def define_flags() -> None:
    """Define this entry point's flags."""
    run_options.define()
    flags.DEFINE_integer("num", 1000, "Number of samples, and largest number of held-out rows.")
    flags.DEFINE_string("split", "test", "Held-out rows: test or validation.")
    flags.DEFINE_string("output", None, "Folder to write into. Default: the run folder.")
    flags.DEFINE_float("temperature", 1.0, "Temperature of samples and reconstructions.")
    flags.DEFINE_integer("train_rows", 200_000, "Training rows to search for copies; 0: all.")
    flags.DEFINE_integer("seed", 0, "Random seed for sampling.")


def main(argv: Sequence[str]) -> None:
    """Analyse and print the summary."""
    del argv
    compile_cache.switch_on()
    print(analyze(run_options.given(Options)))


if __name__ == "__main__":
    define_flags()
    cli.run(main)

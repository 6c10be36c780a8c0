"""Generate music with a trained model.

Example:
  python -m experiments.generate --run_dir=runs/mel_2bar --mode=sample --num=8 --output=music

Modes:
  sample       --num rows from the prior: the one fitted to training rows where the run has it,
               otherwise N(0, I)
  reconstruct  each input through the model and back; also one file per input, original first
  interpolate  --steps rows from a first input to a second one
  grid         --rows x --columns rows between four inputs in the corners
  similar      --num variations of each input, --amount=0 (reconstruction) to 1 (unrelated)
  attribute    each input plus --amount times the vector of --attribute=NAME, which
               python -m experiments.attributes computes
  continue     --bars more bars after each input. Windows are chained: the z of each is the encoding
               of the window before it, moved by --drift towards a sample from the prior. The
               continuation keeps the style but does not complete the phrase
  long         --windows windows as one piece; z walks through the inputs or, without any, through
               --waypoints samples from the prior

Inputs are files (MIDI, MusicXML, ABC), --input=a.mid --input=b.mid --start_bar=1 --start_bar=9,
or rows of a token store, --input=data/mel_2bar:test:17, or rows drawn from a store,
--data_dir=data/mel_2bar. The command prints which part of a file it used. It writes to --output: a
file per row and --format, a picture of all rows, and an .npz with tokens and z. The same seed gives
the same bytes.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from data_pipeline import cli
from data_pipeline.command_line import shell_line
from experiments.cli import compile_cache
from experiments.cli.outputs import check_writable
from experiments.generation.files import write
from experiments.generation.inputs import read_inputs
from experiments.generation.modes import make
from experiments.generation.options import PRIOR_MODES, Options
from musicvae_jax.config import InputError
from musicvae_jax.latent import attributes, fitted_prior
from musicvae_jax.latent.fitted_prior import FittedPrior
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.storage import checkpoints
from musicvae_jax.tasks import Task


def read_vector(options: Options, task: Task, step: int) -> np.ndarray | None:
    """Read the vector of the attribute to change; None in other modes.

    Raises:
      InputError: the task has no such attribute, or the run no vectors of this checkpoint.
    """
    if options.attribute is None:
        return None
    attributes.check_name(options.attribute, task)
    found = attributes.load_vectors(options.run_dir)
    advice = "run python -m experiments.attributes again"
    if (found.task, found.step) != (task.name, step):
        raise InputError(
            f"attribute: the vectors in {options.run_dir} are of {found.task}, step {found.step}, "
            f"the model is of {task.name}, step {step}; {advice}"
        )
    if options.attribute not in found.vectors:
        reason = found.about.get("missing", {}).get(options.attribute, "it was not computed")
        raise InputError(f"attribute: there is no vector of {options.attribute}: {reason}")
    return found.vectors[options.attribute]


def read_prior(options: Options, step: int) -> FittedPrior | None:
    """Read the fitted prior if the mode draws from one and the run has it; None for N(0, I).

    A prior of another checkpoint is not used; without --prior=fitted a line says so.

    Raises:
      InputError: --prior=fitted is given and there is none of this checkpoint.
    """
    walks_inputs = options.mode == "long" and bool(options.inputs or options.data_dir)
    if options.prior == "standard" or options.mode not in PRIOR_MODES or walks_inputs:
        return None
    found = fitted_prior.load(options.run_dir)
    if found is not None and found.step == step:
        return found.prior
    advice = shell_line("experiments.fit_prior", [f"--run_dir={options.run_dir}"])
    if options.prior == "fitted":
        raise InputError(
            f"prior: {options.run_dir} has no fitted prior of step {step}; make it with {advice}"
        )
    if found is not None:
        print(f"the fitted prior is of step {found.step}, so N(0, I) is used; new: {advice}")
    return None


def generate(options: Options) -> list[pathlib.Path]:
    """Generate music and write it; return the files."""
    check_writable(options.output, "output")
    config, params, step = checkpoints.restore_params(options.run_dir, options.checkpoint)
    vae = MusicVAE(config, params)
    vector = read_vector(options, vae.task, step)
    prior = read_prior(options, step)
    rows = None
    if options.inputs or options.data_dir:
        rows, origins, qpm = read_inputs(options, vae.task)
        print(*origins, sep="\n")
        if options.qpm is None and qpm is not None:
            options = dataclasses.replace(options, qpm=qpm)
            print(f"tempo: {round(qpm, 2):g} quarter notes per minute, as in the input")
    source = ", fitted prior" if prior is not None else ""
    print(f"{options.mode}: {vae.task.name}, {options.run_dir}, step {step}{source}", flush=True)
    return write(make(vae, options, rows, vector, prior), vae.task, options)


def main(argv: Sequence[str]) -> None:
    """Generate music and print the files' names."""
    del argv
    compile_cache.switch_on()
    for path in generate(cli.options_from_flags(Options)):
        print(path)


if __name__ == "__main__":
    cli.define_flags(Options)
    cli.run(main)

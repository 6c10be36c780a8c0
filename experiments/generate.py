"""Generate music with a trained model.

Example:
  python -m experiments.generate --run_dir=runs/mel_2bar --mode=sample --num=8 --output=music

Modes:
  sample       --num rows from the prior: the one fitted to training rows where the model has it,
               otherwise N(0, I)
  reconstruct  each input through the model and back; also one file per input, original first
  interpolate  --steps rows from a first input to a second one
  grid         --rows x --columns rows between four inputs in the corners
  similar      --num variations of each input, --amount=0 (reconstruction) to 1 (unrelated)
  attribute    each input plus --amount times the vector of --attribute=NAME, which
               python -m experiments.attributes computes
  continue     --bars more bars after each input. A forecaster continues step by step. A VAE chains
               windows: the z of each is the encoding of the window before it, moved by
               --drift towards a sample from the prior. The continuation keeps the style but does
               not complete the phrase
  long         --windows windows as one piece; z walks through the inputs or, without any, through
               --waypoints samples from the prior

Inputs are files (MIDI, MusicXML, ABC), --input=a.mid --input=b.mid --start_bar=1 --start_bar=9,
folders of them, rows of a token store, --input=data/mel_2bar:test:17, or rows drawn from a store,
--data_dir=data/mel_2bar. The command prints which part of a file it used. A beginning to continue
can be written as text, --notes="60 _ 62 _ 64 65 67 69" or, for drums, --notes="K . H . SH . H .".
Forecasters support the modes continue and sample. Sound models support sample, reconstruct,
interpolate, grid and similar; they read sound files and write WAV files and waveforms. Models of
piano rolls support the same modes; see --threshold, --melody and --note_length.

The command writes to --output: a file per row and --format, one of up to 64 samples together, a
picture of all rows, and an .npz with tokens and z. The same seed gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from data_pipeline import cli
from data_pipeline.command_line import shell_line
from experiments.cli import compile_cache
from experiments.cli.outputs import check_writable
from experiments.cli.run_options import (
    Trained,
    choose_prior,
    name_prior,
    open_forecaster,
    open_model,
)
from experiments.generation import forecasts, piano_rolls
from experiments.generation.files import earlier_files, write
from experiments.generation.inputs import read_inputs
from experiments.generation.modes import make
from experiments.generation.options import Options
from experiments.sound import generated
from musicvae_jax.config import InputError
from musicvae_jax.latent import attributes
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import Forecaster
from musicvae_jax.tasks import SoundTask, Task, get_task


def read_vector(options: Options, vae: MusicVAE) -> np.ndarray | None:
    """Return the vector of the attribute to change; None in other modes.

    Raises:
      InputError: the task has no such attribute, or the model no vector of it.
    """
    name, task = options.attribute, vae.task.name
    if name is None:
        return None
    attributes.check_name(name, vae.task)
    if name in vae.attributes:
        return vae.attributes[name]
    if options.run_dir is None:
        known = ", ".join(vae.attributes) or "none"
        raise InputError(f"attribute: {options.model} has no vector of {name}; it has: {known}")
    found = attributes.load_vectors(options.run_dir)
    if (found.task, found.step) != (task, vae.step):
        again = shell_line("experiments.attributes", [f"--run_dir={options.run_dir}"])
        raise InputError(
            f"attribute: the vectors in {options.run_dir} are of {found.task}, step {found.step}, "
            f"the model is of {task}, step {vae.step}; make new ones with {again}"
        )
    reason = found.about.get("missing", {}).get(name, "it was not computed")
    raise InputError(f"attribute: there is no vector of {name}: {reason}")


def generate(options: Options) -> list[pathlib.Path]:
    """Generate music and write it; return the files."""
    check_writable(options.output, "output")
    replaced = earlier_files(options)
    forecaster = open_forecaster(options)
    written = _decode(options) if forecaster is None else _forecast(options, *forecaster)
    if replaced:
        print(f"replaced {len(replaced)} files from an earlier --mode={options.mode}")
    return written


def _decode(options: Options) -> list[pathlib.Path]:
    """Generate with a VAE."""
    vae = open_model(options, "sound", "note starts")
    if vae.task.is_sound:
        generated.check_options(options)
    piano_rolls.check_options(options, vae.task)
    vae = piano_rolls.with_threshold(vae, options.threshold)
    vector = read_vector(options, vae)
    source = ""
    if options.draws_from_prior:
        options = dataclasses.replace(options, prior=choose_prior(options, vae))
        source = f", prior: {name_prior(str(options.prior))}"
    options, rows = _inputs(options, vae.task)
    _say_what(options, vae.task, f"step {vae.step}{source}")
    made = make(vae, options, rows, vector)
    if options.melody:
        made = piano_rolls.melodies(made, vae.task)
    if isinstance(vae.task, SoundTask):
        return generated.write(made, vae.task, options)
    return write(made, vae.task, options)


def _forecast(options: Options, trained: Trained, model: Forecaster) -> list[pathlib.Path]:
    """Generate with a forecaster."""
    task = get_task(trained.config.task)
    forecasts.check_options(options, trained.config.model.architecture)
    piano_rolls.check_options(options, task)
    options, rows = _inputs(options, task)
    _say_what(options, task, f"step {trained.step}")
    return write(forecasts.make(trained, model, options, rows), task, options)


def _inputs(options: Options, task: Task) -> tuple[Options, np.ndarray | None]:
    """Read the inputs, if the mode has any; return the options with their tempo, and the rows."""
    if not (options.inputs or options.data_dir or options.notes is not None):
        return options, None
    rows, origins, qpm = read_inputs(options, task)
    print(*origins, sep="\n")
    if options.qpm is None and qpm is not None:
        options = dataclasses.replace(options, qpm=qpm)
        which = "first input" if len(set(options.files)) > 1 else "input"
        print(f"tempo: {round(qpm, 2):g} quarter notes per minute, as in the {which}")
    return options, rows


def _say_what(options: Options, task: Task, source: str) -> None:
    """Print what is made and with which model."""
    where = options.run_dir or options.model
    print(f"{options.mode}: {task.name}, {where}, {source}", flush=True)


def main(options: Options) -> None:
    """Generate music and print the files' names."""
    compile_cache.switch_on()
    for path in generate(options):
        print(path)


if __name__ == "__main__":
    cli.run(main, Options)

"""Make music from a trained model: new rows, and rows and pieces made from others.

Example:
  python -m experiments.generate --run_dir=runs/mel_2bar --mode=sample --num=8 --output=music

Modes:
  sample       --num rows from the prior
  reconstruct  the inputs through the model and back, also one file each with the input first
  interpolate  --steps rows on the way from a first input to a second one
  grid         --rows x --columns rows between four inputs in the corners
  similar      --num variations of each input, --amount=0 (itself) to 1 (anything)
  attribute    each input with --amount times the vector of --attribute=NAME added; vectors are
               made by python -m experiments.attributes
  continue     --bars more bars after the end of each input. Windows are chained: the z of each is
               the encoded window before it, moved by --drift towards a draw from the prior. The
               model knows nothing of a window but its z, so that what comes is more of the same
               kind, not the end of a phrase begun
  long         --windows windows as one piece, z walking through the inputs or, without any,
               through --waypoints draws from the prior

Inputs are files (MIDI, MusicXML, ABC), --input=a.mid --input=b.mid --start_bar=1 --start_bar=9,
or rows of a token store, --input=data/mel_2bar:test:17, or rows drawn from a store,
--data_dir=data/mel_2bar. What of a file was used is printed. Written below --output: a file per
row and --format, a picture of all, and an .npz with tokens and z. The same seed gives the same
bytes.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from data_pipeline import cli
from data_pipeline.render import files
from experiments.cli import compile_cache
from experiments.generation.files import write
from experiments.generation.inputs import read_inputs
from experiments.generation.modes import make
from experiments.generation.options import MODES, Options
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.latent import attributes, paths
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.storage import checkpoints
from musicvae_jax.tasks import Task

# What starts from draws of z; the best tokens of such a z have too few notes, and a chain of them
# dies away.
WARM_MODES = ("sample", "continue", "long")


def define_flags() -> None:
    """Define this entry point's flags."""
    flags.DEFINE_string("run_dir", None, "Run folder of the model.")
    flags.DEFINE_enum("mode", None, MODES, "What to make.")
    flags.DEFINE_string("output", None, "Folder to write into.")
    flags.DEFINE_string("checkpoint", "best", "best, latest or a saved step.")
    flags.DEFINE_multi_string(
        "input", [], "MIDI, MusicXML or ABC file, or STORE:SPLIT:ROW, to start from; repeated."
    )
    flags.DEFINE_multi_integer(
        "start_bar", [], "First bar of the inputs, from 1: one, or one each."
    )
    flags.DEFINE_string("meter", "4/4", "4/4, or any: time signatures of the inputs are ignored.")
    flags.DEFINE_string("data_dir", None, "Token store to draw rows from, in place of --input.")
    flags.DEFINE_enum("split", "test", data.SPLITS, "Which rows of the store.")
    flags.DEFINE_integer("num", 4, "Rows to sample or draw from the store; variations of an input.")
    flags.DEFINE_integer("steps", 9, "Rows of an interpolation, both ends included.")
    flags.DEFINE_integer("rows", 5, "Rows of a grid.")
    flags.DEFINE_integer("columns", 5, "Columns of a grid.")
    flags.DEFINE_enum("path", "slerp", paths.KINDS, "Way between two z: along an arc or a line.")
    flags.DEFINE_multi_float(
        "amount", None, "How far; repeated. Default: similar 0.3, attribute -1.5 to 1.5 by 0.5."
    )
    flags.DEFINE_string("attribute", None, "Which attribute to change.")
    flags.DEFINE_integer("bars", 8, "Bars to continue by.")
    flags.DEFINE_float("drift", 0.3, "From window to window of a continuation: 0 none, 1 all.")
    flags.DEFINE_integer("windows", 8, "Windows of a long piece.")
    flags.DEFINE_integer("waypoints", 3, "Draws that a long piece without inputs passes.")
    flags.DEFINE_float(
        "temperature", None, "0 takes the best token. Default: 0; 0.5 for sample, continue, long."
    )
    flags.DEFINE_integer("seed", 0, "Of all that is drawn.")
    flags.DEFINE_multi_enum("format", ["midi", "png"], files.FORMATS, "What to write; repeated.")
    flags.DEFINE_float("qpm", 120.0, "Quarters per minute of what is written.")
    flags.DEFINE_integer("program", None, "General MIDI program of the melody, from 0. Default: 0.")
    flags.DEFINE_string(
        "soundfont", None, "An .sf2 file for --format=wav. Default: built-in sound."
    )


def options_from_flags(values: flags.FlagValues) -> Options:
    """Read and check the flags.

    Raises:
      InputError: a flag is missing or out of range.
    """
    for name in ("run_dir", "mode", "output"):
        if values[name].value is None:
            raise InputError(f"{name}: --{name} is needed")
    names = {field.name for field in dataclasses.fields(Options)} & set(values)
    given: dict[str, Any] = {name: values[name].value for name in names}
    if given["temperature"] is None:
        given["temperature"] = 0.5 if given["mode"] in WARM_MODES else 0.0
    return Options(
        **given,
        inputs=tuple(values.input),
        start_bars=tuple(values.start_bar),
        amounts=tuple(values.amount or ()),
        formats=tuple(values.format),
    )


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


def generate(options: Options) -> list[pathlib.Path]:
    """Make what the options say; return the files written."""
    config, params, step = checkpoints.restore_params(options.run_dir, options.checkpoint)
    vae = MusicVAE(config, params)
    vector = read_vector(options, vae.task, step)
    rows = None
    if options.inputs or options.data_dir:
        rows, origins = read_inputs(options, vae.task)
        print(*origins, sep="\n")
    print(f"{options.mode}: {vae.task.name}, {options.run_dir}, step {step}", flush=True)
    return write(make(vae, options, rows, vector), vae.task, options)


def main(argv: Sequence[str]) -> None:
    """Generate what the flags say and name the files."""
    del argv
    compile_cache.switch_on()
    for path in generate(options_from_flags(flags.FLAGS)):
        print(path)


if __name__ == "__main__":
    define_flags()
    cli.run(main)

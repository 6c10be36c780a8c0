"""Generate music with a trained model.

Example:
  python -m experiments.generate --run_dir=runs/mel_2bar --mode=sample --num=8 --output=music

Modes:
  sample       --num rows from the prior
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
    flags.DEFINE_enum("mode", None, MODES, "What to generate.")
    flags.DEFINE_string("output", None, "Output folder.")
    flags.DEFINE_string("checkpoint", "best", "Checkpoint: best, latest or a saved step.")
    flags.DEFINE_multi_string(
        "input", [], "MIDI, MusicXML or ABC file, or STORE:SPLIT:ROW; may be repeated."
    )
    flags.DEFINE_multi_integer(
        "start_bar", [], "First bar to use, from 1: one for all inputs, or one for each."
    )
    flags.DEFINE_string("meter", "4/4", "Meter to accept: 4/4, or any (ignore time signatures).")
    flags.DEFINE_string("data_dir", None, "Token store to draw rows from, instead of --input.")
    flags.DEFINE_boolean("allow_changed_data", False, "Accept data that changed since it was used.")
    flags.DEFINE_enum("split", "test", data.SPLITS, "Split of the token store.")
    flags.DEFINE_integer("num", 4, "Samples, rows to draw, or variations of each input.")
    flags.DEFINE_integer("steps", 9, "Points of an interpolation, including both ends.")
    flags.DEFINE_integer("rows", 5, "Rows of a grid.")
    flags.DEFINE_integer("columns", 5, "Columns of a grid.")
    flags.DEFINE_enum("path", "slerp", paths.KINDS, "Interpolate along an arc or a line.")
    flags.DEFINE_multi_float(
        "amount", None, "May be repeated. Default: similar 0.3, attribute -1.5 to 1.5 by 0.5."
    )
    flags.DEFINE_string("attribute", None, "Attribute to change.")
    flags.DEFINE_integer("bars", 8, "Bars of a continuation.")
    flags.DEFINE_float(
        "drift", 0.3, "Change per window of a continuation, 0 (none) to 1 (unrelated)."
    )
    flags.DEFINE_integer("windows", 8, "Windows of a long piece.")
    flags.DEFINE_integer("waypoints", 3, "Samples that a long piece without inputs visits.")
    flags.DEFINE_float(
        "temperature", None, "0 is greedy. Default: 0.5 for sample, continue and long, else 0."
    )
    flags.DEFINE_integer("seed", 0, "Random seed for sampling.")
    flags.DEFINE_multi_enum(
        "format", ["midi", "png"], files.FORMATS, "Output format; may be repeated."
    )
    flags.DEFINE_float("qpm", 120.0, "Tempo of the output, quarter notes per minute.")
    flags.DEFINE_integer("program", None, "General MIDI program of the melody, from 0. Default: 0.")
    flags.DEFINE_string(
        "soundfont", None, "SoundFont (.sf2) for --format=wav. Default: a built-in synthesiser."
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

"""Make music from a trained model: new rows, reconstructions, ways from one row to another.

Example:
  python -m experiments.generate --run_dir=runs/mel_2bar --mode=sample --num=8 --output=music

Modes:
  sample       --num rows from the prior
  reconstruct  the inputs through the model and back, also one MIDI file each with the input first
  interpolate  --steps rows on the way from a first input to a second one

Inputs are files, --input=a.mid --input=b.mid --start_bar=1 --start_bar=9, or rows drawn from a
token store, --data_dir=data/mel_2bar. Written below --output: a MIDI file per row, a picture of
all, and an .npz with tokens and z. The same seed gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import flags

from data_pipeline import command, render
from data_pipeline.passages import read_passage
from musicvae_jax import data, sampling
from musicvae_jax.config import InputError
from musicvae_jax.facade import MusicVAE
from musicvae_jax.tasks import Task

MODES = ("sample", "reconstruct", "interpolate")
DECODED_AT_ONCE = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to make, and how it sounds.

    Attributes:
      run_dir: run folder of the model.
      mode: one of MODES.
      output: folder to write into.
      checkpoint: "best", "latest" or a saved step.
      inputs: files to take rows from.
      start_bars: first bar of each input, from 1; none, one for all, or one each.
      meter: "4/4" or "any", how files are read.
      data_dir: token store to draw rows from instead of files.
      split: which rows of the store.
      num: rows to sample, or to draw from the store.
      steps: rows of an interpolation, both ends included.
      temperature: divides the logits; 0 takes the best token.
      seed: of all that is drawn.
      qpm: quarters per minute of the MIDI files.
      program: General MIDI program of the melody; None takes 0.
    """

    run_dir: str
    mode: str
    output: str
    checkpoint: str = "best"
    inputs: tuple[str, ...] = ()
    start_bars: tuple[int, ...] = ()
    meter: str = "4/4"
    data_dir: str | None = None
    split: str = "test"
    num: int = 4
    steps: int = 9
    temperature: float = 0.0
    seed: int = 0
    qpm: float = 120.0
    program: int | None = None

    def __post_init__(self) -> None:
        """Check what needs neither model nor files."""
        _require(self.mode in MODES, "mode", self.mode, f"one of {', '.join(MODES)}")
        _require(1 <= self.num <= 10_000, "num", self.num, "from 1 to 10000")
        _require(2 <= self.steps <= 1000, "steps", self.steps, "from 2 to 1000")
        is_number = 0.0 <= self.temperature < math.inf
        _require(is_number, "temperature", self.temperature, "0 or more")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")
        _require(self.split in data.SPLITS, "split", self.split, f"one of {data.SPLITS}")
        render.check_sound(self.qpm, self.program)
        for bar in self.start_bars:
            _require(bar >= 1, "start_bar", bar, "1 or more: bars count from 1")
        if len(self.start_bars) not in (0, 1, len(self.files)):
            raise InputError(
                f"start_bar: given {len(self.start_bars)} times for {len(self.files)} inputs; "
                "give none, one, or one for each --input"
            )
        if self.mode != "sample" and bool(self.inputs) == bool(self.data_dir):
            raise InputError(f"input: --mode={self.mode} needs --input files or a --data_dir")
        if self.mode == "interpolate" and self.inputs and len(self.files) != 2:
            raise InputError(
                "input: --mode=interpolate needs two, or one with two --start_bar, "
                f"{len(self.files)} given"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The inputs; one with two start bars stands for both ends of an interpolation."""
        if self.mode == "interpolate" and len(self.inputs) == 1:
            return self.inputs * max(1, len(self.start_bars))
        return self.inputs


class Music(NamedTuple):
    """What one call made.

    Attributes:
      tokens: [N, *task.row_shape] of the task's token type.
      z: [N, Z] float32.
      titles: one per row, for the picture.
      inputs: the rows that were reconstructed, or None.
    """

    tokens: np.ndarray
    z: np.ndarray
    titles: list[str]
    inputs: np.ndarray | None = None


def _require(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise InputError(f"{name}: {value!r} is out of range, it must be {allowed}")


def read_inputs(options: Options, task: Task) -> tuple[np.ndarray, list[str]]:
    """Take the rows to start from, and say of each in a line where it comes from.

    Returns:
      Rows [N, *task.row_shape], and N descriptions.

    Raises:
      InputError: a file has no such row, or the store is of another task or has too few rows.
    """
    if options.data_dir is None:
        bars: tuple[int | None, ...] = options.start_bars or (None,)
        bars = bars * len(options.files) if len(bars) == 1 else bars
        passages = [
            read_passage(path, task.name, start_bar=bar, meter=options.meter)
            for path, bar in zip(options.files, bars, strict=True)
        ]
        return np.stack([p.row for p in passages]), [p.describe() for p in passages]
    store = data.open_store(options.data_dir)
    if store.task != task:
        raise InputError(
            f"data_dir: {store.path} holds rows of {store.task.name}, the model is of {task.name}"
        )
    rows, num = store.splits[options.split], 2 if options.mode == "interpolate" else options.num
    if len(rows) < num:
        raise InputError(f"num: {num} rows wanted, split {options.split} has {len(rows)}")
    chosen = np.random.default_rng(options.seed).choice(len(rows), num, replace=False)
    return rows[chosen], [f"{options.split} row {row}" for row in chosen]


def make(vae: MusicVAE, options: Options, rows: np.ndarray | None) -> Music:
    """Run the model.

    Args:
      vae: the model.
      options: what to make.
      rows: inputs [N, *task.row_shape], two for an interpolation; None to sample.
    """
    z_key, token_key = jax.random.split(jax.random.key(options.seed))
    if rows is None:
        z = np.asarray(jax.random.normal(z_key, (options.num, vae.z_size)))
        titles = [f"sample {number}" for number in range(1, len(z) + 1)]
    elif options.mode == "interpolate":
        start, stop = jnp.asarray(vae.encode(rows).mu)
        fractions = np.linspace(0.0, 1.0, options.steps)
        z = np.asarray(sampling.slerp(start, stop, jnp.asarray(fractions, jnp.float32)))
        titles = [f"{100 * fraction:.0f}% of the way" for fraction in fractions]
    else:
        z = np.asarray(vae.encode(rows).mu)
        titles = [f"reconstruction {number}" for number in range(1, len(z) + 1)]
    parts = []
    starts = range(0, len(z), DECODED_AT_ONCE)
    for start in tqdm.tqdm(starts, unit=f" x {DECODED_AT_ONCE} rows", disable=len(starts) == 1):
        key = jax.random.fold_in(token_key, start)
        parts.append(vae.decode(z[start : start + DECODED_AT_ONCE], key, options.temperature))
    tokens = np.concatenate(parts).astype(vae.task.token_dtype)
    return Music(tokens, z, titles, rows if options.mode == "reconstruct" else None)


def write(music: Music, task: Task, options: Options) -> list[pathlib.Path]:
    """Write MIDI files, the arrays and the picture; return their paths in that order.

    Without matplotlib there is no picture, which is said in one line.

    Raises:
      InputError: the output is not a folder, or tempo or program is out of range.
    """
    folder = pathlib.Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output: {folder} is a file, it must be a folder")
    folder.mkdir(parents=True, exist_ok=True)
    written = []

    def write_midi(name: str, rows: np.ndarray) -> None:
        written.append(folder / name)
        path, qpm, program = written[-1], options.qpm, options.program
        render.write_midi(path, rows, task.name, qpm=qpm, program=program)

    width = len(str(len(music.tokens)))
    for number, row in enumerate(music.tokens, start=1):
        write_midi(f"{options.mode}_{number:0{width}}.mid", row)
        if music.inputs is not None:
            pair = np.stack([music.inputs[number - 1], row])
            write_midi(f"{options.mode}_{number:0{width}}_after_input.mid", pair)
    if options.mode == "interpolate":
        write_midi("interpolate_all.mid", music.tokens)
    written.append(_write_arrays(folder / f"{options.mode}.npz", music))
    picture = folder / f"{options.mode}.png"
    try:
        _draw(picture, music, task)
        written.append(picture)
    except InputError as error:  # the rows are fine, they were written: matplotlib is missing
        print(f"no picture: {error}")
    return written


def _write_arrays(path: pathlib.Path, music: Music) -> pathlib.Path:
    """Write tokens, z and the inputs, under their name only when whole."""
    arrays: dict[str, Any] = {"tokens": music.tokens, "z": music.z}
    if music.inputs is not None:
        arrays["inputs"] = music.inputs
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez(temporary, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _draw(path: pathlib.Path, music: Music, task: Task) -> None:
    """Draw all rows; each reconstruction beside its input."""
    if music.inputs is None:
        render.piano_roll_png(path, music.tokens, task.name, music.titles)
        return
    pairs = np.stack([music.inputs, music.tokens], axis=1)
    titles = [
        name for number, title in enumerate(music.titles, 1) for name in (f"input {number}", title)
    ]
    render.piano_roll_png(path, pairs.reshape(-1, *task.row_shape), task.name, titles, columns=2)


def define_flags() -> None:
    """Define this entry point's flags."""
    flags.DEFINE_string("run_dir", None, "Run folder of the model.")
    flags.DEFINE_enum("mode", None, MODES, "What to make.")
    flags.DEFINE_string("output", None, "Folder to write into.")
    flags.DEFINE_string("checkpoint", "best", "best, latest or a saved step.")
    flags.DEFINE_multi_string("input", [], "MIDI, MusicXML or ABC file to start from; repeated.")
    flags.DEFINE_multi_integer(
        "start_bar", [], "First bar of the inputs, from 1: one, or one each."
    )
    flags.DEFINE_string("meter", "4/4", "4/4, or any: time signatures of the inputs are ignored.")
    flags.DEFINE_string("data_dir", None, "Token store to draw rows from, in place of --input.")
    flags.DEFINE_enum("split", "test", data.SPLITS, "Which rows of the store.")
    flags.DEFINE_integer("num", 4, "Rows to sample, or to draw from the store.")
    flags.DEFINE_integer("steps", 9, "Rows of an interpolation, both ends included.")
    flags.DEFINE_float("temperature", None, "0 takes the best token. Default: 0, to sample 0.5.")
    flags.DEFINE_integer("seed", 0, "Of all that is drawn.")
    flags.DEFINE_float("qpm", 120.0, "Quarters per minute of the MIDI files.")
    flags.DEFINE_integer("program", None, "General MIDI program of the melody, from 0. Default: 0.")


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
        given["temperature"] = 0.5 if given["mode"] == "sample" else 0.0
    return Options(**given, inputs=tuple(values.input), start_bars=tuple(values.start_bar))


def generate(options: Options) -> list[pathlib.Path]:
    """Make what the options say; return the files written."""
    vae = MusicVAE.restore(options.run_dir, options.checkpoint)
    rows = None
    if options.mode != "sample":
        rows, origins = read_inputs(options, vae.task)
        print(*origins, sep="\n")
    print(f"{options.mode}: {vae.task.name}, {options.run_dir}", flush=True)
    return write(make(vae, options, rows), vae.task, options)


def main(argv: Sequence[str]) -> None:
    """Generate what the flags say and name the files."""
    del argv
    for path in generate(options_from_flags(flags.FLAGS)):
        print(path)


if __name__ == "__main__":
    define_flags()
    command.run(main)

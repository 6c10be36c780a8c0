"""Options of `experiments.generate`, with the checks that need neither model nor file."""

from __future__ import annotations

import dataclasses
import math
import pathlib

from data_pipeline.cli import check_choices, option
from data_pipeline.inputs.archives import is_music
from data_pipeline.reading.segments import DEFAULT_QPM, METERS
from data_pipeline.render.files import FORMATS, check_formats, check_sound
from experiments.cli.run_options import LARGEST_SEED, ModelOptions, PriorOptions, check_ranges
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.latent import paths

MODES = (
    "sample",
    "reconstruct",
    "interpolate",
    "grid",
    "similar",
    "attribute",
    "continue",
    "long",
)
# Modes that take a fixed number of inputs.
NUM_INPUTS = {"interpolate": (2, "two"), "grid": (4, "four")}
# Modes that start from samples of the prior. The best tokens of such a z have too few notes, and a
# chain of them fades to silence.
SAMPLED_MODES = ("sample", "continue", "long")
DEFAULT_DRIFT = 0.3
# Modes that draw from the prior; a long piece only without inputs.
PRIOR_MODES = ("sample", "similar", "continue", "long")
DEFAULT_AMOUNTS = {"similar": (0.3,), "attribute": (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)}


def _split_at_commas(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for value in values for part in value.split(","))


def _files_of(place: str) -> list[str]:
    """List the music files of a folder; what is no folder stays as it is.

    Raises:
      InputError: the folder has none.
    """
    folder = pathlib.Path(place)
    if not folder.is_dir():
        return [place]
    found = [path for path in folder.rglob("*") if is_music(path.name) and path.is_file()]
    if not found:
        hint = ""
        if (folder / "meta.json").is_file():
            hint = f"; it is a token store: --data_dir={place} or --input={place}:test:0"
        raise InputError(f"input: {place} holds no MIDI, MusicXML or ABC files{hint}")
    return sorted(map(str, found))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(PriorOptions, ModelOptions):
    """What to generate, and how it sounds."""

    mode: str = option(choices=MODES, is_enum=True, help="What to generate.")
    output: str = option(help="Output folder.")
    overwrite: bool = option(
        False, help="Replace the music that an earlier run of the same mode wrote to the output."
    )
    inputs: tuple[str, ...] = option(
        (),
        flag="input",
        help="MIDI, MusicXML or ABC file, a folder of them, or STORE:SPLIT:ROW; may be repeated.",
    )
    notes: str | None = option(
        None,
        help="Beginning to continue, as text, instead of --input: pitches (60 or C4), _ (hold), r "
        "(rest), a word per 16th; drums: letters of KSHOLMTCR hit together, . (nothing).",
    )
    start_bars: tuple[int, ...] = option(
        (), flag="start_bar", help="First bar to use, from 1: one for all inputs, or one for each."
    )
    track: int | None = option(
        None,
        help="Track of the inputs to take the melody from, by the number that is printed; its "
        "program does not matter. Default: the one with the most notes.",
    )
    meter: str = option(
        "4/4", choices=METERS, help="Meter to accept: 4/4, or any (ignore time signatures)."
    )
    data_dir: str | None = option(None, help="Token store to draw rows from, instead of --input.")
    split: str = option("test", choices=data.SPLITS, is_enum=True, help="Split of the token store.")
    num: int = option(4, help="Number of samples, of rows to draw, or of variations of each input.")
    steps: int = option(9, help="Points of an interpolation, including both ends.")
    rows: int = option(5, help="Rows of a grid.")
    columns: int = option(5, help="Columns of a grid.")
    path: str = option(
        "slerp", choices=paths.KINDS, is_enum=True, help="Interpolate along an arc or a line."
    )
    amounts: tuple[float, ...] = option(
        (),
        flag="amount",
        help="Amount of change; may be repeated. Default: 0.3 for similar, -1.5 to 1.5 in steps of "
        "0.5 for attribute.",
    )
    attribute: str | None = option(None, help="Attribute to change.")
    bars: int = option(8, help="Bars of a continuation.")
    drift: float | None = option(
        None,
        help="Change per window of a continuation, 0 (none) to 1 (unrelated). Default: "
        f"{DEFAULT_DRIFT}; not used by forecasters.",
    )
    windows: int = option(8, help="Windows of a long piece.")
    waypoints: int = option(
        3, help="Number of samples that a long piece without inputs passes through."
    )
    temperature: float | None = option(
        None,
        help="Sampling temperature; 0 is greedy. Default: 0.5 for sample, continue and long, "
        "else 0.",
    )
    seed: int = option(0, help="Random seed for sampling.")
    formats: tuple[str, ...] = option(
        ("midi", "png"),
        flag="format",
        choices=FORMATS,
        convert=_split_at_commas,
        help=f"Output formats ({', '.join(FORMATS)}), comma separated or repeated.",
    )
    qpm: float | None = option(
        None,
        help="Tempo of the output, quarter notes per minute. Default: that of the first input "
        "file, 120 without one.",
    )
    program: int | None = option(
        None, help="General MIDI program of the melody, from 0. Default: 0."
    )
    soundfont: str | None = option(
        None, help="SoundFont (.sf2) for --format=wav. Default: a built-in synthesiser."
    )
    threshold: float | None = option(
        None,
        help="Piano rolls: probability from which on a cell is a note start. Default: the run's.",
    )
    melody: bool = option(
        False, help="Piano rolls: keep the highest note of those that start together."
    )
    note_length: str = option(
        "held",
        choices=("held", "tick"),
        is_enum=True,
        help="Piano rolls: notes last to the next start (held), or one tick.",
    )
    loop: bool = option(
        False, help="Write WAV files that are exactly as long as their bars, to be looped."
    )

    def __post_init__(self) -> None:
        """Check what needs neither model nor files."""
        check_choices(self)
        self._check_numbers()
        check_formats(self.formats, self.soundfont)
        check_sound(self.tempo, self.program)
        self._check_inputs()
        if self.mode == "attribute" and not self.attribute:
            raise InputError("attribute: --mode=attribute needs --attribute=NAME")
        if self.mode != "attribute" and self.attribute:
            raise InputError(f"attribute: not used by --mode={self.mode}; use --mode=attribute")
        if self.prior and self.mode not in PRIOR_MODES:
            raise InputError(f"prior: --mode={self.mode} does not draw from the prior")
        if self.amounts and self.mode not in DEFAULT_AMOUNTS:
            raise InputError(f"amount: not used by --mode={self.mode}")

    def _check_numbers(self) -> None:
        """Check that numbers are in range."""
        check_ranges(
            self,
            num=(1, 10_000),
            steps=(2, 1000),
            rows=(2, 32),
            columns=(2, 32),
            bars=(1, 4096),
            windows=(1, 256),
            waypoints=(1, 256),
            seed=(0, LARGEST_SEED),
            temperature=(0, math.inf),
            drift=(0, 1),
            track=(0, math.inf),
        )
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InputError(
                f"threshold: {self.threshold!r} is out of range, it must be above 0 and below 1"
            )
        low, high = (0.0, 1.0) if self.mode == "similar" else (-math.inf, math.inf)
        for amount in self.amounts:
            if not (math.isfinite(amount) and low <= amount <= high):
                allowed = "from 0 to 1" if self.mode == "similar" else "a number"
                raise InputError(f"amount: {amount!r} is out of range, it must be {allowed}")
        for bar in self.start_bars:
            if bar < 1:
                raise InputError(f"start_bar: {bar} is out of range, bars count from 1")

    def _check_inputs(self) -> None:
        """Check that there are as many inputs as the mode needs."""
        if len(self.start_bars) not in (0, 1, len(self.files)):
            raise InputError(
                f"start_bar: given {len(self.start_bars)} times for {len(self.files)} inputs; "
                "give none, one, or one for each --input"
            )
        if self.inputs and self.data_dir:
            raise InputError("input: give --input or --data_dir, not both")
        if self.notes is not None and self.mode != "continue":
            raise InputError(f"notes: not used by --mode={self.mode}; use --mode=continue")
        if self.notes is not None and (self.inputs or self.data_dir):
            raise InputError("notes: give only one of --notes, --input and --data_dir")
        has_none = not self.inputs and not self.data_dir and self.notes is None
        if self.mode not in ("sample", "long") and has_none:
            notes = ", --notes" if self.mode == "continue" else ""
            raise InputError(
                f"input: --mode={self.mode} needs --input files{notes} or a --data_dir"
            )
        if self.mode == "sample" and not has_none:
            raise InputError("input: --mode=sample needs none, it draws from the prior")
        wanted, word = NUM_INPUTS.get(self.mode, (len(self.files), ""))
        if self.inputs and len(self.files) != wanted:
            raise InputError(
                f"input: --mode={self.mode} needs {word}, or one with {word} --start_bar, "
                f"{len(self.files)} given"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The inputs, with the music files of each folder in its place, by name.

        A single one with several start bars is repeated for each of them.
        """
        found = tuple(name for place in self.inputs for name in _files_of(place))
        if self.mode in NUM_INPUTS and len(found) == 1:
            return found * max(1, len(self.start_bars))
        return found

    @property
    def num_drawn(self) -> int:
        """Number of rows to draw from the store."""
        if self.mode in NUM_INPUTS:
            return NUM_INPUTS[self.mode][0]
        if self.mode == "long":
            return self.waypoints
        return 1 if self.mode == "similar" else self.num

    @property
    def draws_from_prior(self) -> bool:
        """Whether any z is drawn from the prior."""
        walks_inputs = self.mode == "long" and bool(self.inputs or self.data_dir)
        return self.mode in PRIOR_MODES and not walks_inputs

    @property
    def tempo(self) -> float:
        """Tempo of the output, quarter notes per minute."""
        return DEFAULT_QPM if self.qpm is None else self.qpm

    @property
    def sampling_temperature(self) -> float:
        """The given temperature, or the mode's own."""
        if self.temperature is not None:
            return self.temperature
        return 0.5 if self.mode in SAMPLED_MODES else 0.0

    @property
    def all_amounts(self) -> tuple[float, ...]:
        """The amounts given, or the mode's own."""
        return self.amounts or DEFAULT_AMOUNTS.get(self.mode, ())

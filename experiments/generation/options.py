"""Options of `experiments.generate`, and the checks that need neither model nor file."""

from __future__ import annotations

import dataclasses
import math

from data_pipeline.render import files as render
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
DEFAULT_AMOUNTS = {"similar": (0.3,), "attribute": (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to make, and how it sounds.

    Attributes:
      run_dir: run folder of the model.
      mode: one of MODES.
      output: folder to write into.
      checkpoint: "best", "latest" or a saved step.
      inputs: files, or rows of stores as STORE:SPLIT:ROW, to start from.
      start_bars: first bar of each input, from 1; none, one for all, or one each.
      meter: "4/4" or "any", how files are read.
      data_dir: token store to draw rows from instead of inputs.
      split: which rows of the store.
      num: rows to sample, variations of each input, or rows to draw from the store.
      steps: rows of an interpolation, both ends included.
      rows: of a grid.
      columns: of a grid.
      path: "slerp" or "linear", the way between two z.
      amounts: how far variations go (0 to 1), or multiples of the attribute's vector.
      attribute: name of the attribute to change.
      bars: how many to continue a piece by.
      drift: how far each window of a continuation is from the one before, 0 to 1.
      windows: of a long piece.
      waypoints: draws from the prior that a long piece without inputs passes.
      temperature: divides the logits; 0 takes the best token.
      seed: of all that is drawn.
      formats: of `render.FORMATS`, what to write.
      qpm: quarters per minute of what is written.
      program: General MIDI program of the melody; None takes 0.
      soundfont: .sf2 file to play "wav" with; None takes the built-in synthesiser.
      allow_changed_data: accept a token store that was edited.
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
    rows: int = 5
    columns: int = 5
    path: str = "slerp"
    amounts: tuple[float, ...] = ()
    attribute: str | None = None
    bars: int = 8
    drift: float = 0.3
    windows: int = 8
    waypoints: int = 3
    temperature: float = 0.0
    seed: int = 0
    formats: tuple[str, ...] = ("midi", "png")
    qpm: float = 120.0
    program: int | None = None
    soundfont: str | None = None
    allow_changed_data: bool = False

    def __post_init__(self) -> None:
        """Check what needs neither model nor files."""
        _require(self.mode in MODES, "mode", self.mode, f"one of {', '.join(MODES)}")
        self._check_numbers()
        _require(self.split in data.SPLITS, "split", self.split, f"one of {data.SPLITS}")
        _require(self.path in paths.KINDS, "path", self.path, f"one of {', '.join(paths.KINDS)}")
        for name in self.formats:
            known = ", ".join(render.FORMATS)
            _require(name in render.FORMATS, "format", name, f"one of {known}")
        render.check_formats(self.formats, self.soundfont)
        render.check_sound(self.qpm, self.program)
        self._check_inputs()
        if self.mode == "attribute" and not self.attribute:
            raise InputError("attribute: --mode=attribute needs the name of one, --attribute=NAME")
        if self.mode != "attribute" and self.attribute:
            raise InputError(f"attribute: --mode={self.mode} changes none; use --mode=attribute")
        if self.amounts and self.mode not in DEFAULT_AMOUNTS:
            raise InputError(f"amount: --mode={self.mode} takes none")

    def _check_numbers(self) -> None:
        """Check that numbers are in range."""
        for name, low, high in (
            ("num", 1, 10_000),
            ("steps", 2, 1000),
            ("rows", 2, 32),
            ("columns", 2, 32),
            ("bars", 1, 4096),
            ("windows", 1, 256),
            ("waypoints", 1, 256),
        ):
            value = getattr(self, name)
            _require(low <= value <= high, name, value, f"from {low} to {high}")
        _require(0.0 <= self.drift <= 1.0, "drift", self.drift, "from 0 to 1")
        is_number = 0.0 <= self.temperature < math.inf
        _require(is_number, "temperature", self.temperature, "0 or more")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")
        for amount in self.amounts:
            if self.mode == "similar":
                _require(0.0 <= amount <= 1.0, "amount", amount, "from 0 to 1")
            _require(math.isfinite(amount), "amount", amount, "a number")
        for bar in self.start_bars:
            _require(bar >= 1, "start_bar", bar, "1 or more: bars count from 1")

    def _check_inputs(self) -> None:
        """Check that the mode's number of inputs is there."""
        if len(self.start_bars) not in (0, 1, len(self.files)):
            raise InputError(
                f"start_bar: given {len(self.start_bars)} times for {len(self.files)} inputs; "
                "give none, one, or one for each --input"
            )
        if self.inputs and self.data_dir:
            raise InputError("input: give --input or --data_dir, not both")
        has_none = not self.inputs and not self.data_dir
        if self.mode not in ("sample", "long") and has_none:
            raise InputError(f"input: --mode={self.mode} needs --input files or a --data_dir")
        if self.mode == "sample" and not has_none:
            raise InputError("input: --mode=sample draws from the prior and takes none")
        wanted, word = NUM_INPUTS.get(self.mode, (len(self.files), ""))
        if self.inputs and len(self.files) != wanted:
            raise InputError(
                f"input: --mode={self.mode} needs {word}, or one with {word} --start_bar, "
                f"{len(self.files)} given"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The inputs; one with several start bars stands for all ends or corners."""
        if self.mode in NUM_INPUTS and len(self.inputs) == 1:
            return self.inputs * max(1, len(self.start_bars))
        return self.inputs

    @property
    def num_drawn(self) -> int:
        """How many rows to draw from the store."""
        if self.mode in NUM_INPUTS:
            return NUM_INPUTS[self.mode][0]
        if self.mode == "long":
            return self.waypoints
        return 1 if self.mode == "similar" else self.num

    @property
    def all_amounts(self) -> tuple[float, ...]:
        """The amounts given, or the mode's own."""
        return self.amounts or DEFAULT_AMOUNTS.get(self.mode, ())


def _require(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise InputError(f"{name}: {value!r} is out of range, it must be {allowed}")

"""The tasks: what a row of integers means, and the defaults each task trains with.

Pure Python: `data_pipeline` reads this module on machines without an accelerator stack.

Reference: magenta/models/music_vae/configs.py and data.py (converters).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable

from musicvae_jax.config import Config, InputError, ModelConfig, RunConfig, TrainConfig

STEPS_PER_QUARTER = 4
STEPS_PER_BAR = 16

NO_EVENT = 0
ROLL_TICKS = 96  # of a bar of a piano roll, whatever its meter
ROLL_PITCHES = 96
LOWEST_ROLL_PITCH = 12
ROLL_SKIP = 2**16 - 1  # entry of a row that advances by ROLL_SKIP - 1 cells without a note start
NOTE_OFF = 1
FIRST_NOTE_ON = 2
MIN_PITCH = 21  # MIDI pitch of token FIRST_NOTE_ON
MAX_PITCH = 108
MELODY_CLASSES = FIRST_NOTE_ON + MAX_PITCH - MIN_PITCH + 1  # 90

DRUM_CLASS_NAMES = (
    "kick",
    "snare",
    "closed hat",
    "open hat",
    "low tom",
    "mid tom",
    "high tom",
    "crash",
    "ride",
)
NUM_DRUM_CLASSES = len(DRUM_CLASS_NAMES)  # 9 bits
DRUM_CLASSES = 2**NUM_DRUM_CLASSES  # 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What the tokens of a kind of track are.

    Attributes:
      num_classes: V, number of token values.
      first_onset: lowest token that starts a note.
      is_pitched: from `first_onset` on, tokens are ascending pitches; otherwise the bits of a
        token are hits.
    """

    num_classes: int
    first_onset: int
    is_pitched: bool


KINDS = {
    "melody": Kind(num_classes=MELODY_CLASSES, first_onset=FIRST_NOTE_ON, is_pitched=True),
    "drums": Kind(num_classes=DRUM_CLASSES, first_onset=NO_EVENT + 1, is_pitched=False),
    # Not pitched: a value is a distance between cells, see `RollTask`.
    "piano roll": Kind(num_classes=ROLL_SKIP + 1, first_onset=NO_EVENT + 1, is_pitched=False),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
    """One column of a row.

    Attributes:
      name: "melody", "bass" or "drums".
      kind: key of `KINDS`, and of the table of codecs in `data_pipeline.codecs`.
      encoder_roll: the encoder reads 9 bits and a "nothing" bit instead of a one-hot.
      programs: General MIDI programs that belong to the track, ascending; None allows all.
    """

    name: str
    kind: str
    encoder_roll: bool = False
    programs: Collection[int] | None = None

    @property
    def num_classes(self) -> int:
        """V, number of values that a token of this column takes."""
        return KINDS[self.kind].num_classes

    @property
    def first_onset(self) -> int:
        """Lowest token that starts a note."""
        return KINDS[self.kind].first_onset

    @property
    def is_pitched(self) -> bool:
        """Whether tokens are pitches, which can be transposed, and not drum hits."""
        return KINDS[self.kind].is_pitched

    @property
    def encoder_depth(self) -> int:
        """Width of this column at the encoder's input."""
        return NUM_DRUM_CLASSES + 1 if self.encoder_roll else self.num_classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A representation and the configuration it trains with by default.

    Attributes:
      name: key in `NOTE_TASKS`, but for sound.
      tracks: the K columns of a row; one column is stored as [T], several as [T, K].
      num_bars: bars per row; a bar has `steps_per_bar` steps.
      config: default model and training configuration.
      in_all: `prepare --task=all` makes its rows. Those of every file, whichever tasks are wanted,
        decide which files are the same song.
    """

    name: str
    tracks: tuple[Track, ...]
    num_bars: int
    config: Config
    in_all: bool = True
    # What rows hold; `models/registry.py` lists what an architecture reads.
    content = "tokens"
    # Entry t of a row is its step t, so that rows can be cut at bar lines, joined and continued.
    has_steps = True

    @property
    def is_sound(self) -> bool:
        """Whether rows are samples of sound, not notes."""
        return self.content == "sound"

    @property
    def steps_per_bar(self) -> int:
        """Divisions of a bar in which notes start."""
        return STEPS_PER_BAR

    def length(self, num_entries: int) -> int:
        """Return how long a row of some entries lasts, in divisions of a bar."""
        return num_entries

    @property
    def num_logits(self) -> int:
        """Logits of a row: the token values of all steps."""
        return self.num_steps * sum(track.num_classes for track in self.tracks)

    @property
    def num_steps(self) -> int:
        """T, time steps per row."""
        return self.num_bars * STEPS_PER_BAR

    @property
    def encoder_depth(self) -> int:
        """Width of a step at the encoder's input."""
        return sum(track.encoder_depth for track in self.tracks)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row: [T], or [T, K] for several tracks."""
        return (self.num_steps,) if len(self.tracks) == 1 else (self.num_steps, len(self.tracks))

    @property
    def token_dtype(self) -> str:
        """Name of the smallest unsigned NumPy type that holds every token."""
        return "uint8" if max(t.num_classes for t in self.tracks) <= 256 else "uint16"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundTask(Task):
    """Rows of sound: one channel of int16 samples [T], 32768 is full scale. They have no tracks.

    Attributes:
      sample_rate: samples per second.
      seconds: length of a row.
    """

    sample_rate: int
    seconds: int
    content = "sound"

    @property
    def num_steps(self) -> int:
        """T, samples per row."""
        return self.sample_rate * self.seconds

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row, [T]."""
        return (self.num_steps,)

    @property
    def token_dtype(self) -> str:
        """Name of the NumPy type of a sample."""
        return "int16"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RollTask(Task):
    """Piano rolls: bars of 96 ticks x 96 pitches, of which a row lists the note starts.

    Several notes start at once and most ticks have none, so a row of one token a step does not fit:
    dense, it has 147,456 cells. A row is therefore a list: cells are numbered tick by tick, lowest
    pitch first, and each entry is the distance from the note start before it (the first: from the
    cell before the row). 0 ends the list; `ROLL_SKIP` advances by `ROLL_SKIP - 1` cells without a
    note start. Models make rows dense on the device.

    Attributes:
      num_entries: length of a row; a row holds nearly as many note starts.
    """

    num_entries: int = 960
    content = "note starts"
    has_steps = False

    @property
    def steps_per_bar(self) -> int:
        """Ticks of a bar."""
        return ROLL_TICKS

    def length(self, num_entries: int) -> int:
        """Return the ticks of a row, however many entries it has."""
        return self.num_ticks

    @property
    def num_logits(self) -> int:
        """Logits of a row: its cells."""
        return self.num_cells

    @property
    def num_ticks(self) -> int:
        """Ticks of a row."""
        return self.num_bars * ROLL_TICKS

    @property
    def num_cells(self) -> int:
        """Cells of a row."""
        return self.num_ticks * ROLL_PITCHES

    @property
    def most_starts(self) -> int:
        """Most note starts that every row can hold, wherever they are."""
        return self.num_entries - self.num_cells // (ROLL_SKIP - 1)

    @property
    def num_steps(self) -> int:
        """T, entries of a row."""
        return self.num_entries


def _melody(name: str = "melody", programs: range | None = None) -> Track:
    return Track(name=name, kind="melody", programs=programs)


def _drums(encoder_roll: bool) -> Track:
    return Track(name="drums", kind="drums", encoder_roll=encoder_roll)


# How a run starts and steps. The reference's, and one that needs far fewer examples (found and
# measured at 96 to 128 units, `experiments/benchmarks/time_to_accuracy.py`). Tasks take the second
# by default, with a rate that falls as their layers get wider. The third needs fewer again, at 128
# and 256 units. Tasks of 16 bars take its optimiser, without which hierarchical models of trios are
# behind the reference's start (`experiments/benchmarks/sixteen_bars.txt`).
RECIPES: dict[str, dict[str, str | float | int]] = {
    "reference": {"init": "reference", "learning_rate": 1e-3, "warmup_steps": 0, "adam_b2": 0.999},
    "default": {"init": "default", "learning_rate": 5e-3, "warmup_steps": 20, "adam_b2": 0.99},
}
RECIPES["reference"]["optimiser"] = RECIPES["default"]["optimiser"] = "adam"
RECIPES["muon"] = {**RECIPES["default"], "optimiser": "muon", "learning_rate": 1e-2}

_SMALL = ModelConfig(
    architecture="flat", z_size=256, encoder_sizes=(512,), decoder_sizes=(256, 256)
)
_HIERDEC = ModelConfig(
    architecture="hierdec", z_size=512, encoder_sizes=(2048, 2048), decoder_sizes=(1024, 1024)
)
_TRAIN_2BAR = TrainConfig(sampling_schedule="inverse_sigmoid", sampling_rate=1000.0, beta=0.2)
_TRAIN_16BAR = TrainConfig(optimiser="auto", free_bits=256.0, beta=0.2)


def _task(
    name: str, tracks: tuple[Track, ...], num_bars: int, model: ModelConfig, train: TrainConfig
) -> Task:
    config = Config(task=name, model=model, train=train, run=RunConfig())
    widest = max(model.decoder_sizes)
    rate = max(5e-3 * 128 / widest, 1e-3)
    recipe = {**RECIPES["default"], "optimiser": train.optimiser, "learning_rate": rate}
    config = config.replace(**recipe)
    return Task(name=name, tracks=tracks, num_bars=num_bars, config=config)


def _piano_roll() -> RollTask:
    """Return the task of 16-bar piano rolls, with the sizes of a Matura thesis of 2020."""
    name = "pianoroll_16bar"
    model = ModelConfig(
        architecture="stacked_vae",
        z_size=120,
        bar_sizes=(2000, 200),
        encoder_sizes=(1600,),
        decoder_sizes=(1600,),
    )
    # The likelihood of many cells has large gradients at first; Adam's steps do not depend on it.
    train = TrainConfig(
        batch_size=64,
        grad_norm_clip_to_zero=1e6,
        beta=1.0,
        beta_schedule="constant",
    )
    config = Config(task=name, model=model, train=train, run=RunConfig())
    config = config.replace(**{**RECIPES["default"], "learning_rate": 1e-3})
    tracks = (Track(name="notes", kind="piano roll"),)
    return RollTask(name=name, tracks=tracks, num_bars=16, config=config, in_all=False)


_replace = dataclasses.replace
# All tasks whose rows are made from notes.
NOTE_TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task(
            "mel_2bar",
            (_melody(programs=range(32)),),
            2,
            _SMALL,
            _replace(_TRAIN_2BAR, beta_rate=0.99999, transpose=5),
        ),
        _task("mel_16bar", (_melody(),), 16, _HIERDEC, _replace(_TRAIN_16BAR, transpose=5)),
        _task("drums_2bar", (_drums(True),), 2, _SMALL, _replace(_TRAIN_2BAR, free_bits=48.0)),
        _task("drums_16bar", (_drums(True),), 16, _HIERDEC, _TRAIN_16BAR),
        _task(
            "trio_16bar",
            (_melody(programs=range(32)), _melody("bass", range(32, 40)), _drums(False)),
            16,
            _HIERDEC,
            _replace(_TRAIN_16BAR, batch_size=256, transpose=5),
        ),
        _piano_roll(),
    )
}
# Those of `--task=all`: rows of tokens, 16 steps a bar.
TASKS: dict[str, Task] = {name: task for name, task in NOTE_TASKS.items() if task.in_all}


def all_and(names: Iterable[str]) -> tuple[str, ...]:
    """List the tasks of `TASKS`, then those of `names` that are not among them."""
    return (*TASKS, *(name for name in dict.fromkeys(names) if name not in TASKS))


_SOUND_NAME = re.compile(r"sound_([1-9]\d{0,5})hz_([1-9]\d{0,3})s")


def sound_task(sample_rate: int, seconds: int) -> SoundTask:
    """Return the task of rows of sound of a sample rate and a length.

    The settings are those of a course project of 2024, which had 3000 samples per second and 30
    seconds; the sizes of the layers are this project's.
    """
    name = f"sound_{sample_rate}hz_{seconds}s"
    sizes = (8, 16, 16, 32, 32, 64, 64, 64)
    model = ModelConfig(
        architecture="waveform_vae",
        z_size=2,
        encoder_sizes=sizes,
        decoder_sizes=sizes[::-1],
        conv_width=9,
    )
    # The likelihood of many samples has large gradients; their scale does not change Adam's steps.
    train = TrainConfig(
        batch_size=10,
        learning_rate=3e-4,
        grad_clip=1e9,
        grad_norm_clip_to_zero=1e12,
        beta=1.0,
        beta_schedule="constant",
    )
    config = Config(task=name, model=model, train=train, run=RunConfig())
    return SoundTask(
        name=name,
        tracks=(),
        num_bars=0,
        config=config,
        in_all=False,
        sample_rate=sample_rate,
        seconds=seconds,
    )


def get_task(name: str) -> Task:
    """Look up a task: of `NOTE_TASKS`, or of sound, such as sound_3000hz_30s.

    Raises:
      InputError: no task has this name.
    """
    sound = _SOUND_NAME.fullmatch(name)
    if sound:
        return sound_task(int(sound[1]), int(sound[2]))
    if name not in NOTE_TASKS:
        raise InputError(f"task: {name!r} is not one of {', '.join(NOTE_TASKS)}")
    return NOTE_TASKS[name]

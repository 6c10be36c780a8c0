"""Frozen, validated configurations; every field is also a command-line flag.

Field names are unique across the dataclasses, so each flag sets one field. Checkpoints store their
configuration, so a trained model can be rebuilt without flags. Longer than 400 lines because the
meaning of every field, which is also its flag's help text, is written here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import typing
from typing import Any

INITS = ("reference", "default")
OPTIMISERS = ("auto", "adam", "muon")
# Architectures that "auto" trains with Muon.
MUON_ARCHITECTURES = ("flat", "hierdec", "hier")
CLIP_MODES = ("global_norm", "value")
SAMPLING_SCHEDULES = ("constant", "inverse_sigmoid", "exponential")
LEARNING_RATE_SCHEDULES = ("exponential", "constant", "cosine", "plateau")
BETA_SCHEDULES = ("annealed", "constant", "linear", "cyclical")
# Validation scores. For "accuracy" larger is better, for the others smaller.
VALIDATION_METRICS = ("loss", "loss_reference", "reconstruction_nats", "kl_bits", "accuracy")
DATA_PLACEMENTS = ("auto", "device", "host")
FREEZES = ("none", "encoder", "decoder")
DTYPES = ("auto", "float32", "bfloat16")
LSTM_BACKENDS = ("auto", "xla", "native", "cudnn")
PARAM_SHARDINGS = ("replicated", "fsdp")


class InputError(ValueError):
    """Invalid user input; the message says what is wrong, where, and what would be valid.

    Commands print it as one line and exit with code 2.
    """


def _require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Raise InputError naming the field, its value and the allowed values."""
    if not ok:
        raise InputError(f"{name}: {value!r} is out of range, it must be {allowed}")


def _check_types(part: object) -> None:
    """Check that every field has its declared type, and convert NumPy numbers to Python's.

    Raises:
      InputError: a field has another type.
    """
    for name, kind in typing.get_type_hints(type(part)).items():
        value = getattr(part, name)
        is_bool = isinstance(value, bool)
        if kind is bool:
            ok, right = is_bool, "True or False"
        elif kind is int:
            ok, right = isinstance(value, numbers.Integral) and not is_bool, "a whole number"
        elif kind is float:
            ok, right = isinstance(value, numbers.Real) and not is_bool, "a number"
        elif kind is str:
            ok, right = isinstance(value, str), "text"
        else:
            sizes = value if isinstance(value, tuple) else (None,)
            ok = all(isinstance(size, numbers.Integral) for size in sizes)
            right = "a tuple of whole numbers"
        if not ok:
            raise InputError(f"{name}: {value!r} has the wrong type, it must be {right}")
        if kind is int:
            object.__setattr__(part, name, int(value))  # JSON cannot encode NumPy integers
        elif kind is float and not isinstance(value, int):
            object.__setattr__(part, name, float(value))


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, name, value, "one of " + ", ".join(choices))


def _require_number(name: str, value: float, low: float, high: float, allowed: str) -> None:
    _require(math.isfinite(value) and low <= value <= high, name, value, allowed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture and sizes of the model; they determine the shapes of the parameters.

    Attributes:
      architecture: a name in `models/registry.py`, which checks it: "flat" (one LSTM decoder),
        "hierdec" (a conductor over bars, a decoder per bar), "hier" (the same decoder, and an
        encoder of the same form), "dense_vae" (dense layers over a whole row), "stacked_vae"
        (dense layers over each bar, then over the joined bars), "waveform_vae" (convolutions over
        sound), or a forecaster without a latent space: "lstm_forecaster", "conv_forecaster",
        "gru_attention" or "lstm_attention".
      z_size: latent dimensions, Z.
      encoder_sizes: units of each bidirectional LSTM layer, per direction, or of each dense layer;
        channels of each convolutional block.
      decoder_sizes: units of each (bottom) decoder layer, or of each recurrent layer of a
        forecaster.
      conductor_sizes: units of each conductor layer; empty: `decoder_sizes`, as in the reference.
      bar_sizes: units of each dense layer over a bar of "stacked_vae"; its decoder has the reverse.
      conv_filters: filters of the convolution of "conv_forecaster".
      conv_width: steps that each of them spans; samples that a convolution of "waveform_vae" spans.
      conv_pool: neighbouring outputs of the convolution of which the largest counts.
      attention_heads: heads of "lstm_attention"; they divide the last of `decoder_sizes`.
      attention_size: units by which "gru_attention" compares two steps.
      init: "reference" initialises everything that touches z with standard deviation 0.001;
        "default" scales each part by the size of its inputs, which avoids posterior collapse early
        in training (`models/initialisation.py`).
    """

    architecture: str = "flat"
    z_size: int = 256
    encoder_sizes: tuple[int, ...] = (512,)
    decoder_sizes: tuple[int, ...] = (256, 256)
    conductor_sizes: tuple[int, ...] = ()
    bar_sizes: tuple[int, ...] = (2000, 200)
    conv_filters: int = 32
    conv_width: int = 32
    conv_pool: int = 2
    attention_heads: int = 4
    attention_size: int = 64
    init: str = "reference"

    def __post_init__(self) -> None:
        """Check every field."""
        _check_types(self)
        _require_choice("init", self.init, INITS)
        counts = ("conv_filters", "conv_width", "conv_pool", "attention_heads", "attention_size")
        for name in ("z_size", *counts):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("encoder_sizes", "decoder_sizes", "bar_sizes", "conductor_sizes"):
            sizes = getattr(self, name)
            needs_one = name != "conductor_sizes"
            ok = all(size >= 1 for size in sizes) and (len(sizes) > 0 or not needs_one)
            _require(ok, name, sizes, "positive layer sizes, for example 256,256")

    @property
    def resolved_conductor_sizes(self) -> tuple[int, ...]:
        """Units of each conductor layer."""
        return self.conductor_sizes or self.decoder_sizes


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings that determine the result of training; they are fixed for a run folder.

    Attributes:
      batch_size: rows per optimiser step over all devices, B.
      accumulation: gradient accumulation; number of parts a batch is split into to save memory.
      learning_rate: initial learning rate (peak rate if there is a warm-up).
      min_learning_rate: lower bound that the schedule approaches.
      optimiser: "adam" (as in TensorFlow 1), "muon" (for the kernels of LSTMs; Adam for the rest)
        or "auto" (Muon for the architectures flat, hierdec and hier, Adam for all others). Muon's
        momentum is `adam_b1`, its learning rate that of Adam.
      learning_rate_schedule: "exponential" (`decay_rate`), "constant", "cosine" (from the end of
        the warm-up to `cosine_steps`, then `min_learning_rate`) or "plateau" (reduced when
        validation scores stop improving).
      decay_rate: factor per step of `learning_rate - min_learning_rate` in "exponential".
      warmup_steps: steps of linear warm-up from 0, with any schedule; 0 for none.
      cosine_steps: step at which "cosine" reaches the minimum, usually `train_steps`.
      plateau_factor: factor by which "plateau" reduces the learning rate.
      plateau_patience: validations without improvement before "plateau" reduces it.
      plateau_min_delta: smallest change that counts as an improvement.
      plateau_metric: validation score that "plateau" watches: loss, loss_reference,
        reconstruction_nats, kl_bits or accuracy.
      weight_decay: decoupled weight decay of the kernels, not of the biases, as in AdamW.
      adam_b1: decay of the first moment.
      adam_b2: decay of the second moment.
      adam_eps: epsilon, in TF1's form (without bias correction).
      grad_clip: largest global norm, or largest absolute value, of the gradient.
      clip_mode: "global_norm" or "value".
      grad_norm_clip_to_zero: gradients of this global norm or more are replaced by zero.
      beta: final weight of the KL term.
      beta_schedule: "annealed" (`beta_rate`), "constant" (beta from step 0 on), "linear" (rises
        from 0 over `beta_steps`) or "cyclical" (rises from 0 in every cycle).
      beta_rate: the weight of "annealed" is `beta * (1 - beta_rate**n)` at step n; 0 gives beta
        from step 1 on.
      beta_steps: steps of the rise in "linear", or of a cycle in "cyclical".
      beta_rise: share of a cycle in which beta rises linearly before it stays constant.
      free_bits: bits of KL per example that are not penalised, tau.
      sampling_schedule: how the probability of scheduled sampling grows: "constant" (0 is
        teacher forcing), "inverse_sigmoid" or "exponential".
      sampling_rate: parameter of that schedule.
      input_dropout: probability of hiding the previous token from the teacher-forced decoder, so
        that it must rely on z (word dropout, Bowman et al. 2016).
      dropout: probability of dropping a unit of the hidden layers of "dense_vae" or
        "stacked_vae" in training.
      transpose: largest transposition of melodies in semitones, drawn anew at every step.
      freeze: part of the model whose parameters are not trained: none, encoder or decoder.
      dtype: type of the matrix products; "auto" is bfloat16 on an accelerator and float32 on a
        CPU, where bfloat16 may be faster or slower (docs/speed.md).
      seed: random seed of parameters, batches and noise.
    """

    batch_size: int = 512
    accumulation: int = 1
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-5
    optimiser: str = "adam"
    learning_rate_schedule: str = "exponential"
    decay_rate: float = 0.9999
    warmup_steps: int = 0
    cosine_steps: int = 0
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    plateau_min_delta: float = 0.0
    plateau_metric: str = "loss"
    weight_decay: float = 0.0
    adam_b1: float = 0.9
    adam_b2: float = 0.999
    adam_eps: float = 1e-8
    grad_clip: float = 1.0
    clip_mode: str = "global_norm"
    grad_norm_clip_to_zero: float = 10000.0
    beta: float = 0.2
    beta_schedule: str = "annealed"
    beta_rate: float = 0.0
    beta_steps: int = 10_000
    beta_rise: float = 0.5
    free_bits: float = 0.0
    sampling_schedule: str = "constant"
    sampling_rate: float = 0.0
    input_dropout: float = 0.0
    dropout: float = 0.0
    transpose: int = 0
    freeze: str = "none"
    dtype: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field."""
        _check_types(self)
        big = 1e30
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        ok = self.accumulation >= 1 and self.batch_size % max(self.accumulation, 1) == 0
        _require(
            ok, "accumulation", self.accumulation, f"a divisor of batch_size {self.batch_size}"
        )
        for name in ("adam_eps", "free_bits", "beta", "weight_decay"):
            _require_number(name, getattr(self, name), 0.0, big, "0 or more")
        for name in ("grad_clip", "grad_norm_clip_to_zero"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "above 0")
        for name in ("adam_b1", "adam_b2"):
            value = getattr(self, name)
            _require(0.0 <= value < 1.0, name, value, "at least 0 and below 1")
        _require_number("input_dropout", self.input_dropout, 0.0, 1.0, "from 0 to 1")
        _require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "at least 0 and below 1")
        _require_choice("optimiser", self.optimiser, OPTIMISERS)
        _require_choice("clip_mode", self.clip_mode, CLIP_MODES)
        _require_choice("sampling_schedule", self.sampling_schedule, SAMPLING_SCHEDULES)
        _require_choice("freeze", self.freeze, FREEZES)
        _require_choice("dtype", self.dtype, DTYPES)
        if self.sampling_schedule == "inverse_sigmoid":
            _require_number("sampling_rate", self.sampling_rate, 1.0, big, "1 or more (steps)")
        else:
            _require_number("sampling_rate", self.sampling_rate, 0.0, 1.0, "from 0 to 1")
        _require(0 <= self.transpose <= 48, "transpose", self.transpose, "from 0 to 48 semitones")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2**31 - 1")
        self._check_learning_rate()
        self._check_beta()

    def _check_learning_rate(self) -> None:
        """Check the fields of the learning rate."""
        for name in ("learning_rate", "min_learning_rate", "plateau_min_delta"):
            _require_number(name, getattr(self, name), 0.0, 1e30, "0 or more")
        for name in ("decay_rate", "plateau_factor"):
            _require_number(name, getattr(self, name), 0.0, 1.0, "from 0 to 1")
        _require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        _require(self.plateau_patience >= 1, "plateau_patience", self.plateau_patience, "1 or more")
        _require_choice("plateau_metric", self.plateau_metric, VALIDATION_METRICS)
        _require_choice(
            "learning_rate_schedule", self.learning_rate_schedule, LEARNING_RATE_SCHEDULES
        )
        ok = self.learning_rate_schedule != "cosine" or self.cosine_steps > self.warmup_steps
        allowed = f"above warmup_steps ({self.warmup_steps}), in general the value of train_steps"
        _require(ok and self.cosine_steps >= 0, "cosine_steps", self.cosine_steps, allowed)

    def _check_beta(self) -> None:
        """Check the schedule of beta."""
        _require_choice("beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        _require_number("beta_rate", self.beta_rate, 0.0, 1.0, "from 0 to 1")
        _require(self.beta_steps >= 1, "beta_steps", self.beta_steps, "1 or more")
        ok = 0.0 < self.beta_rise <= 1.0
        _require(ok, "beta_rise", self.beta_rise, "above 0 and at most 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Length, intervals and hardware; may change when a run is resumed.

    One exception: the learning rate of the schedule "plateau" depends on the validations, so
    `eval_every` and `eval_examples` of such a run are fixed.

    Attributes:
      train_steps: total number of optimiser steps.
      log_every: steps between progress lines and metric records.
      eval_every: steps between validations.
      save_every: steps between checkpoints; a validation better than all before saves, too.
      sample_every: steps between samples, written to RUN/samples; 0: none.
      steps_per_dispatch: optimiser steps per call to the device.
      eval_examples: validation rows scored each time, 0 for all.
      data_placement: where the training rows are kept: "device", "host", or "auto" (on the device
        if they take at most a quarter of its memory and one process has all devices).
      remat: recompute part of the forward pass in the backward pass: about a third more work for
        less memory.
      lstm_backend: LSTM implementation: "xla" (a loop), "native" (one CPU device; needs a C++
        compiler once, `models/native.py`), "cudnn" (one NVIDIA GPU, dtype float32, no
        remat; `models/cudnn.py` says why "auto" does not take it) or "auto": native where it runs,
        otherwise xla.
      stop_patience: early stopping after this many validations without improvement; 0: never.
      stop_metric: validation score for early stopping: loss, loss_reference,
        reconstruction_nats, kl_bits or accuracy.
      stop_min_delta: smallest change that counts as an improvement for early stopping.
      stop_after_skipped: end the run after this many steps in a row that changed no parameter
        (gradient zeroed or not finite); 0: never.
      model_parallel: devices that share one copy of the model, each with part of the columns of
        every kernel. It must divide the number of devices.
      threshold: probability from which on a cell of a piano roll is a note start in decoding.
      param_sharding: "replicated" (each device has all parameters and moments) or "fsdp" (they
        are split over the devices, which saves memory).
    """

    train_steps: int = 200_000
    log_every: int = 100
    eval_every: int = 1000
    save_every: int = 1000
    sample_every: int = 0
    steps_per_dispatch: int = 10
    eval_examples: int = 4096
    data_placement: str = "auto"
    remat: bool = False
    lstm_backend: str = "auto"
    stop_patience: int = 0
    stop_metric: str = "loss"
    stop_min_delta: float = 0.0
    stop_after_skipped: int = 100
    model_parallel: int = 1
    threshold: float = 0.5
    param_sharding: str = "replicated"

    def __post_init__(self) -> None:
        """Check every field."""
        _check_types(self)
        periods = ("log_every", "eval_every", "save_every")
        for name in ("train_steps", *periods, "steps_per_dispatch", "model_parallel"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in (
            "sample_every",
            "eval_examples",
            "stop_patience",
            "stop_min_delta",
            "stop_after_skipped",
        ):
            _require_number(name, getattr(self, name), 0, 1e30, "0 or more")
        ok = 0.0 < self.threshold < 1.0
        _require(ok, "threshold", self.threshold, "above 0 and below 1")
        _require_choice("stop_metric", self.stop_metric, VALIDATION_METRICS)
        _require_choice("data_placement", self.data_placement, DATA_PLACEMENTS)
        _require_choice("param_sharding", self.param_sharding, PARAM_SHARDINGS)
        _require_choice("lstm_backend", self.lstm_backend, LSTM_BACKENDS)
        ok = not (self.remat and self.lstm_backend == "cudnn")
        _require(ok, "remat", self.remat, "false with lstm_backend=cudnn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Complete configuration of a run: the task's name and the three parts."""

    task: str
    model: ModelConfig
    train: TrainConfig
    run: RunConfig

    def __post_init__(self) -> None:
        """Check fields that depend on another part."""
        backend, dtype = self.run.lstm_backend, self.train.dtype
        _require(
            backend != "cudnn" or dtype == "float32",
            "dtype",
            dtype,
            "float32 with lstm_backend=cudnn",
        )

    @property
    def optimiser(self) -> str:
        """The optimiser, "adam" or "muon", where `train.optimiser` may say "auto"."""
        if self.train.optimiser != "auto":
            return self.train.optimiser
        return "muon" if self.model.architecture in MUON_ARCHITECTURES else "adam"

    def replace(self, **fields: Any) -> Config:
        """Return a copy with fields of any part replaced by name.

        Raises:
          InputError: a name is not a field, or a value is out of range.
        """
        parts: dict[str, Any] = {}
        for name, part_type in PARTS.items():
            names = {field.name for field in dataclasses.fields(part_type)}
            given = {key: fields.pop(key) for key in list(fields) if key in names}
            parts[name] = dataclasses.replace(getattr(self, name), **given)
        task = str(fields.pop("task", self.task))
        if fields:
            raise InputError(f"config: no field is named {', '.join(sorted(fields))}")
        return Config(task=task, **parts)

    def flat(self) -> dict[str, Any]:
        """Return all fields of all parts by name, the task's name first."""
        values: dict[str, Any] = {"task": self.task}
        for name in PARTS:
            values |= dataclasses.asdict(getattr(self, name))
        return values

    def to_json(self) -> str:
        """Write the configuration as indented JSON."""
        return json.dumps(self.flat(), indent=1) + "\n"


PARTS: dict[str, Any] = {"model": ModelConfig, "train": TrainConfig, "run": RunConfig}


def config_from_json(text: str) -> Config:
    """Read a configuration written by `Config.to_json`; missing fields take their defaults.

    Raises:
      InputError: a field is unknown or out of range.
    """
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
    task = str(values.pop("task"))
    empty = Config(task=task, model=ModelConfig(), train=TrainConfig(), run=RunConfig())
    return empty.replace(**values)


def field_types() -> dict[str, Any]:
    """Return the type of every field of every part, by name."""
    types: dict[str, Any] = {}
    for part in PARTS.values():
        types |= typing.get_type_hints(part)
    return types


def differing_fields(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Return the fields that make two runs incomparable: {name: (in a, in b)}.

    Fields of `RunConfig` are excluded: they may change when a run is resumed. The optimiser "auto"
    is the one it stands for.
    """
    left, right = ({**config.flat(), "optimiser": config.optimiser} for config in (a, b))
    free = {field.name for field in dataclasses.fields(RunConfig)}
    if a.train.learning_rate_schedule == "plateau":
        free -= {"eval_every", "eval_examples"}
    return {k: (left[k], right[k]) for k in left if k not in free and left[k] != right[k]}

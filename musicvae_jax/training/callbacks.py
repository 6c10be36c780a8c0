"""Callback interface of the training loop."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from musicvae_jax.training.samples import Samples


class Summary(NamedTuple):
    """Facts about a run that are known before its first step.

    Attributes:
      devices: number and kind of the devices.
      dtype: type of the matrix products.
      parameters: number of model parameters.
      train_rows: number of training rows.
      validation_rows: rows scored at each validation.
      steps_per_epoch: steps in one pass over the training rows.
      memory_bytes: estimated memory per device: arguments, results and temporaries.
      rows_on: where the training rows are kept, "device" or "host".
      first_step: 0, or the step that a resumed run starts from.
    """

    devices: str
    dtype: str
    parameters: int
    train_rows: int
    validation_rows: int
    steps_per_epoch: float
    memory_bytes: int
    rows_on: str
    first_step: int


class Progress(NamedTuple):
    """Progress of training.

    Attributes:
      step: number of optimiser steps done.
      figures: metrics averaged over the steps since the last record.
      examples_per_second: speed since the last record.
      seconds_left: estimated time until the last step, at that speed.
      is_record: whether to keep these figures: `step` is a multiple of `log_every` or the last.
    """

    step: int
    figures: dict[str, float]
    examples_per_second: float
    seconds_left: float
    is_record: bool


class Observer(Protocol):
    """Callbacks that the training loop calls."""

    def started(self, summary: Summary) -> None:
        """Called before the first step."""

    def trained(self, progress: Progress) -> None:
        """Called after some training steps."""

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Called after a validation."""

    def sampled(self, step: int, samples: Samples) -> None:
        """Called with rows generated after a step, every `sample_every` steps and at the end."""

    def saved(self, step: int) -> None:
        """Called after a checkpoint is written."""

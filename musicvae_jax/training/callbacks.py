"""Callback interface of the training loop."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Summary(NamedTuple):
    """What is known before the first step.

    Attributes:
      devices: number and kind.
      dtype: type of the matrix products.
      parameters: numbers in the model.
      train_rows: rows to train on.
      validation_rows: rows scored at each validation.
      steps_per_epoch: steps that see each row once on average.
      memory_bytes: estimate for each device: arguments, results and temporaries.
      rows_on: "device" or "host", where the training rows are.
      first_step: 0, or the step a resumed run goes on from.
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
    """Where training stands.

    Attributes:
      step: optimiser steps done.
      figures: means of the steps since the last record.
      examples_per_second: since the last record.
      seconds_left: until the last step, at that rate.
      is_record: a multiple of `log_every` or the last step: worth keeping.
    """

    step: int
    figures: dict[str, float]
    examples_per_second: float
    seconds_left: float
    is_record: bool


class Observer(Protocol):
    """Is told what happens during training."""

    def started(self, summary: Summary) -> None:
        """The first step is about to be made."""

    def trained(self, progress: Progress) -> None:
        """Some steps were made."""

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """The validation rows were scored."""

    def saved(self, step: int) -> None:
        """A checkpoint was written."""

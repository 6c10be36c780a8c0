"""An observer of the training loop for tests."""

from __future__ import annotations

import dataclasses

from musicvae_jax.training import callbacks
from musicvae_jax.training.samples import Samples


@dataclasses.dataclass
class Listener:
    """Keeps what the training loop reports."""

    records: list[dict[str, float]] = dataclasses.field(default_factory=list)
    validations: list[dict[str, float]] = dataclasses.field(default_factory=list)
    saves: list[int] = dataclasses.field(default_factory=list)
    starts: list[int] = dataclasses.field(default_factory=list)
    samples: dict[int, Samples] = dataclasses.field(default_factory=dict)

    def started(self, summary: callbacks.Summary) -> None:
        self.starts.append(summary.first_step)

    def trained(self, progress: callbacks.Progress) -> None:
        if progress.is_record:
            self.records.append({"step": progress.step} | progress.figures)

    def validated(self, step: int, figures: dict[str, float]) -> None:
        self.validations.append({"step": step} | figures)

    def sampled(self, step: int, samples: Samples) -> None:
        self.samples[step] = samples

    def saved(self, step: int) -> None:
        self.saves.append(step)

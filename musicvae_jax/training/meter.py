"""Average metrics and speed of the steps since the last record."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from musicvae_jax.training.callbacks import Progress
from musicvae_jax.training.step import LAST_VALUES

# Interval between progress reports that are not records, in seconds.
HEARTBEAT_SECONDS = 10.0


class Window:
    """Metrics of the steps since the last record, of one run or of several in parallel.

    Attributes:
      seconds_per_step: time per step in the last dispatch.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._reported = time.monotonic()
        self.seconds_per_step = math.inf
        self.restart()

    def restart(self) -> None:
        """Discard the steps so far."""
        self._records: list[Sequence[dict[str, np.ndarray]]] = []
        self._steps, self._seconds = 0, 0.0
        self.resume_clock()

    def resume_clock(self) -> None:
        """Exclude the time since the last step from the speed."""
        self._since = time.monotonic()

    def add(self, records: Sequence[dict[str, np.ndarray]], count: int) -> None:
        """Add the first `count` steps of a dispatch; `records` are per run, [C] each."""
        self._records.append([{k: v[:count] for k, v in found.items()} for found in records])
        now = time.monotonic()
        self.seconds_per_step = (now - self._since) / count
        self._seconds += now - self._since
        self._steps, self._since = self._steps + count, now

    def is_heartbeat_due(self) -> bool:
        """Return whether the last report is older than `HEARTBEAT_SECONDS`."""
        return time.monotonic() - self._reported > HEARTBEAT_SECONDS

    def progress(self, run: int, step: int, total: int, is_record: bool) -> Progress:
        """Average the metrics of a run over their finite values; NaN if there are none."""
        self._reported = time.monotonic()
        figures: dict[str, float] = {}
        for name in self._records[0][run]:
            values = np.concatenate([records[run][name] for records in self._records])
            finite = values[np.isfinite(values)]
            figures[name] = float(finite.mean(dtype=np.float64)) if len(finite) else math.nan
            if name in LAST_VALUES:
                figures[name] = float(values[-1])
        rate = self._steps / max(self._seconds, 1e-9)
        return Progress(step, figures, rate * self._batch_size, (total - step) / rate, is_record)

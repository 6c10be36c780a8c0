"""Detection of runs whose recent steps changed no parameter.

A step changes nothing while its gradient is zeroed (global norm at or above
`grad_norm_clip_to_zero`) or skipped (loss or gradient not finite). The next step then meets the
same parameters, so such a run rarely recovers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from musicvae_jax.config import Config


class Standstill:
    """Counts the most recent consecutive steps of a run that changed no parameter.

    Args:
      config: configuration of the run; `stop_after_skipped` is the limit.
      zeroed: number of zeroed steps so far.
      skipped: number of skipped steps so far.

    Attributes:
      steps: number of consecutive steps, up to the last one added, that changed no parameter.
      last_is_finite: whether loss and gradient of the last step were finite.
    """

    def __init__(self, config: Config, zeroed: int, skipped: int) -> None:
        self._config = config
        self._zeroed, self._skipped = zeroed, skipped
        self.steps = 0
        self.last_is_finite = True
        self._gradient_norm = 0.0

    def add(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Add the metrics of C steps, [C] each; C must be at least 1."""
        unused = metrics["zeroed"] + metrics["skipped"]
        before = np.append(self._zeroed + self._skipped, unused[:-1])
        used = np.flatnonzero(unused == before)
        self.steps = len(unused) - 1 - used[-1] if len(used) else self.steps + len(unused)
        skipped = np.append(self._skipped, metrics["skipped"])
        self.last_is_finite = bool(skipped[-1] == skipped[-2])
        self._zeroed, self._skipped = int(metrics["zeroed"][-1]), int(metrics["skipped"][-1])
        self._gradient_norm = float(metrics["gradient_norm"][-1])

    def cause(self, step: int) -> str:
        """Return why the run should end after `step`, or "" if it should continue.

        A run should end when `stop_after_skipped` consecutive steps changed no parameter. At the
        last step of a shorter run, half of its steps are enough.
        """
        train, limit = self._config.train, self._config.run.stop_after_skipped
        if step == self._config.run.train_steps:
            limit = min(limit, (step + 1) // 2)
        if not limit or self.steps < limit:
            return ""
        if self.last_is_finite:
            return (
                f"the last {self.steps:,} steps changed no parameter: gradient norm "
                f"{self._gradient_norm:,.0f}, and norms from grad_norm_clip_to_zero "
                f"({train.grad_norm_clip_to_zero:,.0f}) on are replaced by zero; raise that "
                "threshold or choose another init"
            )
        return (
            f"the last {self.steps:,} steps changed no parameter: loss or gradient is not finite; "
            f"the learning rate ({train.learning_rate:g}) is probably too high"
        )

"""What one unit of music gives for one task, whichever engine reads it."""

from __future__ import annotations

import dataclasses

import numpy as np

NO_NOTES = "no notes"
TOO_SHORT = "too short"


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The rows of one unit of music for one task, and why segments gave none.

    Attributes:
      rows: [N, *task.row_shape] of the task's token dtype, in order of time.
      bars: int [N], first bar of each row, counted from 0 at the start of its segment.
      reasons: segments without rows, counted by reason.
      why_empty: the reason of the segment with the most notes if N is 0, else None.
      rows_before_dedupe: N before duplicates within a segment were removed.
    """

    rows: np.ndarray
    bars: np.ndarray
    reasons: dict[str, int]
    why_empty: str | None
    rows_before_dedupe: int

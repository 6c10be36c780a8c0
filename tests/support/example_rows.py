"""One row of every task, to be written, drawn and played; piano rolls from cells."""

from __future__ import annotations

from typing import cast

import numpy as np

from musicvae_jax import tokens
from musicvae_jax.tasks import NOTE_TASKS, RollTask, Task
from tests.support.note_lists import row

MELODY_ROW = np.array(row(32, s0=41, s4=43, s8=1, s16=45, s30=1))
DRUMS_ROW = np.array(row(32, s0=5, s8=2, s16=256, s31=511))


def trio_row() -> np.ndarray:
    """A melody, a bass and drums that all play in every bar."""
    trio = np.zeros((256, 3), int)
    trio[::16] = [41, 21, 3]
    trio[6::16] = [1, 23, 4]
    return trio


EXAMPLES = {
    "mel_2bar": MELODY_ROW,
    "mel_16bar": np.tile(MELODY_ROW, 8),
    "drums_2bar": DRUMS_ROW,
    "drums_16bar": np.tile(DRUMS_ROW, 8),
    "trio_16bar": trio_row(),
}


def random_rows(task: Task, count: int, seed: int = 0) -> np.ndarray:
    """Rows with notes on a third of the steps."""
    draw = np.random.default_rng(seed)
    columns = []
    for track in task.tracks:
        column = draw.integers(0, track.num_classes, (count, task.num_steps))
        columns.append(np.where(draw.random(column.shape) < 0.3, column, 0))
    return np.stack(columns, axis=-1).reshape(count, *task.row_shape).astype(task.token_dtype)


ROLL_TASK = cast(RollTask, NOTE_TASKS["pianoroll_16bar"])


def piano_rolls(*cells: list[int]) -> np.ndarray:
    """Rows whose notes start at these cells."""
    return np.stack([tokens.roll_row(np.array(own, np.int64), ROLL_TASK) for own in cells])

"""One row of every task, to be written, drawn and played."""

from __future__ import annotations

import numpy as np

from musicvae_jax.tasks import Task
from tests.support.note_lists import row

MELODY_ROW = np.array(row(32, s0=41, s4=43, s8=1, s16=45, s30=1))
DRUMS_ROW = np.array(row(32, s0=5, s8=2, s16=256, s31=511))


def trio_row() -> np.ndarray:
    """A melody, a bass and drums that all play in every bar."""
    tokens = np.zeros((256, 3), int)
    tokens[::16] = [41, 21, 3]
    tokens[6::16] = [1, 23, 4]
    return tokens


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
        tokens = draw.integers(0, track.num_classes, (count, task.num_steps))
        columns.append(np.where(draw.random(tokens.shape) < 0.3, tokens, 0))
    return np.stack(columns, axis=-1).reshape(count, *task.row_shape).astype(task.token_dtype)

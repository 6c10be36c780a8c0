"""Piano rolls on the device: lists of note starts made dense, and dense cells listed again.

A cell is a tick and a pitch, and a Bernoulli variable of its own. Rows are lists of the distances
between note starts (`tasks.RollTask`); dense, they are T ticks x P pitches.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from musicvae_jax.models.dense import sparse
from musicvae_jax.models.dense.sparse import CellsOn
from musicvae_jax.models.draws import Columns
from musicvae_jax.tasks import ROLL_PITCHES, ROLL_SKIP, RollTask


def note_starts(rows: jax.Array, task: RollTask) -> CellsOn:
    """Return the cells of rows [B, T] in which a note starts."""
    entries = rows.astype(jnp.int32)
    cells = jnp.cumsum(jnp.minimum(entries, ROLL_SKIP - 1), axis=1) - 1
    starts = (entries > 0) & (entries < ROLL_SKIP)
    return CellsOn(jnp.where(starts, cells, task.num_cells), task.num_cells)


def dense(rows: jax.Array, task: RollTask) -> jax.Array:
    """Write rows [B, T] as cells, 1 where a note starts: [B, ticks * pitches] float32."""
    return note_starts(rows, task).dense()


def listed(logits: jax.Array, least: float | jax.Array, task: RollTask) -> jax.Array:
    """List the cells with logits of `least` or more: [B, cells] -> rows [B, T] int32.

    If they are more than a row can hold, the likeliest are listed.
    """
    B, most = len(logits), task.most_starts
    best, cells = jax.lax.top_k(logits, most)
    cells = jnp.sort(jnp.where(best >= least, cells, task.num_cells), axis=1)
    is_start = cells < task.num_cells
    before = jnp.concatenate([jnp.full((B, 1), -1, cells.dtype), cells[:, :-1]], axis=1)
    gaps = cells - before
    skips = jnp.where(is_start, (gaps - 1) // (ROLL_SKIP - 1), 0)
    places = jnp.arange(most)[None, :] + jnp.cumsum(skips, axis=1)
    length = is_start.sum(axis=1) + skips.sum(axis=1)
    rows = jnp.where(jnp.arange(task.num_entries)[None, :] < length[:, None], ROLL_SKIP, 0)
    places = jnp.where(is_start, places, task.num_entries)
    values = (gaps - skips * (ROLL_SKIP - 1)).astype(jnp.int32)
    return rows.astype(jnp.int32).at[jnp.arange(B)[:, None], places].set(values, mode="drop")


def least_logit(threshold: float) -> float:
    """Return the logit of a probability between 0 and 1."""
    return math.log(threshold) - math.log1p(-threshold)


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """The likelihood of cells, and how well they are reconstructed.

    Attributes:
      task: the task.
      threshold: probability from which on a cell is a note start.
    """

    task: RollTask
    threshold: float

    @property
    def _least(self) -> float:
        """Logit from which on a cell is a note start."""
        return least_logit(self.threshold)

    def nats(self, logits: Columns, rows: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Compute -log p(rows | z), [B, 1] nats, of logits [B, ticks, pitches] and rows [B, T].

        A row of any length describes all cells, so `lengths` has no effect.
        """
        del lengths
        cells = logits[0].reshape(len(rows), -1)
        return sparse.bernoulli_nats(cells, note_starts(rows, self.task).cells)[:, None]

    def best(self, logits: Columns) -> jax.Array:
        """List the cells above the threshold: rows [B, T] int32."""
        cells = logits[0].reshape(len(logits[0]), -1)
        return listed(cells, self._least, self.task)

    def scores(self, logits: Columns, rows: jax.Array) -> dict[str, jax.Array]:
        """Compute "accuracy" and "f1" of note starts, [B]: 1 where there are none, rightly.

        Accuracy is found / (true + predicted - found).

        Reference: Poliner and Ellis 2007, "A Discriminative Model for Polyphonic Piano
        Transcription", for accuracy.
        """
        cells, starts = logits[0].reshape(len(rows), -1), note_starts(rows, self.task)
        found = (starts.values(cells, -jnp.inf) >= self._least).sum(axis=1)
        num_true = (starts.cells < starts.num_cells).sum(axis=1)
        either = num_true + (cells >= self._least).sum(axis=1) - found
        both = jnp.maximum(either + found, 1)
        is_silent = either == 0
        return {
            "accuracy": jnp.where(is_silent, 1.0, found / jnp.maximum(either, 1)),
            "f1": jnp.where(is_silent, 1.0, 2 * found / both),
        }

    def counts(self, predicted: jax.Array, rows: jax.Array) -> dict[str, jax.Array]:
        """Count the note starts of rows [B, T] under the names of `metrics.prediction_counts`.

        "steps" are the cells with a note start in either row, so that accuracy is found / (true +
        predicted - found): of all cells it would be 0.99 for silence.

        Returns:
          float32 [B, 1] each.
        """
        guess, truth = dense(predicted, self.task), dense(rows, self.task)
        num_true, num_guessed = truth.sum(axis=1), guess.sum(axis=1)
        found = (truth * guess).sum(axis=1)
        values = {
            "steps": num_true + num_guessed - found,
            "correct": found,
            "onsets": num_true,
            "onsets_correct": found,
            "true_notes": num_true,
            "predicted_notes": num_guessed,
            "found_notes": found,
        }
        return {name: value[:, None] for name, value in values.items()}

    def drawn(self, logits: Columns, key: jax.Array, temperature: jax.Array | float) -> jax.Array:
        """Draw rows [B, T] int32; temperature 0 takes the cells above the threshold.

        At temperature 1 and a threshold of 0.5 each cell is on with its probability.
        """
        cells = logits[0].reshape(len(logits[0]), -1)
        noise = temperature * jax.random.logistic(key, cells.shape)
        return listed(cells + noise, self._least, self.task)


def as_ticks(cells: jax.Array) -> Columns:
    """Divide cells [B, ticks * pitches] into ticks: one array [B, ticks, pitches]."""
    return (cells.reshape(len(cells), -1, ROLL_PITCHES),)

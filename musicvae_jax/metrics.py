"""Metrics of predicted tokens, as counts per example.

Tokens are integer [B, T] or [B, T, K]. Results are per track, [B, K]; K is 1 for a single track. A
metric is the ratio of two counts, each summed over all batches first, so it does not depend on the
batch size or on padding. `musicvae_jax.tokens` defines where notes start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.models import draws
from musicvae_jax.tasks import NO_EVENT, Task, Track

Counts = dict[str, jax.Array]


def track_columns(tokens: jax.Array) -> jax.Array:
    """Convert tokens to int32 [B, T, K], with K = 1 for a single track."""
    tokens = tokens.astype(jnp.int32)
    return tokens[:, :, None] if tokens.ndim == 2 else tokens


def starts_note(tokens: jax.Array, task: Task) -> jax.Array:
    """Return where a note starts, bool [B, T, K]."""
    first = np.array([track.first_onset for track in task.tracks])
    return track_columns(tokens) >= jnp.asarray(first)[None, None, :]


def best_tokens(logits: Sequence[jax.Array]) -> jax.Array:
    """Return the most likely token of each step: K arrays [B, T, V_k] -> int32 [B, T, K]."""
    return draws.best_tokens(logits)


def prediction_counts(predicted: jax.Array, tokens: jax.Array, task: Task) -> Counts:
    """Compute the counts for accuracy, onset accuracy and note scores.

    A melody note is identified by its onset step and pitch, a drum note by its step and drum class;
    a drum token has up to nine notes. A true note is found if the prediction has the same note at
    the same step. A model of other rows counts by itself (`VAE.counts`).

    Args:
      predicted: predicted tokens, integer [B, T] or [B, T, K].
      tokens: true tokens, likewise.
      task: the task, which defines the tracks.

    Returns:
      float32 [B, K] each: "steps", "correct"; "onsets" and "onsets_correct", the true onset steps
      and those predicted exactly; "true_notes", "predicted_notes", "found_notes".

    Raises:
      ValueError: the rows of the task are lists.
    """
    if not task.has_steps:
        raise ValueError(f"task: the rows of {task.name} are lists; see `VAE.counts`")
    truth, guess = track_columns(tokens), track_columns(predicted)
    onset = starts_note(truth, task)
    correct = guess == truth
    notes = [
        _note_counts(guess[:, :, k], truth[:, :, k], track) for k, track in enumerate(task.tracks)
    ]
    return {
        "steps": jnp.full((truth.shape[0], truth.shape[2]), truth.shape[1], jnp.float32),
        "correct": _over_steps(correct),
        "onsets": _over_steps(onset),
        "onsets_correct": _over_steps(onset & correct),
        **{name: jnp.stack([track[name] for track in notes], axis=1) for name in notes[0]},
    }


def _over_steps(values: jax.Array) -> jax.Array:
    """Sum [B, T, K] over the steps."""
    return jnp.sum(values, axis=1, dtype=jnp.float32)


def _note_counts(guess: jax.Array, truth: jax.Array, track: Track) -> Counts:
    """Count the notes of one track, [B, T] -> [B]."""
    if track.is_pitched:
        per_step = {
            "true_notes": truth >= track.first_onset,
            "predicted_notes": guess >= track.first_onset,
            "found_notes": (truth >= track.first_onset) & (truth == guess),
        }
    else:
        per_step = {
            "true_notes": jax.lax.population_count(truth),
            "predicted_notes": jax.lax.population_count(guess),
            "found_notes": jax.lax.population_count(truth & guess),
        }
    return {name: jnp.sum(value, axis=1, dtype=jnp.float32) for name, value in per_step.items()}


def masked_sums(values: Mapping[str, jax.Array], mask: jax.Array) -> Counts:
    """Sum [B, ...] over the examples where `mask`, bool [B], is true."""

    def total(value: jax.Array) -> jax.Array:
        keep = mask.reshape(mask.shape + (1,) * (value.ndim - 1))
        return jnp.sum(jnp.where(keep, value, jnp.zeros_like(value)), axis=0, dtype=jnp.float32)

    return {name: total(value) for name, value in values.items()}


def add_sums(total: dict[str, np.ndarray], part: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    """Add the sums of a batch to a running total in float64, which starts as an empty dict."""
    found = {name: np.asarray(value, np.float64) for name, value in part.items()}
    return {name: total.get(name, np.zeros_like(value)) + value for name, value in found.items()}


def ratio(numerator: float | np.ndarray, denominator: float | np.ndarray) -> np.ndarray:
    """Divide in float64; division by 0 gives NaN."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    empty = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=empty, where=denominator != 0)


def scores(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute scores from summed `prediction_counts` [K], float64 [K] each.

    Returns:
      "accuracy" over all steps; "onset_accuracy" over steps where a true note starts;
      "precision", "recall" and "f1" of notes.
    """
    found = sums["found_notes"]
    return {
        "accuracy": ratio(sums["correct"], sums["steps"]),
        "onset_accuracy": ratio(sums["onsets_correct"], sums["onsets"]),
        "precision": ratio(found, sums["predicted_notes"]),
        "recall": ratio(found, sums["true_notes"]),
        "f1": ratio(2 * found, sums["predicted_notes"] + sums["true_notes"]),
    }


def token_histogram(tokens: np.ndarray, task: Task) -> list[np.ndarray]:
    """Count the occurrences of each token per track: K arrays, int64 [V]."""
    columns = tokens.reshape(*tokens.shape[:2], len(task.tracks))
    return [
        np.bincount(columns[:, :, k].ravel(), minlength=track.num_classes)
        for k, track in enumerate(task.tracks)
    ]


def baselines(histograms: list[np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """Compute the scores of baseline predictions that use only token frequencies.

    Returns:
      float64 [K + 1] each, the last over all tracks. "no_event_accuracy": always predicting
      "no event". "unigram_accuracy": expected accuracy when each token is sampled from the
      frequencies of all tokens. "unigram_onset_accuracy": the same on steps where a note starts.
      "onset_unigram_onset_accuracy": on those steps, sampled from the frequencies of onset tokens
      only, as if the onsets were known.
    """
    steps = np.array([counts.sum() for counts in histograms], np.float64)
    onsets = [
        _onset_counts(counts, track) for counts, track in zip(histograms, task.tracks, strict=True)
    ]
    num_onsets = np.array([counts.sum() for counts in onsets], np.float64)
    pairs = list(zip(histograms, onsets, strict=True))
    # Expected number of hits: count of each true token times the probability of predicting it.
    no_event = np.array([counts[NO_EVENT] for counts in histograms], np.float64)
    unigram = np.array([counts @ _frequencies(counts) for counts in histograms])
    unigram_onset = np.array([true @ _frequencies(counts) for counts, true in pairs])
    onset_unigram = np.array([true @ _frequencies(true) for true in onsets])
    return {
        "no_event_accuracy": ratio(with_total(no_event), with_total(steps)),
        "unigram_accuracy": ratio(with_total(unigram), with_total(steps)),
        "unigram_onset_accuracy": ratio(with_total(unigram_onset), with_total(num_onsets)),
        "onset_unigram_onset_accuracy": ratio(with_total(onset_unigram), with_total(num_onsets)),
    }


def _onset_counts(counts: np.ndarray, track: Track) -> np.ndarray:
    """Return the counts [V] with those of tokens that do not start a note set to 0."""
    kept = counts.copy()
    kept[: track.first_onset] = 0
    return kept


def _frequencies(counts: np.ndarray) -> np.ndarray:
    """Normalise counts to frequencies; all 0 if there are no tokens."""
    return counts / max(counts.sum(), 1)


def with_total(values: np.ndarray) -> np.ndarray:
    """Append the sum over the tracks: [K] -> [K + 1]."""
    return np.append(values, values.sum())


class LatentMoments:
    """Running variance of the posterior mean of each latent unit, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(())
        self.squares = np.zeros(())

    def add(self, mu: np.ndarray) -> None:
        """Add posterior means [N, Z], which must not include padding."""
        values = np.asarray(mu, np.float64)
        count, mean = len(values), values.mean(axis=0)
        delta, total = mean - self.mean, self.count + len(values)
        self.squares = self.squares + ((values - mean[None, :]) ** 2).sum(axis=0)
        self.squares = self.squares + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def active_units(self, threshold: float = 0.01) -> int:
        """Count the units whose mean has a variance over examples above `threshold`.

        Reference: Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders",
        section 5.1.
        """
        return int(np.sum(self.squares / max(self.count, 1) > threshold))

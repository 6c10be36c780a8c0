"""What a sweep measures at its points and ranks them by, depending on what their rows hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from musicvae_jax import evaluation, sound_evaluation
from musicvae_jax.config import Config
from musicvae_jax.tasks import get_task

Figures = dict[str, Any]


class Scoring(NamedTuple):
    """How points are scored.

    Attributes:
      split: split whose rows are scored.
      examples: largest number of rows, evenly spaced in the split; 0 for all.
      draws: samples per row; not used for sound.
    """

    split: str
    examples: int
    draws: int


class Measures(NamedTuple):
    """The figures of a point.

    Attributes:
      columns: figure to its column in tables. Points are ranked by the first; higher is better.
      more: figures that are only in the files.
      maps: figures that have a heat map.
      how: how they were computed, a format of the fields of `Scoring`.
      terms: column to its explanation.
      evaluator: returns the function from parameters to figures, compiled once, for a
        configuration and rows.
    """

    columns: dict[str, str]
    more: tuple[str, ...]
    maps: tuple[str, ...]
    how: str
    terms: dict[str, str]
    evaluator: Callable[[Config, np.ndarray, Scoring], Callable[[Any], Figures]]

    @property
    def rank(self) -> str:
        """The figure that points are ranked by."""
        return next(iter(self.columns))


def measures_of(config: Config) -> Measures:
    """Return what is measured at a point with this configuration."""
    return _MEASURES.get(get_task(config.task).content, TOKENS)


def _latent_figures(found: evaluation.Evaluation | sound_evaluation.SoundEvaluation) -> Figures:
    """Return the figures of z; the distortion is the cross-entropy of a row given z, in nats."""
    return {
        "kl_bits": found.kl_bits,
        "elbo_nats": found.elbo_nats,
        "distortion_nats": -found.elbo_nats - (found.kl_bits or 0.0) * math.log(2.0),
        "active_units": found.active_units,
        "z_size": found.z_size,
    }


def _token_evaluator(
    config: Config, rows: np.ndarray, scoring: Scoring
) -> Callable[[Any], Figures]:
    evaluator = evaluation.Evaluator(config, rows, draws=scoring.draws)

    def figures(params: Any) -> Figures:
        found = evaluator(params)
        return {
            "rows": found.examples,
            "sampled_accuracy": found.sampled["accuracy"]["overall"],
            "sampled_error": found.sampled_error["accuracy"]["overall"],
            "teacher_forced_accuracy": found.teacher_forced["accuracy"]["overall"],
            "greedy_accuracy": found.greedy["accuracy"]["overall"],
            **_latent_figures(found),
        }

    return figures


def _sound_evaluator(
    config: Config, rows: np.ndarray, scoring: Scoring
) -> Callable[[Any], Figures]:
    del scoring  # the reconstruction is from the mean of z, nothing of it is sampled
    evaluator = sound_evaluation.Evaluator(config, rows)

    def figures(params: Any) -> Figures:
        found, _ = evaluator(params)
        return {
            "rows": found.examples,
            "snr_db": found.snr_db,
            "log_spectral_distance_db": found.log_spectral_distance_db,
            **_latent_figures(found),
        }

    return figures


_LATENT_COLUMNS = {"kl_bits": "KL bits", "elbo_nats": "ELBO nats", "active_units": "active units"}
_LATENT_TERMS = {
    "KL": "Bits that z carries about a row.",
    "ELBO": "Lower bound of the log-likelihood of a row; higher is better.",
    "active units": "Units of z whose posterior mean varies from row to row by more than 0.01.",
}
TOKENS = Measures(
    columns={
        "sampled_accuracy": "sampled",
        "teacher_forced_accuracy": "teacher forced",
        "greedy_accuracy": "greedy",
        **_LATENT_COLUMNS,
    },
    more=("sampled_error", "distortion_nats", "z_size"),
    maps=("sampled_accuracy", "teacher_forced_accuracy", "kl_bits", "active_units"),
    how="{split} rows, best checkpoint of each point; sampled: temperature 1, {draws} draws of z "
    "and tokens, mean and standard error",
    terms={
        "sampled": "Share of the tokens of a row that its reconstruction has right, with z drawn "
        "from the posterior and every token drawn. A forecaster is given the first bar and "
        "continues it; the later steps count. Points are ranked by it.",
        "teacher forced": "Share of tokens predicted right given the true tokens before them and "
        "the posterior mean.",
        "greedy": "Share of tokens that a reconstruction has right, with the posterior mean as z "
        "and the most likely token at each step.",
        **_LATENT_TERMS,
    },
    evaluator=_token_evaluator,
)
SOUND = Measures(
    columns={
        "snr_db": "SNR dB",
        "log_spectral_distance_db": "spectral distance dB",
        **_LATENT_COLUMNS,
    },
    more=("distortion_nats", "z_size"),
    maps=("snr_db", "log_spectral_distance_db", "kl_bits", "active_units"),
    how="{split} rows, best checkpoint of each point; SNR and spectral distance: reconstruction "
    "from the posterior mean; ELBO: one draw of z",
    terms={
        "SNR": "Signal-to-noise ratio of the reconstruction from the posterior mean; higher is "
        "better, 0 dB is that of silence. Points are ranked by it.",
        "spectral distance": "Log-spectral distance of the same reconstruction; lower is better.",
        **_LATENT_TERMS,
    },
    evaluator=_sound_evaluator,
)
# By what rows hold (`Task.content`); `TOKENS` are the measures of all others.
_MEASURES = {"sound": SOUND}

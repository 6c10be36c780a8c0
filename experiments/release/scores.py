"""All scores of a model, by the functions of `evaluate`, `analyze` and `attributes`."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import attributes
from experiments.analysis import inputs
from musicvae_jax import data, evaluation
from musicvae_jax.analysis import nearest, originality, sets
from musicvae_jax.latent.attributes import Vectors
from musicvae_jax.latent.musicvae import MusicVAE

KINDS = ("teacher_forced", "greedy", "sampled")
SCORES = ("accuracy", "onset_accuracy", "f1")
OVERALL = "overall"
# Rows that are decoded in both precisions, and test rows whose nearest training row is searched.
COMPARED, SEARCHED = 1_000, 2_000


def reconstruction(vae: MusicVAE, rows: np.ndarray) -> dict[str, Any]:
    """Score reconstructions as `evaluate` does, over all tracks together."""
    found = evaluation.evaluate(vae.config, vae.params, rows)
    scores = {
        score: {kind: getattr(found, kind)[score][OVERALL] for kind in KINDS} for score in SCORES
    }
    return scores | {
        "examples": found.examples,
        "elbo_nats": found.elbo_nats,
        "kl_bits": found.kl_bits,
        "active_units": found.active_units,
        "no_event": found.baselines["no_event_accuracy"][OVERALL],
        "unigram": found.baselines["unigram_accuracy"][OVERALL],
    }


def nearest_row(store: data.Store, split: str) -> dict[str, float]:
    """Score the nearest training row as a reconstruction of rows of a split."""
    rows, train = store.splits[split], np.asarray(store.splits["train"])
    chosen = np.asarray(rows[data.spread_rows(len(rows), SEARCHED)])
    predicted = train[nearest.nearest_rows(chosen, train)]
    found = evaluation.score_predictions(predicted, chosen, store.task)
    return {score: found[score][OVERALL] for score in SCORES} | {"examples": len(chosen)}


def quality(vae: MusicVAE, options: inputs.Options) -> dict[str, Any]:
    """Compare samples with held-out rows as `analyze` does.

    Returns:
      "overlap": family to the mean overlap of real rows with real rows, of samples with real rows,
      and their ratio; "originality": the means of each measure for held-out rows and samples.
    """
    gathered = inputs.gather(vae, options)
    known = originality.know(gathered.train, vae.task)
    others = {inputs.SAMPLES: gathered.others[inputs.SAMPLES]}
    found = sets.analyse(gathered.real, others, known, vae.task, options.seed)
    overlap = {}
    for family, compared in found.families.items():
        real = compared.real["overlap"].value
        samples = compared.others[inputs.SAMPLES]["overlap"].value
        overlap[family] = {"real": real, "samples": samples, "ratio": samples / real}
    means = {
        finding.name: {name: finding.means[name] for name in (sets.REAL, inputs.SAMPLES)}
        for finding in found.findings
        if finding.family == originality.FAMILY and finding.means
    }
    return {
        "samples": options.num,
        "temperature": options.temperature,
        "overlap": overlap,
        "originality": means,
    }


def attribute_changes(vae: MusicVAE, vectors: Vectors, prior: str, num: int) -> dict[str, Any]:
    """Measure what each attribute vector changes, as `attributes` does: percent by sign [A, A]."""
    options = attributes.Options(prior=prior, num=num)
    matrix = attributes.change_matrix(vae, vectors, options)
    return {
        "names": matrix.names,
        "samples": options.num,
        "percent": {sign: matrix.percent[sign].tolist() for sign in attributes.SIGNS},
        "largest_on_diagonal": {
            sign: attributes.largest_on_diagonal(matrix.percent[sign]) for sign in attributes.SIGNS
        },
    }


def equal_steps(vae: MusicVAE, other: MusicVAE, rows: np.ndarray) -> float:
    """Return the share of tokens in which the greedy reconstructions of two models agree."""
    chosen = np.asarray(rows[data.spread_rows(len(rows), COMPARED)])
    return float((vae.reconstruct(chosen) == other.reconstruct(chosen)).mean())

"""A model of token sequences to judge others by: n-grams with Witten-Bell smoothing.

The probability of a token after the n - 1 before it is interpolated with that after the n - 2
before it, and so on down to equal probabilities: with c occurrences of a context and d different
tokens seen after it,

    p(w | context) = (count(context, w) + d p(w | shorter context)) / (c + d).

Steps before a row's first are a token of their own.

Reference: Witten and Bell 1991; interpolated as in Chen and Goodman 1999, "An empirical study of
smoothing techniques for language modeling", section 2.5. (The paper's figure uses a 5-gram model
and does not state its smoothing.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class _Counts(NamedTuple):
    """What follows contexts of one length, sorted by code.

    Attributes:
      events: int64 [E], codes of contexts with the token that follows.
      counts: int64 [E].
      contexts: int64 [C], codes of contexts.
      totals: int64 [C], occurrences.
      kinds: int64 [C], different tokens that follow.
    """

    events: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray


class NGram(NamedTuple):
    """A fitted model.

    Attributes:
      num_classes: V.
      by_length: counts for contexts of 0, 1, ... n - 1 tokens.
    """

    num_classes: int
    by_length: tuple[_Counts, ...]


def fit(tokens: np.ndarray, num_classes: int, order: int = 5) -> NGram:
    """Count the n-grams of rows.

    Args:
      tokens: integer [N, T], from 0 to V - 1.
      num_classes: V.
      order: n; 5 and 512 values just fit 64 bits with room to spare.
    """
    counts = []
    for length in range(order):
        codes = _event_codes(tokens, num_classes, length)
        events, count = np.unique(codes, return_counts=True)
        contexts, first, kinds = np.unique(
            events // (num_classes + 1), return_index=True, return_counts=True
        )
        totals = np.add.reduceat(count, first) if len(count) else count
        counts.append(_Counts(events, count, contexts, totals, kinds))
    return NGram(num_classes, tuple(counts))


def log_probabilities(model: NGram, tokens: np.ndarray) -> np.ndarray:
    """Return log p of each token given those before it, nats: float64 [N, T].

    Args:
      model: of `fit`.
      tokens: integer [N, T], from 0 to V - 1.
    """
    found = np.full(tokens.shape, 1.0 / model.num_classes)
    for length, counts in enumerate(model.by_length):
        events = _event_codes(tokens, model.num_classes, length).reshape(tokens.shape)
        seen = _look_up(counts.events, counts.counts, events)
        contexts = events // (model.num_classes + 1)
        total = _look_up(counts.contexts, counts.totals, contexts)
        kinds = _look_up(counts.contexts, counts.kinds, contexts)
        known = total > 0
        mixed = (seen + kinds * found) / np.maximum(total + kinds, 1)
        found = np.where(known, mixed, found)
    return np.log(found)


def cost_nats(model: NGram, tokens: np.ndarray) -> np.ndarray:
    """Return the mean cost of a step, -log p: float64 [N], nats."""
    return -log_probabilities(model, tokens).mean(axis=1)


def _event_codes(tokens: np.ndarray, num_classes: int, length: int) -> np.ndarray:
    """Write each token and the `length` ones before it as one number, int64 [N * T]."""
    tokens = np.asarray(tokens, np.int64)
    steps = tokens.shape[1]
    # num_classes itself stands for what was before the row.
    padded = np.pad(tokens, ((0, 0), (length, 0)), constant_values=num_classes)
    codes = np.zeros(tokens.shape, np.int64)
    for offset in range(length + 1):
        codes = codes * (num_classes + 1) + padded[:, offset : offset + steps]
    return codes.ravel()


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key, 0 where there is none; keys are sorted."""
    if not len(keys):
        return np.zeros(wanted.shape, np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)

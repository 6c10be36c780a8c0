"""Compile every program that the page's usual requests run, in the background after the start."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from experiments.studio.models.latent import LARGEST_GRID, StudioModel
from experiments.studio.models.played import LENGTH_OF_CHAINS, PlayedModel
from experiments.studio.rows import Given

# Batches of the usual requests: a slider or a proposal, corners, variations, a palette.
_DECODED = (4, LARGEST_GRID**2, 1, 16)
_ENCODED = (4, 1, 16)
_CONTINUED = 4
# What the page samples with, and what needs no random numbers: two programs each.
_TEMPERATURES = (0.5, 0.0)


def start(models: Iterable[PlayedModel]) -> None:
    """Compile for all models, in a thread that gives one program at a time to the worker."""
    jobs = [(model, list(programs(model))) for model in models]
    for model, steps in jobs:
        model.ready["total"] = len(steps)

    def run() -> None:
        for model, steps in jobs:
            for step in steps:
                model.worker.later(step).result()
                model.ready["done"] += 1

    threading.Thread(target=run, name="compilation", daemon=True).start()


def programs(model: PlayedModel) -> Iterator[Callable[[], object]]:
    """Yield a call for each program, the first that the page needs first."""
    if isinstance(model, StudioModel):
        yield from _latent_programs(model)
        return
    key = jax.random.key(0)
    row = Given(np.zeros(model.task.row_shape, np.int32), model.task.num_steps, None)
    # A sample, four of them, and four continuations.
    for temperature in _TEMPERATURES:
        for num in (1, 4):
            yield functools.partial(model.sample, num, key, temperature)
        settings = (LENGTH_OF_CHAINS, 0.0, _CONTINUED, key, temperature)
        yield functools.partial(model.continuation, row, *settings)


def _latent_programs(model: StudioModel) -> Iterator[Callable[[], object]]:
    """Yield a call for each program of a model with a latent space."""
    z = np.zeros((LARGEST_GRID**2, model.vae.z_size), np.float32)
    row = np.zeros((1, *model.task.row_shape), np.int32)

    def key() -> jax.Array:
        return jax.random.split(jax.random.key(0))[0]

    def decode(size: int, temperature: float) -> Callable[[], object]:
        return lambda: model.decode(z[:size], key(), temperature)

    def encode(size: int) -> Callable[[], object]:
        return lambda: model.encode(row.repeat(size, axis=0), [model.task.num_steps] * size)

    def similar(size: int) -> Callable[[], object]:
        return lambda: model.similar(z[:size], 0.5, key())

    def chain(temperature: float) -> Callable[[], object]:
        return lambda: model.chain(z[:_CONTINUED], LENGTH_OF_CHAINS, 0.3, key(), temperature)

    yield lambda: model.draw(key(), 1)
    for temperature in _TEMPERATURES:
        yield decode(_DECODED[0], temperature)
    for size in _ENCODED:
        yield encode(size)
    yield lambda: model.grid(z[:4], LARGEST_GRID, LARGEST_GRID)
    for size in _ENCODED:
        yield similar(size)
    for size in _DECODED[1:]:
        for temperature in _TEMPERATURES:
            yield decode(size, temperature)
    for temperature in _TEMPERATURES:
        yield chain(temperature)

"""What the page can ask of a model: each function takes a request's fields and returns a reply.

Random keys are divided as `experiments.generate` does: one half draws z, the other the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.cli.run_options import LARGEST_SEED
from experiments.studio import rows
from experiments.studio.fields import Fields, check_number, wrong
from experiments.studio.models.latent import LARGEST_GRID, StudioModel
from experiments.studio.models.played import MAX_DRAWN, PlayedModel
from experiments.studio.projection import project
from experiments.studio.rows import Given
from musicvae_jax.latent import attributes

MAX_ROWS, MAX_POINTS = 1024, 10_000
MAX_BARS, MAX_CONTINUATIONS = 64, 8
LARGEST_AMOUNT = 3.0
MAX_TEMPERATURE = 2.0

Reply = dict[str, Any]


def show(model: PlayedModel, fields: Fields) -> Reply:
    """Return the notes and attributes of tokens."""
    found = _given(model, fields, MAX_ROWS)
    fields.finish()
    if any(row.tokens is None for row in found):
        raise wrong("rows: each row must have tokens")
    tokens = np.stack([row.tokens for row in found if row.tokens is not None])
    return {"rows": rows.to_json(tokens, model.task)}


def sample(model: PlayedModel, fields: Fields) -> Reply:
    """Draw rows, from the prior if the model has one."""
    num = fields.integer("num", 1, MAX_DRAWN)
    temperature, key = _sampling(fields)
    return _rows(model, *model.worker.run(lambda: model.sample(num, key(), temperature)))


def reconstruct(model: StudioModel, fields: Fields) -> Reply:
    """Encode rows and decode them again."""
    found = _given(model, fields, MAX_DRAWN)
    temperature, key = _sampling(fields)

    def run() -> tuple[np.ndarray, np.ndarray]:
        z = model.points(found)
        return model.decode(z, key(), temperature), z

    return _rows(model, *model.worker.run(run))


def palette(model: StudioModel, fields: Fields) -> Reply:
    """Decode a grid between two or four corners."""
    corners = fields.items("corners", 2, 4)
    if len(corners) == 3:
        raise wrong("corners: there must be 2 or 4 of them")
    found = _all_given(model, "corners", corners)
    num_rows = fields.integer("rows", *((1, 1) if len(found) == 2 else (2, LARGEST_GRID)))
    num_columns = fields.integer("columns", 2, LARGEST_GRID)
    temperature, key = _sampling(fields)

    def run() -> np.ndarray:
        z = model.points(found)
        grid = model.grid(z if len(z) == 4 else np.concatenate([z, z]), num_rows, num_columns)
        return model.decode(grid.reshape(-1, grid.shape[-1]), key(), temperature)

    cells = rows.to_json(model.worker.run(run), model.task)
    starts = range(0, len(cells), num_columns)
    return {"cells": [cells[start : start + num_columns] for start in starts]}


def shape(model: StudioModel, fields: Fields) -> Reply:
    """Change the attributes of a row."""
    given = rows.given("row", fields.take("row"), model.task, model.z_size)
    amounts = _amounts(model, fields.mapping("attributes"))
    similar = fields.number("similar", 0.0, 1.0)
    temperature, key = _sampling(fields)

    def run() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        z = start = model.points([given])
        z_key, token_key = jax.random.split(key())
        for name, amount in amounts.items():
            z = z + np.float32(amount) * model.vae.attributes[name]
        if similar > 0:
            z = model.similar(z, similar, z_key)
        before = given.tokens
        original = model.decode(start, token_key, temperature) if before is None else before[None]
        return original, model.decode(z, token_key, temperature), z

    original, tokens, z = model.worker.run(run)
    (first,), (result,) = rows.to_json(original, model.task), rows.to_json(tokens, model.task, z)
    return {"original": first, "result": result}


def continuation(model: PlayedModel, fields: Fields) -> Reply:
    """Continue a row, several times."""
    given = rows.given("row", fields.take("row"), model.task, model.z_size)
    bars = fields.integer("bars", 1, MAX_BARS)
    drift = fields.number("drift", 0.0, 1.0)
    num = fields.integer("num", 1, MAX_CONTINUATIONS)
    temperature, key = _sampling(fields)

    def run() -> np.ndarray:
        return model.continuation(given, bars, drift, num, key(), temperature)

    return {"rows": rows.to_json(model.worker.run(run), model.task)}


def variations(model: StudioModel, fields: Fields) -> Reply:
    """Vary a row by a given amount."""
    given = rows.given("row", fields.take("row"), model.task, model.z_size)
    amount = fields.number("amount", 0.0, 1.0)
    num = fields.integer("num", 1, MAX_DRAWN)
    temperature, key = _sampling(fields)

    def run() -> tuple[np.ndarray, np.ndarray]:
        z_key, token_key = jax.random.split(key())
        z = model.similar(model.points([given]).repeat(num, axis=0), amount, z_key)
        return model.decode(z, token_key, temperature), z

    return _rows(model, *model.worker.run(run))


def chart(model: StudioModel, fields: Fields) -> Reply:
    """Lay rows out on a plane, and list the nearest neighbours of each."""
    given = fields.items("rows", 3, MAX_POINTS)
    fields.finish()
    task = model.task
    read = rows.tokens_from_json
    found = [read(f"rows.{n}", row, task, task.num_steps) for n, row in enumerate(given)]
    tokens = np.zeros((len(found), *task.row_shape), np.int32)
    for row, own in zip(tokens, found, strict=True):
        row[: len(own)] = own
    z = model.worker.run(lambda: model.encode(tokens, [len(row) for row in found]))
    return project(z, attributes.measure(tokens, task))


def _with_latent_space(
    action: Callable[[StudioModel, Fields], Reply],
) -> Callable[[PlayedModel, Fields], Reply]:
    """Refuse the action to models without a latent space."""

    def run(model: PlayedModel, fields: Fields) -> Reply:
        if not isinstance(model, StudioModel):
            can = " and ".join(model.can)
            raise wrong(f"model: {model.name} has no latent space; it can only {can}")
        return action(model, fields)

    return run


ACTIONS: dict[str, Callable[[PlayedModel, Fields], Reply]] = {
    "rows": show,
    "sample": sample,
    "reconstruct": _with_latent_space(reconstruct),
    "palette": _with_latent_space(palette),
    "shape": _with_latent_space(shape),
    "continue": continuation,
    "variations": _with_latent_space(variations),
    "map": _with_latent_space(chart),
}


def _given(model: PlayedModel, fields: Fields, most: int) -> list[Given]:
    """Take the field `rows`."""
    return _all_given(model, "rows", fields.items("rows", 1, most))


def _all_given(model: PlayedModel, name: str, values: list[Any]) -> list[Given]:
    task, z_size = model.task, model.z_size
    return [rows.given(f"{name}.{n}", row, task, z_size) for n, row in enumerate(values)]


def _sampling(fields: Fields) -> tuple[float, Callable[[], jax.Array]]:
    """Take the last fields: the temperature and the seed, as a function that makes the key."""
    temperature = fields.number("temperature", 0.0, MAX_TEMPERATURE)
    seed = fields.integer("seed", 0, LARGEST_SEED)
    fields.finish()
    return temperature, lambda: jax.random.key(seed)


def _amounts(model: StudioModel, values: dict[str, Any]) -> dict[str, float]:
    """Check how much of each attribute to add."""
    for name in values:
        if name not in model.vae.attributes:
            known = ", ".join(model.vae.attributes) or "none"
            raise wrong(f"attributes: {name[:50]!r} cannot be changed; those that can: {known}")
    limits = (-LARGEST_AMOUNT, LARGEST_AMOUNT)
    return {
        name: check_number(f"attributes.{name}", value, *limits) for name, value in values.items()
    }


def _rows(model: PlayedModel, tokens: np.ndarray, z: np.ndarray | None) -> Reply:
    return {"rows": rows.to_json(tokens, model.task, z)}

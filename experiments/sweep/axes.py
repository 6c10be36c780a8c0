"""Axes of a sweep from `NAME=v1,v2`, and the configurations of its points."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from musicvae_jax.config import Config, InputError, field_types
from musicvae_jax.models.registry import architectures_with, find_architecture

# Fields that only count under one value of another: field -> (the other, its values).
_COUNTS_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "decay_rate": ("learning_rate_schedule", ("exponential",)),
    "cosine_steps": ("learning_rate_schedule", ("cosine",)),
    "plateau_factor": ("learning_rate_schedule", ("plateau",)),
    "plateau_patience": ("learning_rate_schedule", ("plateau",)),
    "plateau_min_delta": ("learning_rate_schedule", ("plateau",)),
    "plateau_metric": ("learning_rate_schedule", ("plateau",)),
    "beta_rate": ("beta_schedule", ("annealed",)),
    "beta_steps": ("beta_schedule", ("linear", "cyclical")),
    "beta_rise": ("beta_schedule", ("cyclical",)),
}


class Axis(NamedTuple):
    """A configuration field and the values that the grid gives it, in the order given."""

    name: str
    values: tuple[Any, ...]


class GridPoint(NamedTuple):
    """One combination of values.

    Attributes:
      name: also that of its folder, for example "beta=0.1,free_bits=48".
      values: of the axes, by field.
      config: with these values.
    """

    name: str
    values: dict[str, Any]
    config: Config


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    """Read axes; layer sizes are written with "+" between them: encoder_sizes=128,256+256.

    Raises:
      InputError: there is no axis, two have one name, a name is no field, or a value is none of
        its type or given twice.
    """
    if not texts:
        raise InputError("grid: no axis is given; write for example --grid=beta=0.1,0.2")
    axes: list[Axis] = []
    for text in texts:
        name, equals, listed = text.partition("=")
        name = name.strip()
        values = [value.strip() for value in listed.split(",") if value.strip()]
        if not equals or not values:
            raise InputError(f"grid: {text!r} names no values; write for example beta=0.1,0.2")
        _check_name(name)
        if any(axis.name == name for axis in axes):
            raise InputError(f"grid: two axes are named {name}; give all its values in one")
        axes.append(Axis(name, tuple(_value(name, value) for value in values)))
        twice = [v for v in axes[-1].values if axes[-1].values.count(v) > 1]
        if twice:
            raise InputError(f"grid: {name} has the value {shown(twice[0])} twice")
    return axes


def _check_name(name: str) -> None:
    """Raise InputError unless the name is that of a field."""
    known = field_types()
    if name in known:
        return
    if name == "task":
        raise InputError("grid: task is no axis, a grid is of one task; run one grid for each")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; see --help for the fields"
    raise InputError(f"grid: no configuration field is named {name!r}{hint}")


_BOOLEANS = {"0": False, "1": True, "false": False, "true": True}


def _value(name: str, text: str) -> Any:
    """Read one value of a field."""
    kind = field_types()[name]
    kinds = {int: "a whole number", float: "a number", bool: "0, 1, false or true"}
    try:
        if kind is bool:
            return _BOOLEANS[text.lower()]
        if kind in (int, float):
            return kind(text)
        if kind is str:
            return text
        return tuple(int(part) for part in text.split("+"))
    except (ValueError, KeyError) as error:
        right = kinds.get(kind, "layer sizes with + between them, for example 256+256")
        raise InputError(f"grid: {name}={text} is not {right}") from error


def shown(value: Any) -> str:
    """Write a value as `parse_axes` reads it."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def make_points(base: Config, axes: Sequence[Axis]) -> list[GridPoint]:
    """Combine the values of the axes; the last axis changes fastest.

    Raises:
      InputError: a value is out of range, or an axis has no effect on any of its points.
    """
    points = []
    for values in itertools.product(*(axis.values for axis in axes)):
        named = dict(zip((axis.name for axis in axes), values, strict=True))
        name = ",".join(f"{k}={shown(v)}" for k, v in named.items())
        try:
            config = base.replace(**named)
            find_architecture(config.model.architecture)
        except InputError as error:
            raise InputError(f"grid: point {name}: {error}") from error
        points.append(GridPoint(name.replace("/", "_"), named, config))
    counts_with = {
        **_COUNTS_WITH,
        "conductor_sizes": ("architecture", architectures_with("conductor_sizes")),
    }
    for axis in axes:
        other, needed = counts_with.get(axis.name, ("", ()))
        found = {point.config.flat()[other] for point in points} if other else set()
        if other and not found & set(needed):
            raise InputError(
                f"grid: {axis.name} has no effect with {other}={', '.join(sorted(found))}; "
                f"it needs {' or '.join(needed)}"
            )
    return points

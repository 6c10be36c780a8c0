"""The axes of a sweep, written NAME=v1,v2, and the configurations of its points."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from musicvae_jax.config import Config, InputError, field_types
from musicvae_jax.models.registry import architectures_of, architectures_with, find_architecture

# Fields that only have an effect with certain values of another: field -> (other, its values).
_DEPENDS_ON: dict[str, tuple[str, tuple[str, ...]]] = {
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
    """A configuration field and its values, in the given order."""

    name: str
    values: tuple[Any, ...]


class Point(NamedTuple):
    """One combination of values.

    Attributes:
      name: name of the point and of its folder, for example "beta=0.1,free_bits=48".
      values: value of each axis.
      config: configuration with these values.
    """

    name: str
    values: dict[str, Any]
    config: Config


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    """Parse axes; layer sizes are joined with "+": encoder_sizes=128,256+256.

    Raises:
      InputError: there is no axis, an axis occurs twice, a name is not a field, or a value has the
        wrong type or occurs twice.
    """
    if not texts:
        raise InputError("sweep: no axis is given; write for example --grid=beta=0.1,0.2")
    axes: list[Axis] = []
    for text in texts:
        name, equals, listed = text.partition("=")
        name = name.strip()
        values = [value.strip() for value in listed.split(",") if value.strip()]
        if not equals or not values:
            raise InputError(
                f"sweep: axis {text!r} has no values; write for example --grid=beta=0.1,0.2"
            )
        _check_name(name)
        if any(axis.name == name for axis in axes):
            raise InputError(f"sweep: there are two axes {name}; give all values in one")
        axes.append(Axis(name, tuple(_value(name, value) for value in values)))
        twice = [v for v in axes[-1].values if axes[-1].values.count(v) > 1]
        if twice:
            raise InputError(f"sweep: {name} has the value {shown(twice[0])} twice")
    return axes


def _check_name(name: str) -> None:
    """Check that a configuration field has this name."""
    known = field_types()
    if name in known:
        return
    if name == "task":
        raise InputError("sweep: task cannot be an axis; run one sweep per task")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; see --help for the fields"
    raise InputError(f"sweep: no configuration field is named {name!r}{hint}")


_BOOLEANS = {"0": False, "1": True, "false": False, "true": True}


def _value(name: str, text: str) -> Any:
    """Parse one value of a field."""
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
        raise InputError(f"sweep: {name}={text} is not {right}") from error


def shown(value: Any) -> str:
    """Format a value as `parse_axes` reads it."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _check_architecture(config: Config) -> None:
    """Check that the architecture exists and models rows of the task."""
    name, fitting = config.model.architecture, architectures_of(config.task)
    reads = find_architecture(name).reads
    if name not in fitting:
        raise InputError(
            f"architecture: {name} models {' and '.join(reads)}, the task is {config.task}; use "
            f"one of {', '.join(fitting)}"
        )


def make_points(base: Config, axes: Sequence[Axis]) -> list[Point]:
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
            _check_architecture(config)
        except InputError as error:
            raise InputError(f"sweep: point {name}: {error}") from error
        points.append(Point(name.replace("/", "_"), named, config))
    for axis in axes:
        needs = [("architecture", architectures_with(axis.name))]
        if axis.name in _DEPENDS_ON:
            needs.append(_DEPENDS_ON[axis.name])
        for other, needed in needs:
            found = {point.config.flat()[other] for point in points}
            if not found & set(needed):
                raise InputError(
                    f"sweep: {axis.name} has no effect with {other}={', '.join(sorted(found))}; "
                    f"it needs {' or '.join(needed)}"
                )
    return points

"""The fields of a request: parsed from JSON, each checked for its type and range.

    fields = Fields.parse(body)
    num, seed = fields.integer("num", 1, 16), fields.integer("seed", 0, LARGEST_SEED)
    fields.finish()

Every fault is a `RefusedError` of status 400 whose message begins with the field's name.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from experiments.studio.errors import WRONG_VALUE, RefusedError


class Fields:
    """The fields of one JSON object; each is taken once, and none may be left over."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = dict(values)

    @classmethod
    def parse(cls, body: bytes) -> Fields:
        """Parse the body of a request.

        Raises:
          RefusedError: it is not a JSON object, or holds NaN, Infinity or numbers out of range.
        """
        try:
            values = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        except RecursionError:
            raise wrong("body: it is nested too deeply") from None
        except ValueError as error:  # also wrong UTF-8, and integers of thousands of digits
            raise wrong(f"body: it must be JSON: {error}") from None
        if not isinstance(values, dict):
            raise wrong(f"body: it must be a JSON object, not {_kind(values)}")
        return cls(values)

    def take(self, name: str) -> Any:
        """Take a field of any type."""
        if name not in self._values:
            raise wrong(f"{name}: it is missing")
        return self._values.pop(name)

    def optional(self, name: str) -> bool:
        """Tell whether a field is there and not null; a null is removed."""
        if self._values.get(name) is None:
            self._values.pop(name, None)
        return name in self._values

    def integer(self, name: str, low: int, high: int) -> int:
        """Take a whole number from low to high."""
        return check_integer(name, self.take(name), low, high)

    def number(self, name: str, low: float, high: float) -> float:
        """Take a number from low to high."""
        return check_number(name, self.take(name), low, high)

    def boolean(self, name: str) -> bool:
        """Take true or false."""
        value = self.take(name)
        if not isinstance(value, bool):
            raise wrong(f"{name}: it must be true or false, not {_kind(value)}")
        return value

    def text(self, name: str, longest: int = 200) -> str:
        """Take a text of at most `longest` characters."""
        return check_text(name, self.take(name), longest)

    def items(self, name: str, low: int, high: int) -> list[Any]:
        """Take a list of low to high items."""
        value = self.take(name)
        if not isinstance(value, list):
            raise wrong(f"{name}: it must be a list, not {_kind(value)}")
        if not low <= len(value) <= high:
            raise wrong(f"{name}: it has {len(value)} items, it must have {low} to {high}")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Take an object."""
        return check_mapping(name, self.take(name))

    def finish(self) -> None:
        """Refuse fields that were not taken."""
        for name in self._values:
            raise wrong(f"{name[:50]}: there is no such field")


def wrong(message: str) -> RefusedError:
    """Return the error of a wrong value."""
    return RefusedError(WRONG_VALUE, message)


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """Return a whole number from low to high."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(f"{name}: it must be a whole number, not {_kind(value)}")
    if not low <= value <= high:
        raise wrong(f"{name}: it is out of range, it must be from {low} to {high}")
    return value


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return a finite number from low to high."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"{name}: it must be a number, not {_kind(value)}")
    # A comparison first: a huge integer has no float.
    if not low <= value <= high or not math.isfinite(value):
        raise wrong(f"{name}: it is out of range, it must be from {low:g} to {high:g}")
    return float(value)


def check_text(name: str, value: Any, longest: int) -> str:
    """Return a text of printable characters."""
    if not isinstance(value, str):
        raise wrong(f"{name}: it must be a text, not {_kind(value)}")
    if len(value) > longest or not value.isprintable():
        raise wrong(f"{name}: it must be of at most {longest} printable characters")
    return value


def check_mapping(name: str, value: Any) -> dict[str, Any]:
    """Return an object."""
    if not isinstance(value, dict):
        raise wrong(f"{name}: it must be an object, not {_kind(value)}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _kind(value: Any) -> str:
    """Name the JSON type of a value."""
    names: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")

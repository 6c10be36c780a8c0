"""Charts of a sweep as SVG text: heat maps, curves, points. Equal values give equal text."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

COLOURS = (
    "#1f6fb4",
    "#c8553d",
    "#2e8b57",
    "#8e5ea2",
    "#b8860b",
    "#3c3c3c",
    "#d6618f",
    "#1b9e9e",
)
_TEXT, _LINE = "#444", "#d8dce2"
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 16.0, 12.0, 42.0

Points = Sequence[tuple[float, float]]


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-label="{html.escape(label, quote=True)}" '
        f'font-family="system-ui, sans-serif">{"".join(parts)}</svg>'
    )


def _text(
    x: float, y: float, words: str, anchor: str = "start", colour: str = _TEXT, turn: float = 0
) -> str:
    turned = f' transform="rotate({turn:g} {x:.5g} {y:.5g})"' if turn else ""
    return (
        f'<text x="{x:.5g}" y="{y:.5g}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="12"{turned}>{html.escape(words)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = _LINE, more: str = "") -> str:
    return (
        f'<line x1="{x1:.5g}" y1="{y1:.5g}" x2="{x2:.5g}" y2="{y2:.5g}" stroke="{colour}"{more}/>'
    )


def _stroke(n: int) -> str:
    """Return how line n is drawn: dashed where the colours begin again."""
    return ' stroke-width="1.6"' + (' stroke-dasharray="5 3"' if n >= len(COLOURS) else "")


def heat_map(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str, names: str
) -> str:
    """Draw a matrix: dark is high, the number is in the cell.

    Args:
      values: [R, C] float; NaN leaves a cell empty.
      rows: what the R rows are, from above.
      columns: what the C columns are.
      label: what the values are.
      names: of the two axes, "row name x column name".
    """
    wide, tall, left, top = 74.0, 34.0, 16.0 + 8 * max(map(len, rows)), 24.0
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    digits = 0 if np.all(finite == np.round(finite)) else 3 if np.abs(finite).max() < 10 else 1
    parts = [
        _text(left + (c + 0.5) * wide, top - 8, name, "middle") for c, name in enumerate(columns)
    ]
    for r, name in enumerate(rows):
        parts.append(_text(left - 8, top + (r + 0.5) * tall + 4, name, "end"))
        for c in range(len(columns)):
            place = (left + c * wide, top + r * tall, wide, tall)
            parts.append(_cell(place, float(values[r, c]), (float(low), float(high)), digits))
    width, height = left + wide * len(columns) + 4, top + tall * len(rows) + 24
    parts.append(_text(4, height - 6, names))
    return _svg(max(width, 8 * len(names)), height, label, parts)


def _cell(
    place: tuple[float, float, float, float],
    value: float,
    limits: tuple[float, float],
    digits: int,
) -> str:
    """Draw a cell of a heat map: place is x, y, width and height."""
    (x, y, width, height), (low, high) = place, limits
    share = (value - low) / (high - low) if high > low else 0.5
    if not math.isfinite(value):
        colour, words, ink = "#f3f4f6", "-", _TEXT
    else:
        pale, dark = (234, 241, 248), (16, 78, 139)
        mixed = [round(a + (b - a) * share) for a, b in zip(pale, dark, strict=True)]
        colour, ink = f"rgb({mixed[0]},{mixed[1]},{mixed[2]})", "#fff" if share > 0.5 else "#222"
        words = f"{value:.{digits}f}"
    box = (
        f'<rect x="{x:.5g}" y="{y:.5g}" width="{width - 2:.5g}" height="{height - 2:.5g}" '
        f'fill="{colour}"/>'
    )
    return box + _text(x + width / 2 - 1, y + height / 2 + 3, words, "middle", ink)


class _Plane:
    """Axes with ticks, and where values come to lie."""

    def __init__(self, lines: Sequence[Points], size: tuple[float, float]) -> None:
        self.width, self.height = size
        points = [p for line in lines for p in line if all(map(math.isfinite, p))]
        xs, ys = [p[0] for p in points] or [0.0], [p[1] for p in points] or [0.0]
        self._x, self._y = _range(xs), _range(ys)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point is drawn."""
        (x0, x1), (y0, y1) = self._x, self._y
        across = (x - x0) / (x1 - x0) * (self.width - _LEFT - _RIGHT)
        up = (y - y0) / (y1 - y0) * (self.height - _TOP - _BOTTOM)
        return _LEFT + across, self.height - _BOTTOM - up

    def frame(self, x_name: str, y_name: str) -> list[str]:
        """Draw lines, numbers and names of both axes."""
        right, bottom = self.width - _RIGHT, self.height - _BOTTOM
        parts = []
        for value in _ticks(*self._y):
            y = self.place(self._x[0], value)[1]
            parts += [_line(_LEFT, y, right, y), _text(_LEFT - 6, y + 4, f"{value:g}", "end")]
        for value in _ticks(*self._x):
            x = self.place(value, self._y[0])[0]
            parts += [
                _line(x, bottom, x, bottom + 4, _TEXT),
                _text(x, bottom + 17, f"{value:,g}", "middle"),
            ]
        middle = (_TOP + bottom) / 2
        parts += [_line(_LEFT, bottom, right, bottom, _TEXT)]
        parts += [_text((_LEFT + right) / 2, self.height - 6, x_name, "middle")]
        return [*parts, _text(14, middle, y_name, "middle", turn=-90)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return limits a little beyond the values."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Return four to nine round numbers within limits."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    while (high - low) / step > 9:
        step *= 2.5 if f"{step:e}".startswith("2") else 2
    first = math.ceil(low / step)
    return [round(n * step, 10) for n in range(first, math.floor(high / step) + 1)]


def curves(lines: Mapping[str, Points], x_name: str, y_name: str, label: str) -> str:
    """Draw a line for each name, with a legend below.

    Args:
      lines: points (x, y) in order; values that are not finite are left out.
      x_name: of the axis across.
      y_name: of the axis up.
      label: what is drawn.
    """
    plane = _Plane(list(lines.values()), (540.0, 330.0))
    parts = plane.frame(x_name, y_name)
    for n, (name, points) in enumerate(lines.items()):
        placed = [plane.place(*p) for p in points if all(map(math.isfinite, p))]
        path = " ".join(f"{x:.5g},{y:.5g}" for x, y in placed)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{COLOURS[n % len(COLOURS)]}"'
            f"{_stroke(n)}><title>{html.escape(name)}</title></polyline>"
        )
    return _with_legend(plane, parts, list(lines), label)


def scatter(groups: Mapping[str, dict[str, tuple[float, float]]], names: tuple[str, str]) -> str:
    """Draw named points; those of a group are joined in the order of x.

    Args:
      groups: for each group its points (x, y) by name.
      names: of the axis across and of the axis up.
    """
    plane = _Plane([list(points.values()) for points in groups.values()], (640.0, 420.0))
    parts = plane.frame(*names)
    for n, points in enumerate(groups.values()):
        colour = COLOURS[n % len(COLOURS)]
        order = sorted(points, key=lambda name: points[name])
        placed = {name: plane.place(*points[name]) for name in order}
        path = " ".join(f"{x:.5g},{y:.5g}" for x, y in placed.values())
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>'
        )
        for name, (x, y) in placed.items():
            parts.append(
                f'<circle cx="{x:.5g}" cy="{y:.5g}" r="4.5" fill="{colour}">'
                f"<title>{html.escape(name)}</title></circle>"
            )
            short, near_edge = name.split(",")[0], x > 0.85 * plane.width
            place = (x - 7, y - 6) if near_edge else (x + 7, y - 5)
            parts.append(_text(*place, short, "end" if near_edge else "start", colour))
    return _with_legend(plane, parts, list(groups), f"{names[1]} over {names[0]}")


def _with_legend(plane: _Plane, parts: list[str], names: Sequence[str], label: str) -> str:
    """Close a chart with what its colours mean."""
    y, x = plane.height + 14, 8.0
    for n, name in enumerate(names):
        wide = 30 + 7.2 * len(name)
        if x + wide > plane.width and n:
            x, y = 8.0, y + 18
        parts.append(_line(x, y - 4, x + 18, y - 4, COLOURS[n % len(COLOURS)], _stroke(n)))
        parts.append(_text(x + 22, y, name))
        x += wide
    return _svg(plane.width, y + 8, label, parts)

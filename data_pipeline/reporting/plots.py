"""Plots as SVG text: distributions over each other, intervals, lines, points, matrices."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.reporting.charts import GRID_COLOUR, rect, svg, text

# In order of use: the first is what others are compared with.
COLOURS = ("#9aa5b1", "#1f6fb4", "#c8553d", "#3f9b62", "#7a5ca8")


class Line(NamedTuple):
    """One line of a plot: y [N], and the half width of a band around it [N] or None."""

    y: np.ndarray
    band: np.ndarray | None = None


def distributions(
    shares: Mapping[str, np.ndarray],
    label: str,
    labels: Sequence[str],
    *,
    width: float = 340,
    height: float = 130,
) -> str:
    """Draw distributions over the same bins: the first as columns, the others as outlines.

    Args:
      shares: name to [G], from 0 to 1.
      label: what is shown.
      labels: G names of the bins, some of which are written.
      width: pixels.
      height: pixels.
    """
    left, bottom = 34.0, 16.0
    most = max([float(values.max(initial=0.0)) for values in shares.values()] + [1e-9])
    room = height - bottom - 6
    step = (width - left) / max(len(labels), 1)
    parts = []
    for part in (0.5, 1.0):
        y = height - bottom - part * room
        parts += [rect(left, y, width - left, 0.6, GRID_COLOUR)]
        parts += [text(left - 3, y + 4, f"{part * most:.0%}", "end", 9)]
    for number, (name, values) in enumerate(shares.items()):
        tops = height - bottom - values / most * room
        if number == 0:
            for i, top in enumerate(tops.tolist()):
                title = f"{name}, {labels[i]}: {values[i]:.1%}"
                bar = (left + i * step, top, step * 0.92, height - bottom - top)
                parts.append(rect(*bar, COLOURS[0], title))
            continue
        points = [(left + (i + side) * step, top) for i, top in enumerate(tops) for side in (0, 1)]
        parts.append(_path(points, COLOURS[number % len(COLOURS)]))
    every = max(1, -(-len(labels) // 9))
    for i in range(0, len(labels), every):
        parts.append(text(left + (i + 0.5) * step, height - 3, labels[i], "middle", 9))
    return svg(width, height, label, parts)


def intervals(
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]],
    label: str,
    *,
    low: float = 0.0,
    high: float = 1.0,
    width: float = 680,
) -> str:
    """Draw value and interval of several sets, a line for each measure.

    Args:
      rows: measure to set to (value, low, high); the first set is drawn as a band.
      label: what is shown.
      low: left end of the axis.
      high: right end of the axis.
      width: pixels.
    """
    left, row, right = 320.0, 20.0, 14.0
    height = row * len(rows) + 18

    def place(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (width - left - right)

    parts = []
    for tick in np.linspace(low, high, 6).tolist():
        parts.append(rect(place(tick), 0, 0.6, row * len(rows), GRID_COLOUR))
        parts.append(text(place(tick), height - 4, f"{tick:.2f}", "middle", 9))
    for number, (name, sets) in enumerate(rows.items()):
        middle = row * number + row / 2
        parts.append(text(left - 8, middle + 4, name, "end", 10))
        for which, (of, (value, lower, upper)) in enumerate(sets.items()):
            if not np.isfinite(value):
                continue
            title = f"{of}: {value:.3f} [{lower:.3f}, {upper:.3f}]"
            colour = COLOURS[which % len(COLOURS)]
            x, length = place(lower), max(place(upper) - place(lower), 1.0)
            if which == 0:
                parts.append(rect(x, middle - 7, length, 14, "#d8dde3", title))
                parts.append(rect(place(value) - 0.75, middle - 7, 1.5, 14, colour, title))
                continue
            y = middle + (which - (len(sets) - 1) / 2 - 0.5) * 6
            parts.append(rect(x, y - 0.9, length, 1.8, colour, title))
            parts.append(rect(place(value) - 2.5, y - 2.5, 5, 5, colour, title))
    return svg(width, height, label, parts)


def lines(
    x: np.ndarray,
    series: Mapping[str, Line],
    label: str,
    axes: tuple[str, str],
    *,
    width: float = 420,
    height: float = 240,
) -> str:
    """Draw lines over a common x [N], with bands and a legend; axes names x and y."""
    left, bottom, top = 46.0, 30.0, 8.0 + 13 * len(series)
    every = [line.y + side * (line.band if line.band is not None else 0)
             for line in series.values() for side in (-1, 1)]  # fmt: skip
    low, high = (float(f(np.concatenate(every))) for f in (np.min, np.max))
    low = min(low, 0.0) if low < 0.35 * high else low - 0.05 * (high - low + 1e-9)
    span = max(high - low, 1e-9)

    def at(i: int, y: float) -> tuple[float, float]:
        across = (x[i] - x[0]) / max(float(x[-1] - x[0]), 1e-9)
        down = (high - y) / span
        return left + across * (width - left - 10), top + down * (height - top - bottom)

    parts = []
    for tick in np.linspace(low, high, 5).tolist():
        y = at(0, tick)[1]
        parts += [rect(left, y, width - left - 10, 0.6, GRID_COLOUR)]
        parts += [text(left - 4, y + 4, f"{tick:.3g}", "end", 9)]
    for i in np.linspace(0, len(x) - 1, min(len(x), 6)).round().astype(int).tolist():
        parts.append(text(at(i, low)[0], height - bottom + 12, f"{x[i]:.2g}", "middle", 9))
    for number, (name, line) in enumerate(series.items(), start=1):
        colour = COLOURS[number % len(COLOURS)]
        if line.band is not None:
            upper = [at(i, y) for i, y in enumerate((line.y + line.band).tolist())]
            lower = [at(i, y) for i, y in enumerate((line.y - line.band).tolist())]
            outline = " ".join(f"{a:.2f},{b:.2f}" for a, b in upper + lower[::-1])
            parts.append(f'<polygon points="{outline}" fill="{colour}" opacity="0.2"/>')
        parts.append(_path([at(i, y) for i, y in enumerate(line.y.tolist())], colour))
        parts.append(rect(left, 13 * number - 9, 12, 3, colour))
        parts.append(text(left + 17, 13 * number - 4, name, "start", 10))
    parts.append(text((left + width) / 2, height - 4, axes[0], "middle", 10))
    parts.append(text(4, height - 4, axes[1], "start", 10))
    return svg(width, height, label, parts)


def points(
    places: np.ndarray, values: np.ndarray, label: str, scale: str, *, size: float = 380
) -> str:
    """Draw points [N, 2] coloured by values [N]; `scale` names the values under a colour bar."""
    low, high = places.min(axis=0), places.max(axis=0)
    unit = (places - low[None, :]) / np.maximum(high - low, 1e-9)[None, :]
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    parts = [rect(0, 0, size, size, "#fafbfc")]
    for (x, y), value in zip(unit.tolist(), values.tolist(), strict=True):
        colour = _shade((value - least) / max(most - least, 1e-9))
        place = f'cx="{8 + x * (size - 16):.4g}" cy="{size - 8 - y * (size - 16):.4g}"'
        title = f"<title>{value:.3g}</title>"
        parts.append(f'<circle {place} r="2.6" fill="{colour}" opacity="0.8">{title}</circle>')
    for i in range(60):
        parts.append(rect(60 + 3 * i, size + 8, 3.1, 9, _shade(i / 59)))
    parts.append(text(54, size + 16, f"{least:.3g}", "end", 10))
    parts.append(text(246, size + 16, f"{most:.3g}  {scale}", "start", 10))
    return svg(size, size + 22, label, parts)


def matrix(
    values: np.ndarray, label: str, *, low: float = 0.0, high: float = 1.0, size: float = 240
) -> str:
    """Draw a matrix [U, U] as shades from low to high, with numbers from 1 on both sides."""
    margin = 16.0
    cell = (size - margin) / len(values)
    parts = []
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            colour = _shade((value - low) / max(high - low, 1e-9))
            place = (margin + j * cell, margin + i * cell, cell * 0.98, cell * 0.98)
            parts.append(rect(*place, colour, f"{i + 1}, {j + 1}: {value:.2f}"))
        if i % 4 == 0:
            middle = margin + (i + 0.5) * cell
            parts.append(text(middle, margin - 4, str(i + 1), "middle", 9))
            parts.append(text(margin - 3, middle + 3, str(i + 1), "end", 9))
    return svg(size, size, label, parts)


def standalone(pictures: Sequence[str], size: tuple[float, float]) -> str:
    """Put pictures of one size side by side into a file of their own."""
    width, height = size
    placed = "".join(
        f'<g transform="translate({i * (width + 20):g} 0)">{one}</g>'
        for i, one in enumerate(pictures)
    )
    whole = len(pictures) * (width + 20) - 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:g} {height:g}" '
        f'width="{whole:g}" height="{height:g}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="#fff"/>{placed}</svg>\n'
    )


def legend(names: Sequence[str]) -> str:
    """Write which colour is which set, as in `distributions` and `intervals`."""
    spots = [
        f'<span style="display:inline-block;width:1em;height:0.7em;background:{colour}"></span> '
        f"{html.escape(name)}"
        for name, colour in zip(names, COLOURS, strict=False)
    ]
    return f"<p>{' &nbsp; '.join(spots)}</p>"


def _path(corners: Sequence[tuple[float, float]], colour: str) -> str:
    """Draw a line through points."""
    along = " ".join(f"{x:.2f},{y:.2f}" for x, y in corners)
    return f'<polyline points="{along}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _shade(part: float) -> str:
    """Return a colour between pale (0) and dark blue (1), alike to all kinds of eyes."""
    part = min(max(part, 0.0), 1.0) if np.isfinite(part) else 0.0
    ends = ((255, 247, 205), (90, 170, 160), (20, 40, 110))
    first, second = ends[:2] if part < 0.5 else ends[1:]
    share = part * 2 if part < 0.5 else part * 2 - 1
    mixed = [round(a + (b - a) * share) for a, b in zip(first, second, strict=True)]
    return "#" + "".join(f"{value:02x}" for value in mixed)

"""Charts of numbers: SVG text for pages, PNG files. Equal values give equal bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_pipeline.atomic_write import write_whole
from data_pipeline.render import style
from data_pipeline.render.style import BLUE, COLOURS, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of per cent end here, so that one huge value does not bleach all others.
MAX_COLOUR_PERCENT = 100.0


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
      x: [N].
      y: [N]; values that are not finite leave gaps.
      band: [N], half the height of a band around the line, or None.
    """

    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    band: np.ndarray | None = None


class Panel(NamedTuple):
    """Lines by name over common axes, and the axes' names."""

    lines: Mapping[str, Line]
    x_name: str
    y_name: str


@style.applied()
def bars(counts: Mapping[str, int], label: str, *, width: float = 420) -> str:
    """Draw a horizontal bar for each name, with its count."""
    figure, axes = style.new_axes(width, 8 + 18 * max(len(counts), 1))
    names = [name if len(name) <= 40 else f"{name[:39]}…" for name in counts]
    drawn = axes.barh(range(len(names)), list(counts.values()), height=0.66, color=BLUE)
    axes.bar_label(drawn, [f"{count:,}" for count in counts.values()], padding=4)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(0, 1.2 * max([*counts.values(), 1])), ylim=(max(len(names), 1) - 0.5, -0.5))
    axes.xaxis.set_visible(False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return style.svg(figure, label)


@style.applied()
def histogram(
    counts: np.ndarray, label: str, ticks: Mapping[int, str], *, colour: str = BLUE
) -> str:
    """Draw counts [N] as columns, in per cent of their sum, with words below some of them."""
    figure, axes = style.new_axes(340, 150)
    _columns(axes, counts / max(int(counts.sum()), 1), colour)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlim(-0.6, len(counts) - 0.4)
    axes.yaxis.set_major_formatter(_percent)
    return style.svg(figure, label)


@style.applied()
def distributions(shares: Mapping[str, np.ndarray], label: str, names: Sequence[str]) -> str:
    """Draw distributions over the same bins: the first as columns, the others as outlines.

    Args:
      shares: name of the set to [G], from 0 to 1.
      label: what is shown.
      names: G names of the bins, of which about nine are written.
    """
    figure, axes = style.new_axes(340, 150)
    edges = np.arange(len(names) + 1) - 0.5
    for number, values in enumerate(shares.values()):
        colour = COLOURS[number % len(COLOURS)]
        if number == 0:
            _columns(axes, values, colour)
        else:
            axes.stairs(values, edges, color=colour, linewidth=1.6, baseline=None)
    every = -(-len(names) // 9)
    axes.set_xticks(range(0, len(names), every), names[::every])
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_percent)
    return style.svg(figure, label)


def _columns(axes: Axes, values: np.ndarray, colour: str) -> None:
    """Draw values [N] as columns at 0 to N - 1: one shape, many bars take far longer."""
    edges = np.arange(len(values))[:, None] + np.array([[-0.46, 0.46]])
    heights = np.stack([values, np.zeros_like(values)], axis=1).ravel()[:-1]
    axes.stairs(heights, edges.ravel(), fill=True, color=colour, linewidth=0)


@style.applied()
def intervals(
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]], label: str, low: float
) -> str:
    """Draw value and interval of several sets, a line for each measure.

    Args:
      rows: measure to set to (value, low, high); the first set is drawn as a band, and what is
        not finite is left out.
      label: what is shown.
      low: left end of the axis, which ends at 1.
    """
    figure, axes = style.new_axes(560, 30 + 21 * len(rows))
    for place, sets in enumerate(rows.values()):
        for which, (value, lower, upper) in enumerate(sets.values()):
            colour = COLOURS[which % len(COLOURS)]
            if not np.isfinite(value):
                continue
            if which == 0:
                axes.barh(place, upper - lower, 0.7, left=lower, color=colour, alpha=0.4)
                axes.plot([value, value], [place - 0.35, place + 0.35], color=colour)
                continue
            y = place + 0.28 * (which - len(sets) / 2)
            axes.plot([lower, upper], [y, y], color=colour)
            axes.plot(value, y, "s", color=colour, markersize=4)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(low - 0.01, 1.01))
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    return style.svg(figure, label)


@style.applied()
def curves(label: str, *panels: Panel, width: float = 460, height: float = 230) -> str:
    """Draw panels of lines side by side, each with its legend above."""
    return style.svg(_draw_curves(panels, width, height), label)


@style.applied()
def curves_png(
    path: str | os.PathLike[str], *panels: Panel, width: float = 460, height: float = 230
) -> None:
    """Write what `curves` draws as a PNG file."""
    write_whole(path, style.png(_draw_curves(panels, width, height)))


def _draw_curves(panels: Sequence[Panel], width: float, height: float) -> Figure:
    """Draw panels of lines side by side."""
    rows = max(_legend_shape(panel, width)[0] for panel in panels)
    figure = style.new_figure(width * len(panels), height + 14 * rows, layout="constrained")
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for n, (name, line) in enumerate(panel.lines.items(), start=1):
            colour = COLOURS[1:][(n - 1) % (len(COLOURS) - 1)]
            # Dashed where the colours begin again.
            axes.plot(line.x, line.y, "-" if n < len(COLOURS) else "--", color=colour, label=name)
            if line.band is not None:
                low, high = line.y - line.band, line.y + line.band
                axes.fill_between(line.x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel=panel.x_name, ylabel=panel.y_name)
        if len(panel.lines) > 1:
            _add_legend(axes, _legend_shape(panel, width)[1])
    return figure


def _legend_shape(panel: Panel, width: float) -> tuple[int, int]:
    """Return how many rows and columns the legend of a panel has."""
    count = len(panel.lines)
    columns = int((width - 50) / (36 + 5.6 * max(map(len, panel.lines), default=1)))
    columns = max(1, min(columns, count))
    return (-(-count // columns) if count > 1 else 0), columns


def _add_legend(axes: Axes, columns: int) -> None:
    """Put the legend above the lines, where it covers nothing."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.2,
        columnspacing=1.2,
        labelspacing=0.2,
    )


@style.applied()
def scatter(groups: Mapping[str, Mapping[str, tuple[float, float]]], names: tuple[str, str]) -> str:
    """Draw named points; those of a group are joined in the order of x.

    Args:
      groups: for each group its points (x, y) by name.
      names: of the axis across and of the axis up.
    """
    figure, axes = style.new_axes(640, 400)
    for n, (group, points) in enumerate(groups.items()):
        colour = COLOURS[1:][n % (len(COLOURS) - 1)]
        x, y = zip(*sorted(points.values()), strict=True)
        axes.plot(x, y, "o-", color=colour, label=group, linewidth=0.8, markersize=5)
        for name, place in points.items():
            axes.annotate(name, place, (6, 4), textcoords="offset points", color=colour, fontsize=8)
    axes.margins(x=0.12)
    axes.set(xlabel=names[0], ylabel=names[1])
    if len(groups) > 1:
        _add_legend(axes, 4)
    return style.svg(figure, f"{names[1]} over {names[0]}")


@style.applied()
def points(places: np.ndarray, values: np.ndarray, label: str, scale: str) -> str:
    """Draw points [N, 2] coloured by values [N]; `scale` names the values under a colour bar."""
    figure, axes = style.new_axes(380, 400)
    drawn = axes.scatter(
        places[:, 0], places[:, 1], s=14, c=values, cmap="YlGnBu", alpha=0.8, linewidths=0
    )
    axes.set_xticks([])
    axes.set_yticks([])
    bar = figure.colorbar(drawn, location="bottom", shrink=0.6, aspect=30, label=scale)
    bar.outline.set_visible(False)
    return style.svg(figure, label)


@style.applied()
def matrix(values: np.ndarray, label: str, low: float, high: float) -> str:
    """Draw a matrix [U, U] as shades from low to high, numbered from 1 on both sides."""
    figure, axes = style.new_axes(240, 240)
    _draw_cells(axes, values, None, "YlGnBu", (low, high))
    numbers = range(0, len(values), 4)
    axes.set_xticks(numbers, [str(n + 1) for n in numbers])
    axes.set_yticks(numbers, [str(n + 1) for n in numbers])
    axes.xaxis.tick_top()
    return style.svg(figure, label)


@style.applied()
def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    names: tuple[str, str],
) -> str:
    """Draw a matrix with its numbers: dark is high.

    Args:
      values: [R, C] float; NaN is drawn as a grey "-".
      rows: R names, from above.
      columns: C names.
      label: what the values are.
      names: what the rows and the columns are.
    """
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    digits = 0 if np.all(finite == np.round(finite)) else 3 if np.abs(finite).max() < 10 else 1
    width = 24 + 6 * max(map(len, rows)) + 62 * len(columns)
    figure, axes = style.new_axes(width, 46 + 30 * len(rows))
    words = [[f"{v:.{digits}f}" if np.isfinite(v) else "-" for v in line] for line in values]
    _draw_cells(axes, values, words, "Blues", (low, high if high > low else low + 1))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(ylabel=names[0], xlabel=names[1])
    return style.svg(figure, label)


@style.applied()
def percent_heatmaps_png(
    path: str | os.PathLike[str],
    panels: Mapping[str, np.ndarray],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    row_label: str,
    column_label: str,
) -> None:
    """Draw matrices of changes in per cent side by side, red for less and blue for more.

    Args:
      path: PNG file to write.
      panels: title to [R, C]; NaN is drawn as a grey "-". The greatest change of a row is framed.
      rows: R names.
      columns: C names.
      row_label: what the rows are.
      column_label: what the columns are.
    """
    from matplotlib.patches import Rectangle

    size = ((115 + 61 * len(columns)) * len(panels), 115 + 36 * len(rows))
    figure = style.new_figure(*size, layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    limits = (-MAX_COLOUR_PERCENT, MAX_COLOUR_PERCENT)
    for axes, (title, values) in zip(grid, panels.items(), strict=True):
        words = [[f"{v:+.0f}%" if np.isfinite(v) else "-" for v in line] for line in values]
        _draw_cells(axes, values, words, "RdBu", limits)
        for row, line in enumerate(values):
            if np.isfinite(line).any():
                column = int(np.nanargmax(np.abs(line)))
                frame = Rectangle(
                    (column - 0.47, row - 0.46), 0.94, 0.92, fill=False, linewidth=1.4
                )
                axes.add_patch(frame)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(columns)), [n.replace("_", "\n") for n in columns], fontsize=7)
        axes.set_xlabel(column_label, fontsize=8)
    grid[0].set_yticks(range(len(rows)), [n.replace("_", "\n") for n in rows], fontsize=7)
    grid[0].set_ylabel(row_label, fontsize=8)
    write_whole(path, style.png(figure))


def _draw_cells(
    axes: Axes,
    values: np.ndarray,
    words: Sequence[Sequence[str]] | None,
    colours: str,
    limits: tuple[float, float],
) -> None:
    """Draw a matrix as coloured cells, with words in them, white on dark ones."""
    x, y = (np.arange(size + 1) - 0.5 for size in values.shape[::-1])
    shown = np.ma.masked_invalid(values)
    drawn = axes.pcolormesh(x, y, shown, cmap=colours, edgecolors="white", linewidth=1)
    drawn.set_clim(*limits)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[-1], y[0]), facecolor="#eeeeee")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if words is None:
        return
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = drawn.cmap(drawn.norm(value))
        is_dark = np.isfinite(value) and 0.3 * red + 0.59 * green + 0.11 * blue < 0.62
        how: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 8}
        axes.text(column, row, words[row][column], color="white" if is_dark else TEXT, **how)


def _percent(value: float, place: float | None) -> str:
    """Write a share as a tick of an axis, with as many digits as it needs."""
    del place
    return f"{100 * value:.3g}%"

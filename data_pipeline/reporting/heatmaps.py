"""Tables of numbers as pictures: coloured cells with the numbers in them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.atomic_write import write_whole
from musicvae_jax.config import InputError

# Colours stop here, so that one huge cell does not bleach all others.
MAX_COLOUR_PERCENT = 100.0


def percent_heatmaps_png(
    path: str | os.PathLike[str],
    panels: Mapping[str, np.ndarray],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    row_label: str,
    column_label: str,
) -> None:
    """Draw matrices of per cent changes side by side, red for less and blue for more.

    Args:
      path: PNG file to write.
      panels: title to [R, C]; nan is drawn grey, "-".
      rows: R names.
      columns: C names.
      row_label: what the rows are.
      column_label: what the columns are.

    Raises:
      InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install 'musicvae-jax[demo]'") from error
    width = (1.6 + 0.85 * len(columns)) * len(panels)
    figure = Figure(figsize=(width, 1.6 + 0.5 * len(rows)), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        _draw(axis, values)
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(columns)), [_words(name) for name in columns], fontsize=7)
        axis.set_xlabel(column_label, fontsize=8)
    axes[0].set_yticks(range(len(rows)), [_words(name) for name in rows], fontsize=7)
    axes[0].set_ylabel(row_label, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def _draw(axis: Any, values: np.ndarray) -> None:
    """Draw one matrix; the greatest change of each row is framed."""
    shown = np.ma.masked_invalid(values)
    limit = MAX_COLOUR_PERCENT
    axis.imshow(shown, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    axis.set_facecolor("#dddddd")
    axis.tick_params(length=0)
    for (row, column), value in np.ndenumerate(values):
        known = bool(np.isfinite(value))
        colour = "white" if known and abs(value) > 0.7 * limit else "black"
        words = f"{value:+.0f}%" if known else "-"
        axis.text(column, row, words, ha="center", va="center", color=colour, fontsize=8)
    for row, line in enumerate(values):
        if np.isfinite(line).any():
            column = int(np.nanargmax(np.abs(line)))
            box = ([column - 0.47, column + 0.47], [row - 0.46, row + 0.46])
            x = [box[0][0], box[0][1], box[0][1], box[0][0], box[0][0]]
            y = [box[1][0], box[1][0], box[1][1], box[1][1], box[1][0]]
            axis.plot(x, y, color="black", linewidth=1.4)


def _words(name: str) -> str:
    """Write a name with a line per word."""
    return name.replace("_", "\n")

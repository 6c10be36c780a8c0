"""Rows of sound as WAV files and pictures, and a map of points in z by label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.atomic_write import write_whole
from data_pipeline.render import audio, style
from data_pipeline.render.pictures import MAX_PICTURED_ROWS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL_SCALE = 2**15
# Points of a waveform that a picture shows, each from the least to the greatest of its samples.
_POINTS = 600
_WIDTH, _HEIGHT = 330.0, 90.0  # of a waveform, points


def write_wav(path: str | os.PathLike[str], rows: np.ndarray, sample_rate: int) -> None:
    """Write a row [T] int16, or several [N, T] with half a second of silence between them."""
    rows = np.atleast_2d(rows)
    rest = np.zeros(sample_rate // 2, np.int16)
    parts = [part for row in rows for part in (rest, row)][1:]
    write_whole(path, audio.wav_bytes(np.concatenate(parts) / FULL_SCALE, sample_rate))


@style.applied()
def waveforms_png(
    path: str | os.PathLike[str],
    rows: np.ndarray,
    sample_rate: int,
    titles: Sequence[str],
    *,
    columns: int = 2,
) -> None:
    """Draw up to `MAX_PICTURED_ROWS` rows [N, T] int16 as waveforms over seconds.

    Args:
      path: PNG file to write.
      rows: [N, T] int16.
      sample_rate: samples per second.
      titles: one per row.
      columns: how many are drawn side by side.
    """
    shown = rows[:MAX_PICTURED_ROWS]
    lines = -(-len(shown) // columns)
    figure = style.new_figure(_WIDTH * columns, _HEIGHT * lines, layout="constrained")
    for place, (row, title) in enumerate(zip(shown, titles, strict=False), start=1):
        axes = figure.add_subplot(lines, columns, place)
        size = max(1, len(row) // _POINTS)
        parts = row[: len(row) // size * size].reshape(-1, size) / FULL_SCALE
        seconds = np.arange(len(parts)) * size / sample_rate
        axes.fill_between(
            seconds, parts.min(axis=1), parts.max(axis=1), color=style.BLUE, linewidth=0.5
        )
        axes.set_title(title, fontsize=8, loc="left")
        axes.set(ylim=(-1, 1), xlim=(0, len(row) / sample_rate), yticks=(-1, 0, 1))
    write_whole(path, style.png(figure))


@style.applied()
def map_png(
    path: str | os.PathLike[str], z: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> None:
    """Draw the first two dimensions of points in z, coloured by label.

    Args:
      path: PNG file to write.
      z: [N, Z] float; a Z of 1 is drawn on a line.
      labels: int [N], indices in `names`.
      names: of the labels.
    """
    write_whole(path, style.png(_draw_map(z, labels, names)))


def _draw_map(z: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw points with a legend of their labels."""
    figure, axes = style.new_axes(420, 320)
    markers = "os^D"
    colours = style.COLOURS[1:]
    for number, name in enumerate(names):
        points = z[labels == number]
        if not len(points):
            continue
        up = points[:, 1] if z.shape[1] > 1 else np.zeros(len(points))
        axes.scatter(
            points[:, 0],
            up,
            s=16,
            color=colours[number % len(colours)],
            marker=markers[number // len(colours) % len(markers)],
            label=name,
        )
    axes.set(xlabel="z 1", ylabel="z 2" if z.shape[1] > 1 else "")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure

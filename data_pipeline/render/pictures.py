"""Piano rolls of rows as PNG pictures, one style for all tasks."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.atomic_write import write_whole
from data_pipeline.codecs import drums, trio
from data_pipeline.codecs.words import pitch_name
from data_pipeline.render.sequences import decode
from data_pipeline.reporting.charts import COLOURS
from musicvae_jax.config import InputError
from musicvae_jax.tasks import DRUM_CLASS_NAMES, STEPS_PER_BAR, STEPS_PER_QUARTER, Task, get_task
from musicvae_jax.tokens import check_row

MAX_PICTURED_ROWS = 64
# With more bars only every second, third, ... is numbered, so that numbers do not overlap.
MAX_NUMBERED_BARS = 32

# Margins in inches: above all panels; inside a panel above its axes (title), left of them (names),
# below them (bar numbers), right of them, and between two axes.
_HEAD, _TITLE, _LABELS, _BELOW, _RIGHT, _BETWEEN = 0.4, 0.3, 0.75, 0.45, 0.15, 0.1


def piano_roll_png(
    path: str | os.PathLike[str],
    rows: Sequence[np.ndarray] | np.ndarray,
    task_name: str,
    titles: Sequence[str] | None = None,
    *,
    columns: int = 3,
    qpm: float | None = None,
) -> None:
    """Draw a group of rows as piano rolls in one picture, with bar lines.

    Drums are drawn by class. Of more than MAX_PICTURED_ROWS rows the first are drawn, and
    the picture says so.

    Args:
      path: PNG file to write.
      rows: rows of the task, at least one.
      task_name: key of `TASKS`.
      titles: one per row; None numbers them.
      columns: how many short rows are drawn side by side; long ones never are.
      qpm: quarters per minute to name on the picture; None names none.

    Raises:
      InputError: no rows, a row does not fit the task, or matplotlib is not installed.
    """
    task = get_task(task_name)
    checked = [check_row(row, task) for row in rows]
    if not checked:
        raise InputError("rows: there are none to draw")
    if titles is None:
        titles = [str(number) for number in range(1, len(checked) + 1)]
    if len(titles) != len(checked):
        raise InputError(f"titles: {len(titles)} for {len(checked)} rows")
    figure = _figure(checked[:MAX_PICTURED_ROWS], task, titles, columns)
    words = [] if qpm is None else [f"{qpm:g} quarters per minute"]
    if len(checked) > MAX_PICTURED_ROWS:
        words.insert(0, f"the first {MAX_PICTURED_ROWS} of {len(checked)}")
    if words:
        # 0.1 inches below the top. The default, a share of the height, would overlap the first
        # panel of a tall picture.
        y = 1 - 0.1 / figure.get_figheight()
        figure.suptitle(", ".join(words), y=y, va="top", fontsize=9)
    buffer = io.BytesIO()
    # No software name: equal rows give equal bytes, whichever version draws them alike.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def _figure(rows: list[np.ndarray], task: Task, titles: Sequence[str], columns: int) -> Any:
    """Lay out a panel per row; trios have pitches above drums in each.

    Axes are placed by arithmetic: matplotlib's constrained layout takes minutes for many panels.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install 'musicvae-jax[demo]'") from error
    wide = max(len(row) for row in rows) > 4 * STEPS_PER_BAR
    columns = 1 if wide else min(len(rows), columns)
    lines = -(-len(rows) // columns)
    panel_width, panel_height = (14.0 if wide else 4.6), (4.0 if len(task.tracks) == 3 else 2.2)
    width, height = panel_width * columns, panel_height * lines + _HEAD
    figure = Figure(figsize=(width, height), dpi=100)
    notes = [decode(row, task) for row in rows]
    # One range of pitches for the whole group, so that panels can be compared.
    limits = _pitch_limits(np.concatenate([part["pitch"][~part["is_drum"]] for part in notes]))
    kinds = list(dict.fromkeys(track.kind for track in task.tracks))
    for number, (row, part, title) in enumerate(zip(rows, notes, titles, strict=False)):
        line, column = divmod(number, columns)
        left, top = column * panel_width, height - _HEAD - line * panel_height
        boxes = _boxes(left, top, panel_width, panel_height, len(kinds))
        axes = [
            figure.add_axes((x / width, y / height, w / width, h / height)) for x, y, w, h in boxes
        ]
        _draw_row(axes, kinds, part, len(row), title, limits)
    return figure


def _boxes(
    left: float, top: float, width: float, height: float, num_axes: int
) -> list[tuple[float, float, float, float]]:
    """Divide a panel among its axes, the upper first: (left, bottom, width, height) in inches."""
    inner = height - _TITLE - _BELOW - _BETWEEN * (num_axes - 1)
    shares = [1.0] if num_axes == 1 else [5 / 9, 4 / 9]
    boxes = []
    y = top - _TITLE
    for share in shares:
        y -= inner * share
        boxes.append((left + _LABELS, y, width - _LABELS - _RIGHT, inner * share))
        y -= _BETWEEN
    return boxes


def _draw_row(
    axes: Sequence[Any],
    kinds: Sequence[str],
    notes: np.ndarray,
    num_steps: int,
    title: str,
    limits: tuple[int, int],
) -> None:
    """Draw one row's notes: pitches within limits, drums, or both one above the other."""
    axes[0].set_title(title, fontsize=9, loc="left")
    for axis, kind in zip(axes, kinds, strict=True):
        if kind == "drums":
            _draw_drums(axis, notes[notes["is_drum"]])
        else:
            _draw_pitches(axis, notes[~notes["is_drum"]], limits)
        _mark_bars(axis, num_steps)
        axis.tick_params(labelbottom=axis is axes[-1])
    if len(kinds) > 1:
        # Above the notes, beside the title, where it covers nothing.
        axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=7, frameon=False)
    axes[-1].set_xlabel("bar", fontsize=8)


def _mark_bars(axis: Any, num_steps: int) -> None:
    """Number the bars, draw their lines and faint ones for beats."""
    bars = np.arange(0, num_steps + 1, STEPS_PER_BAR)
    axis.set_xlim(0, num_steps)
    bars = bars[:-1] if num_steps % STEPS_PER_BAR == 0 else bars
    every = -(-len(bars) // MAX_NUMBERED_BARS)
    numbers = [str(n + 1) if n % every == 0 else "" for n in range(len(bars))]
    axis.set_xticks(bars, numbers, fontsize=7)
    axis.set_xticks(np.arange(0, num_steps, STEPS_PER_QUARTER), minor=True)
    axis.grid(axis="x", which="major", color="#888888", linewidth=0.9)
    axis.grid(axis="x", which="minor", color="#dddddd", linewidth=0.5)
    axis.tick_params(axis="x", which="minor", length=0)
    axis.set_axisbelow(True)


def _draw_pitches(axis: Any, notes: np.ndarray, limits: tuple[int, int]) -> None:
    """Draw notes as bars; the bass has its own colour."""
    is_bass = notes["instrument"] == trio.BASS_INSTRUMENT
    for name, part in (("melody", notes[~is_bass]), ("bass", notes[is_bass])):
        lengths = part["end_step"] - part["start_step"]
        axis.barh(
            part["pitch"],
            lengths - 0.15,  # so that two notes in a row are told apart
            left=part["start_step"],
            height=0.8,
            color=COLOURS[name],
            label=name,
        )
    low, high = limits
    axis.set_ylim(low - 0.5, high + 0.5)
    named = (0, 7) if high - low < 30 else (0,)
    ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 in named]
    axis.set_yticks(ticks)
    axis.set_yticklabels([pitch_name(pitch) for pitch in ticks], fontsize=7)
    axis.grid(axis="y", color="#eeeeee", linewidth=0.5)
    if not len(notes):
        axis.text(0.5, 0.5, "no notes", transform=axis.transAxes, ha="center", va="center")


def _pitch_limits(pitches: np.ndarray) -> tuple[int, int]:
    """Return the lowest and highest pitch to show: at least 14, so that a C and a G are named."""
    low, high = (int(pitches.min()), int(pitches.max())) if len(pitches) else (60, 72)
    margin = max(1, -(-(13 - (high - low)) // 2))
    return low - margin, high + margin


def _draw_drums(axis: Any, notes: np.ndarray) -> None:
    """Draw hits, a line per class."""
    classes = [
        next(i for i, pitches in enumerate(drums.CLASS_PITCHES) if pitch in pitches)
        for pitch in notes["pitch"].tolist()
    ]
    axis.barh(classes, 0.8, left=notes["start_step"], height=0.7, color=COLOURS["drums"])
    axis.set_ylim(-0.6, len(DRUM_CLASS_NAMES) - 0.4)
    axis.set_yticks(range(len(DRUM_CLASS_NAMES)))
    axis.set_yticklabels(DRUM_CLASS_NAMES, fontsize=7)
    axis.grid(axis="y", color="#eeeeee", linewidth=0.5)

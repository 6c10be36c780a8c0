"""Piano rolls: PNG files of a group of rows, SVG of one row; one style for all tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_pipeline.atomic_write import write_whole
from data_pipeline.codecs.codec import CODECS, Codec
from data_pipeline.render import style
from musicvae_jax import tokens
from musicvae_jax.config import InputError
from musicvae_jax.tasks import Task, get_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PICTURED_ROWS = 64
# With more bars only every second, third, ... is numbered, so that numbers do not overlap.
MAX_NUMBERED_BARS = 32

# In points: above all panels; inside a panel above its lanes (title), below them (bar numbers),
# right of them, between two lanes, and a letter of the names on their left.
_HEAD, _TITLE, _BELOW, _RIGHT, _BETWEEN, _LETTER = 29.0, 22.0, 32.0, 11.0, 7.0, 4.5
# Between two lines. Where bars are narrower, only numbered ones have a line; likewise quarters.
_NARROWEST = 6.0


@style.applied()
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
      InputError: there are no rows, or a row does not fit the task.
    """
    task = get_task(task_name)
    checked = [tokens.check_row(row, task) for row in rows]
    if not checked:
        raise InputError("rows: there are none to draw")
    if titles is None:
        titles = [str(number) for number in range(1, len(checked) + 1)]
    if len(titles) != len(checked):
        raise InputError(f"titles: {len(titles)} for {len(checked)} rows")
    words = [] if qpm is None else [_tempo(qpm)]
    if len(checked) > MAX_PICTURED_ROWS:
        words.insert(0, f"the first {MAX_PICTURED_ROWS} of {len(checked)}")
    canvas = _draw_group(checked[:MAX_PICTURED_ROWS], task, titles, columns, ", ".join(words))
    write_whole(path, style.png(canvas.figure()))


def read_png(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture: uint8 [height, width, channels]."""
    from matplotlib.image import imread

    return np.rint(imread(os.fspath(path)) * 255).astype(np.uint8)


@style.applied()
def piano_roll_svg(
    row: np.ndarray, task: Task, *, width: float = 350, qpm: float | None = None
) -> str:
    """Draw one row for a page.

    Args:
      row: [T] or [T, K].
      task: what it means.
      width: of the picture, pixels.
      qpm: quarters per minute to name; None names none.
    """
    height = 130.0 if len(task.tracks) == 1 else 270.0
    canvas = _Canvas(width, height)
    title = "" if qpm is None else _tempo(qpm)
    (panel,) = _panels([row], task)
    _draw_panel(canvas, panel, (0, height, width, height), title)
    return style.svg(canvas.figure(), f"piano roll, {task.name}")


def _tempo(qpm: float) -> str:
    # MIDI files have whole microseconds per quarter: 90.00009, where 90 was meant.
    return f"{round(qpm, 2):g} quarters per minute"


class _Lane(NamedTuple):
    """The part of a panel that shows the tracks of one kind.

    Attributes:
      codec: how they are drawn.
      notes: of each track by its name, [N, 3].
      limits: lowest and highest line.
    """

    codec: Codec
    notes: dict[str, np.ndarray]
    limits: tuple[int, int]


class _Panel(NamedTuple):
    """What is drawn of one row: its lanes, the upper first, and its length and bars in steps."""

    lanes: list[_Lane]
    num_steps: int
    steps_per_bar: int


def _panels(rows: Sequence[np.ndarray], task: Task) -> list[_Panel]:
    """Read the notes of rows [T] or [T, K].

    A kind has one range of lines for the whole group, so that panels can be compared.
    """
    size = task.steps_per_bar
    panels = [_Panel([], task.length(len(row)), size) for row in rows]
    for name in dict.fromkeys(track.kind for track in task.tracks):
        codec = CODECS[name]
        notes = [
            {
                track.name: codec.drawn_notes(column)
                for track, column in zip(task.tracks, row.reshape(len(row), -1).T, strict=True)
                if track.kind == name
            }
            for row in rows
        ]
        used = [part[:, 2] for by_track in notes for part in by_track.values()]
        limits = codec.drawn_lines(np.concatenate(used))
        for panel, by_track in zip(panels, notes, strict=True):
            panel.lanes.append(_Lane(codec, by_track, limits))
    return panels


class _Canvas:
    """Shapes in points from the lower left corner, which become a few large paths.

    matplotlib's own ticks, grids and layout take ten times as long for 64 trios.
    """

    def __init__(self, width: float, height: float) -> None:
        self.size = width, height
        self.boxes: dict[str, list[np.ndarray]] = {}  # by colour, corners [N, 4, 2]
        self.lines: dict[str, list[np.ndarray]] = {}  # by colour, ends [N, 2, 2]
        self.words: list[tuple[float, float, str, dict[str, Any]]] = []

    def add_boxes(self, x: np.ndarray, y: np.ndarray, colour: str) -> None:
        """Add boxes from x[:, 0] to x[:, 1] and from y[:, 0] to y[:, 1]."""
        corners = np.stack([x[:, [0, 0, 1, 1]], y[:, [0, 1, 1, 0]]], axis=-1)
        self.boxes.setdefault(colour, []).append(corners)

    def add_lines(self, x: np.ndarray, low: float, high: float, colour: str) -> None:
        """Add vertical lines at x [N]."""
        y = np.broadcast_to([low, high], (len(x), 2))
        ends = np.stack([np.repeat(x[:, None], 2, axis=1), y], axis=-1)
        self.lines.setdefault(colour, []).append(ends)

    def write(self, x: float, y: float, words: str, size: float = 7, **how: Any) -> None:
        """Add words."""
        self.words.append((x, y, words, {"size": size, "color": style.TEXT} | how))

    def figure(self) -> Figure:
        """Return all shapes as a figure: lines below boxes."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        figure = style.new_figure(*self.size)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, self.size[0]), ylim=(0, self.size[1]))
        axes.set_axis_off()
        for colour, parts in self.lines.items():
            ends = np.concatenate(parts)
            codes = np.tile([Path.MOVETO, Path.LINETO], len(ends))
            path = Path(ends.reshape(-1, 2), codes)
            axes.add_artist(PathPatch(path, linewidth=0.7, edgecolor=colour, snap=True))
        for colour, parts in self.boxes.items():
            path = Path.make_compound_path_from_polys(np.concatenate(parts))
            axes.add_artist(PathPatch(path, linewidth=0, facecolor=colour, snap=True))
        for x, y, words, how in self.words:
            axes.text(x, y, words, **how)
        return figure


def _draw_group(
    rows: list[np.ndarray], task: Task, titles: Sequence[str], columns: int, head: str
) -> _Canvas:
    """Draw a panel per row below a line of words."""
    wide = task.num_bars > 4 or max(task.length(len(row)) for row in rows) > 4 * task.steps_per_bar
    columns = 1 if wide else min(len(rows), columns)
    width, height = (1008 if wide else 331), (158 if len(task.tracks) == 1 else 288)
    canvas = _Canvas(width * columns, height * -(-len(rows) // columns) + _HEAD)
    canvas.write(canvas.size[0] / 2, canvas.size[1] - 16, head, size=9, ha="center")
    panels = _panels(rows, task)
    for number, (panel, title) in enumerate(zip(panels, titles, strict=False)):
        line, column = divmod(number, columns)
        top = canvas.size[1] - _HEAD - line * height
        _draw_panel(canvas, panel, (column * width, top, width, height), title)
    return canvas


def _draw_panel(
    canvas: _Canvas, panel: _Panel, box: tuple[float, float, float, float], title: str
) -> None:
    """Draw one row into a box: left, top, width and height; its lanes lie under each other."""
    left, top, width, height = box
    above = _TITLE if title or len(panel.lanes) > 1 else 6
    inner = height - above - _BELOW - _BETWEEN * (len(panel.lanes) - 1)
    total = sum(lane.codec.PANEL_SHARE for lane in panel.lanes)
    names = [name for lane in panel.lanes for name in lane.codec.line_names(*lane.limits).values()]
    labels = 10 + _LETTER * max(map(len, names), default=0)
    step = (width - labels - _RIGHT) / panel.num_steps
    x = left + labels + step * np.arange(panel.num_steps + 1)
    y = top - above
    canvas.write(x[0], y + 6, title, size=9)
    for lane in panel.lanes:
        tall = inner * lane.codec.PANEL_SHARE / total
        _draw_lane(canvas, lane, x, y - tall, tall, panel.steps_per_bar)
        y -= tall + _BETWEEN
    bars = range(0, panel.num_steps, panel.steps_per_bar)
    for number in range(0, len(bars), _numbered_every(len(bars))):
        canvas.write(x[bars[number]], y + _BETWEEN - 10, str(number + 1), ha="center")
    canvas.write((x[0] + x[-1]) / 2, y + _BETWEEN - 20, "bar", size=8, ha="center")


def _numbered_every(num_bars: int) -> int:
    """Return from how many bars one has its number written."""
    return -(-num_bars // MAX_NUMBERED_BARS)


def _draw_lane(
    canvas: _Canvas, lane: _Lane, x: np.ndarray, bottom: float, tall: float, steps_per_bar: int
) -> None:
    """Draw the notes of one lane over lines for beats and bars; x [T + 1] is where steps are."""
    low, high = lane.limits
    line = tall / (high - low + 1)
    wide = steps_per_bar * (x[1] - x[0])
    if wide >= 4 * _NARROWEST:
        canvas.add_lines(x[:: steps_per_bar // 4], bottom, bottom + tall, style.BEAT)
    every = 1 if wide >= _NARROWEST else _numbered_every(len(x) // steps_per_bar)
    canvas.add_lines(x[:: every * steps_per_bar], bottom, bottom + tall, style.BAR)
    for place, (name, notes) in enumerate(lane.notes.items()):
        colour = style.TRACK_COLOURS[name]
        start, length, height = notes.T
        # Notes end early, so that two of equal pitch in a row can be distinguished.
        ends = np.stack(
            [x[start], x[np.minimum(start + length, len(x) - 1)] - 0.15 * (x[1] - x[0])], axis=1
        )
        middle = bottom + line * (height - low + 0.5)
        half = max(0.4 * line, 0.5)
        canvas.add_boxes(ends, middle[:, None] + np.array([[-half, half]]), colour)
        if len(lane.notes) > 1:
            canvas.write(x[-1] - 40 * place, bottom + tall + 6, name, color=colour, ha="right")
    for height, name in lane.codec.line_names(low, high).items():
        y = bottom + line * (height - low + 0.5)
        canvas.write(x[0] - 4, y, name, ha="right", va="center_baseline")
    if not sum(map(len, lane.notes.values())):
        middle = (x[0] + x[-1]) / 2, bottom + tall / 2
        canvas.write(*middle, "no notes", size=9, ha="center", va="center_baseline")

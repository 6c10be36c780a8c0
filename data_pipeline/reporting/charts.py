"""Small pictures as SVG text: bars, histograms, piano rolls. Equal values give equal text."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from musicvae_jax.tasks import (
    DRUM_CLASS_NAMES,
    FIRST_NOTE_ON,
    MIN_PITCH,
    NO_EVENT,
    NUM_DRUM_CLASSES,
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    Task,
)

COLOURS = {"melody": "#1f6fb4", "bass": "#c8553d", "drums": "#3c3c3c"}
_LINES = ("#dddddd", "#888888")  # of beats and of bars
BAR_COLOUR, GRID_COLOUR, TEXT_COLOUR = "#1f6fb4", "#d8dce2", "#444"


def svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """Put shapes together; the label is read aloud where pictures are not seen."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-label="{html.escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def rect(x: float, y: float, width: float, height: float, colour: str, title: str = "") -> str:
    """Draw a rectangle; the title shows under the mouse."""
    place = f'x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}" fill="{colour}"'
    if not title:
        return f"<rect {place}/>"
    return f"<rect {place}><title>{html.escape(title)}</title></rect>"


def text(x: float, y: float, words: str, anchor: str = "start", size: float = 11) -> str:
    """Write words."""
    return (
        f'<text x="{x:.4g}" y="{y:.4g}" text-anchor="{anchor}" fill="{TEXT_COLOUR}" '
        f'font-size="{size:g}">{html.escape(words)}</text>'
    )


def bars(counts: Mapping[str, int], label: str, *, width: float = 560) -> str:
    """Draw one horizontal bar for each name, with its count."""
    names_width, count_width, row = 250, 80, 18
    most = max([*counts.values(), 1])
    parts = []
    for i, (name, count) in enumerate(counts.items()):
        shown = name if len(name) <= 40 else f"{name[:39]}…"
        length = count / most * (width - names_width - count_width)
        parts.append(text(names_width - 8, i * row + 13, shown, "end"))
        bar = rect(names_width, i * row + 3, max(length, 1), row - 6, BAR_COLOUR, name)
        parts.append(bar)
        parts.append(text(names_width + length + 6, i * row + 13, f"{count:,}"))
    return svg(width, max(len(counts), 1) * row, label, parts)


def histogram(
    counts: np.ndarray,
    label: str,
    ticks: Mapping[int, str],
    *,
    colour: str = BAR_COLOUR,
    width: float = 360,
) -> str:
    """Draw counts [N] as columns, shares on the left, with words under some of them."""
    height, left, right, bottom = 150, 40, 12, 20
    total = max(int(counts.sum()), 1)
    most = max(int(counts.max(initial=0)), 1)
    step, room = (width - left - right) / max(len(counts), 1), height - bottom - 8
    parts = []
    for part in (0.5, 1.0):
        y = height - bottom - part * room
        parts.append(rect(left, y, width - left, 0.6, GRID_COLOUR))
        parts.append(text(left - 4, y + 4, f"{part * most / total:.1%}", "end"))
    for i, count in enumerate(counts.tolist()):
        tall = count / most * room
        title = f"{ticks.get(i, i)}: {count:,}"
        x, gap = left + i * step, min(1.0, step / 5)
        parts.append(rect(x, height - bottom - tall, step - gap, tall, colour, title))
    for i, words in ticks.items():
        parts.append(text(left + (i + 0.5) * step, height - 6, words, "middle"))
    return svg(width, height, label, parts)


def piano_roll(row: np.ndarray, task: Task, *, width: float = 440, qpm: float | None = None) -> str:
    """Draw one row as the PNG piano rolls are drawn: bars, beats, pitches, drums by class.

    Args:
      row: [T] or [T, K].
      task: what it means.
      width: of the picture, pixels.
      qpm: quarters per minute to name; None names none.
    """
    columns = row.reshape(-1, len(task.tracks)).astype(np.int64)
    num_steps = len(columns)
    pitched = [k for k, track in enumerate(task.tracks) if track.kind != "drums"]
    has_drums = len(pitched) < len(task.tracks)
    upper = 120.0 if pitched else 0.0
    height = upper + (10.0 * NUM_DRUM_CLASSES if has_drums else 0.0)
    left, top = (62.0 if has_drums else 26.0), (16.0 if qpm is not None else 2.0)
    step = (width - left) / num_steps
    parts = [rect(0, 0, width - left, height, "#fafbfc")]
    for at in range(0, num_steps + 1, STEPS_PER_QUARTER):
        is_bar = at % STEPS_PER_BAR == 0
        parts.append(rect(at * step, 0, 0.9 if is_bar else 0.4, height, _LINES[is_bar]))
    parts += _pitched_notes(columns, task, pitched, step, upper)
    if has_drums:
        names = enumerate(reversed(DRUM_CLASS_NAMES))
        parts += [text(-4, upper + 10 * i + 8, name, "end", 8) for i, name in names]
    for k, track in enumerate(task.tracks):
        if track.kind == "drums":
            parts += _hits(columns[:, k], step, upper, height - upper)
    bars_shown = range(-(-num_steps // STEPS_PER_BAR))
    parts += [text(bar * STEPS_PER_BAR * step, height + 9, str(bar + 1), "start", 8)
              for bar in bars_shown]  # fmt: skip
    if qpm is not None:
        parts.append(text(0, -5, f"{qpm:g} quarters per minute", "start", 9))
    inner = f'<g transform="translate({left:g} {top:g})">{"".join(parts)}</g>'
    return svg(width, height + top + 12, f"piano roll, {task.name}", [inner])


def _pitched_notes(
    columns: np.ndarray, task: Task, tracks: Sequence[int], step: float, height: float
) -> list[str]:
    """Draw the notes of the melody and bass columns in one range of pitches."""
    notes = [(k, *note) for k in tracks for note in _zipped(columns[None, :, k])]
    if not notes:
        return []
    pitches = [note[3] for note in notes]
    low, high = min(pitches) - 2, max(max(pitches) + 2, min(pitches) + 12)
    tall = height / (high - low + 1)
    octaves = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    named = [
        text(-4, (high - pitch + 0.5) * tall + 3, f"C{pitch // 12 - 1}", "end", 8)
        for pitch in octaves
    ]
    return named + [
        rect(
            start * step,
            (high - pitch) * tall,
            length * step - min(0.4, step / 3),
            max(tall - 0.3, 1.0),
            COLOURS[task.tracks[k].name],
        )
        for k, start, length, pitch in notes
    ]


def _zipped(tokens: np.ndarray) -> list[tuple[int, int, int]]:
    """Return start, length and pitch of each note of one melody [1, T]."""
    return list(zip(*(part.tolist() for part in melody_notes(tokens)), strict=True))


def _hits(column: np.ndarray, step: float, top: float, height: float) -> list[str]:
    """Draw the hits of a drum column [T]."""
    tall = height / NUM_DRUM_CLASSES
    colour, last = COLOURS["drums"], NUM_DRUM_CLASSES - 1
    return [
        rect(t * step, top + (last - c) * tall + 0.4, step * 0.8, tall - 0.8, colour)
        for t, token in enumerate(column.tolist())
        for c in range(NUM_DRUM_CLASSES)
        if token >> c & 1
    ]


def melody_notes(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start step, length in steps and MIDI pitch of all notes of melodies [N, T]."""
    rows, steps = np.nonzero(tokens != NO_EVENT)
    ends = np.append(steps[1:], 0)
    last = np.append(rows[1:] != rows[:-1], True)[: len(rows)]
    ends = np.where(last, tokens.shape[1], ends[: len(rows)])
    values = tokens[rows, steps].astype(np.int64)
    on = values >= FIRST_NOTE_ON
    return steps[on], (ends - steps)[on], values[on] - FIRST_NOTE_ON + MIN_PITCH


def drum_class_counts(tokens: np.ndarray) -> dict[str, int]:
    """Count the hits of each drum class in tokens of any shape."""
    return {
        name: int(np.count_nonzero(tokens >> bit & 1)) for bit, name in enumerate(DRUM_CLASS_NAMES)
    }

"""The report as one self-contained page, `report.html`."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from data_pipeline.codecs.codec import CODECS
from data_pipeline.codecs.figures import MAX_LENGTH, TrackFigures
from data_pipeline.codecs.melody import pitch_name
from data_pipeline.render.pictures import piano_roll_svg
from data_pipeline.render.style import TRACK_COLOURS
from data_pipeline.reporting import html_pages
from data_pipeline.reporting.charts import bars, histogram
from data_pipeline.selection.near_duplicates import NEAR
from data_pipeline.selection.songs import LARGE_SONG
from data_pipeline.selection.splits import SPLITS, Selection
from musicvae_jax.tasks import (
    NO_EVENT,
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    Task,
    get_task,
)

_TEMPLATE = pathlib.Path(__file__).parent / "templates" / "conversion.html"
_SAMPLE = 20_000
_NUM_ROLLS = 12


@dataclasses.dataclass(frozen=True)
class Figures:
    """Statistics of one task's rows.

    Attributes:
      num_sampled: rows that were measured.
      tracks: figures of each track.
      rolls: rows drawn at random, [n, *row_shape].
    """

    num_sampled: int
    tracks: tuple[TrackFigures, ...]
    rolls: np.ndarray


def measure(task: Task, rows: np.ndarray, selection: Selection) -> Figures:
    """Measure a sample of the selected rows, drawn with a fixed seed.

    Args:
      task: what the rows mean.
      rows: [N, *row_shape], may be memory-mapped.
      selection: the rows of each split.
    """
    rng = np.random.default_rng(0)
    kept = np.concatenate([selection.rows[split] for split in SPLITS])
    kept = rng.choice(kept, min(len(kept), _SAMPLE), replace=False)
    sample = np.asarray(rows[np.sort(kept)])
    columns = sample.reshape(len(sample), task.num_steps, len(task.tracks))
    tracks = tuple(
        CODECS[track.kind].figures(columns[:, :, k], track) for k, track in enumerate(task.tracks)
    )
    non_empty = [i for i in kept[:1000].tolist() if np.any(rows[i] != NO_EVENT)][:_NUM_ROLLS]
    return Figures(len(sample), tracks, np.asarray(rows[np.array(non_empty, np.int64)]))


def html(report: dict[str, Any], drawn: dict[str, Figures]) -> str:
    """Write the page: equal reports and figures give equal text.

    Args:
      report: of `report.full_report`.
      drawn: `measure` of each of its tasks.
    """
    return html_pages.fill(
        _TEMPLATE,
        title="Conversion report",
        report=report,
        splits=SPLITS,
        large_songs=report["songs"][f"of_more_than_{LARGE_SONG}_files"],
        large=LARGE_SONG,
        left_by_fast_engine=bars(report["left_by_fast_engine"], "reasons of the fast reader"),
        near=NEAR,
        tasks=[_task(task, drawn[task["task"]]) for task in report["tasks"]],
    )


def _task(report: dict[str, Any], figures: Figures) -> dict[str, Any]:
    """Gather what the template shows of one task, charts drawn."""
    task = get_task(report["task"])
    return report | {
        "dropped_chart": bars(report["dropped"], "files without rows by reason"),
        "splits_chart": bars(
            {split: report["rows_per_split"][split] for split in SPLITS}, "rows by split", width=320
        ),
        "num_sampled": figures.num_sampled,
        "tracks": [
            (track.track.name, report["share_of_no_event"][track.track.name], _charts(track))
            for track in figures.tracks
        ],
        "rolls": [piano_roll_svg(row, task) for row in figures.rolls],
    }


def _charts(figures: TrackFigures) -> list[tuple[str, str]]:
    """Draw one track's histograms: (chart, caption) each."""
    colour = TRACK_COLOURS[figures.track.name]
    beats = {i: str(i + 1) for i in range(0, STEPS_PER_BAR, STEPS_PER_QUARTER)}
    places = histogram(figures.positions, "onsets by 16th of the bar", beats, colour=colour)
    charts = [(places, "where notes start: 16ths of the bar, 1 is the downbeat")]
    if figures.classes:
        return [*charts, (bars(figures.classes, "hits by drum class"), "hits by drum class")]
    octaves = {pitch: pitch_name(pitch) for pitch in range(24, 109, 12)}
    steps = {i: str(i + 1) for i in (0, 3, 7, 15)} | {MAX_LENGTH - 1: f"{MAX_LENGTH}+"}
    pitches = histogram(figures.pitches, "notes by pitch", octaves, colour=colour)
    if not len(figures.lengths):
        return [(pitches, "notes by pitch"), *charts]
    lengths = histogram(figures.lengths, "notes by length", steps, colour=colour)
    return [(pitches, "notes by pitch"), (lengths, "notes by length in 16ths"), *charts]

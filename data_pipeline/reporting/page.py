"""The report as one self-contained page, `report.html`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from data_pipeline.codecs.words import pitch_name
from data_pipeline.reporting import charts
from data_pipeline.reporting.charts import bars, histogram, piano_roll
from data_pipeline.reporting.markup import document, escaped, figure, table
from data_pipeline.selection.songs import LARGE_SONG
from data_pipeline.selection.splits import SPLITS, Selection
from musicvae_jax.tasks import NO_EVENT, STEPS_PER_BAR, Task, Track, get_task

_SAMPLE = 20_000
_NUM_ROLLS = 12
_MAX_LENGTH = 32  # steps; longer notes are counted together
_NUM_PITCHES = 128


@dataclasses.dataclass(frozen=True)
class TrackFigures:
    """What a sample of one track's rows holds.

    Attributes:
      track: which one.
      positions: onsets by step of the bar, int64 [16].
      pitches: notes by MIDI pitch, int64 [128]; zeros for drums.
      lengths: notes by length in steps, int64 [32], the last also for longer ones; zeros for drums.
      classes: hits by drum class; empty for pitched tracks.
    """

    track: Track
    positions: np.ndarray
    pitches: np.ndarray
    lengths: np.ndarray
    classes: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Figures:
    """What the page shows of one task's rows.

    Attributes:
      num_sampled: rows that were measured.
      tracks: figures of each track.
      rolls: rows drawn at random, [n, *row_shape].
    """

    num_sampled: int
    tracks: tuple[TrackFigures, ...]
    rolls: np.ndarray


def measure(task: Task, rows: np.ndarray, selection: Selection) -> Figures:
    """Measure a sample of the rows that stay, drawn with a fixed seed.

    Args:
      task: what the rows mean.
      rows: [N, *row_shape], may be memory-mapped.
      selection: the rows that stay.
    """
    rng = np.random.default_rng(0)
    kept = np.concatenate([selection.rows[split] for split in SPLITS])
    kept = rng.choice(kept, min(len(kept), _SAMPLE), replace=False)
    sample = np.asarray(rows[np.sort(kept)])
    columns = sample.reshape(len(sample), task.num_steps, len(task.tracks))
    tracks = tuple(_measure_track(columns[:, :, k], track) for k, track in enumerate(task.tracks))
    drawn = kept[:1000]
    loud = [i for i in drawn.tolist() if np.any(rows[i] != NO_EVENT)][:_NUM_ROLLS]
    return Figures(len(sample), tracks, np.asarray(rows[np.array(loud, np.int64)]))


def _measure_track(tokens: np.ndarray, track: Track) -> TrackFigures:
    """Measure one track's tokens [N, T]."""
    if track.kind == "drums":
        starts = np.nonzero(tokens != NO_EVENT)[1]
        pitches = lengths = np.zeros(0, np.int64)
        classes = charts.drum_class_counts(tokens)
    else:
        starts, lengths, pitches = charts.melody_notes(tokens)
        classes = {}
    lengths = np.minimum(lengths, _MAX_LENGTH) - 1
    return TrackFigures(
        track=track,
        positions=np.bincount(starts % STEPS_PER_BAR, minlength=STEPS_PER_BAR),
        pitches=np.bincount(pitches, minlength=_NUM_PITCHES),
        lengths=np.bincount(lengths, minlength=_MAX_LENGTH),
        classes=classes,
    )


def html(report: dict[str, Any], drawn: dict[str, Figures]) -> str:
    """Write the page: equal reports and figures give equal text.

    Args:
      report: of `report.full_report`.
      drawn: `measure` of each of its tasks.
    """
    parts = [_head(report), _songs(report["songs"])]
    for task in report["tasks"]:
        parts.append(_task(task, drawn[task["task"]]))
    return document("Conversion report", "\n".join(parts))


def _head(report: dict[str, Any]) -> str:
    """Write what was read, and warnings."""
    sources = [
        [escaped(source["name"]), f"{source['files']:,}", escaped(source.get("licence", ""))]
        for source in report["sources"]
    ]
    read = (
        f"{report['files']:,} files, {report['units']:,} units, {report['units_read']:,} readable"
    )
    parts = ["<h1>Conversion report</h1>", f"<p>{read}</p>"]
    parts += [f'<p class="warning">{escaped(note)}</p>' for note in report["notes"]]
    parts.append(table(["input", "music files", "licence"], sources))
    rows = [
        [task["task"], *(f"{task['rows_per_split'][s]:,}" for s in SPLITS), f"{task['kept']:,}"]
        for task in report["tasks"]
    ]
    parts += ["<h3>Rows</h3>", table(["task", *SPLITS, "files with rows"], rows)]
    if report["read_by"]:
        engines = [[name, f"{count:,}"] for name, count in report["read_by"].items()]
        parts += ["<h3>Read by</h3>", table(["engine", "units"], engines)]
    if report["left_by_fast_engine"]:
        left = bars(report["left_by_fast_engine"], "units the fast engine left to note-seq")
        parts.append(figure(left, "left to note-seq by the fast engine, by reason"))
    return "\n".join(parts)


def _songs(songs: dict[str, Any]) -> str:
    """Write which files are one song."""
    large = songs[f"of_more_than_{LARGE_SONG}_files"]
    words = f"{songs['songs']:,} songs in {songs['files']:,} different files; split by"
    parts = ["<h2>Songs</h2>", f"<p>{words} {songs['split_by']}.</p>"]
    if large:
        rows = [[escaped(s["name"]), f"{s['files']:,}", s["md5"]] for s in large]
        parts.append(table([f"of more than {LARGE_SONG} files", "files", "smallest md5"], rows))
    return "\n".join(parts)


def _task(task: dict[str, Any], figures: Figures) -> str:
    """Write one task's part."""
    removed = task["rows_extracted"] - task["rows_unique"]
    words = (
        f"{task['kept']:,} files with rows; {task['rows_extracted']:,} rows extracted, "
        f"{removed:,} duplicates removed, {task['rows_unique']:,} stored."
    )
    parts = [f"<h2>{task['task']}</h2>", f"<p>{words}</p>", '<div class="grid">']
    if task["dropped"]:
        drawn = bars(task["dropped"], "files without rows by reason")
        parts.append(figure(drawn, "files without rows, by reason"))
    rows = {split: task["rows_per_split"][split] for split in SPLITS}
    parts.append(figure(bars(rows, "rows by split", width=480), "rows by split"))
    parts += ["</div>", _duplicates(task)]
    if task["rows_unique"]:
        parts.append(f"<h3>Content, measured on {figures.num_sampled:,} rows</h3>")
        for track in figures.tracks:
            parts.append(_track(track, task["share_of_no_event"][track.track.name]))
        shown = get_task(task["task"])
        rolls = [f"<figure>{piano_roll(row, shown)}</figure>" for row in figures.rolls]
        parts += ["<h3>Rows drawn at random</h3>", f'<div class="grid">{"".join(rolls)}</div>']
    return "\n".join(parts)


def _duplicates(task: dict[str, Any]) -> str:
    """Write what repeats, exactly and nearly."""
    shared = [[pair, f"{n:,}"] for pair, n in task["rows_shared_by_splits"].items()]
    near = [
        [
            f"split by {way}",
            f"{found['near']:,} of {found['sampled']:,}",
            "" if found["share"] is None else f"{found['share']:.1%}",
            f"{found['compared']:,}",
        ]
        for way, found in task["near_duplicates_of_train_in_test"].items()
    ]
    heads = ["test rows within 5% of a train row", "found", "share", "train rows compared"]
    return "\n".join(
        [
            '<h3>Duplicates and near-duplicates</h3><div class="grid">',
            table(["equal rows of two splits, kept in the first", "rows"], shared),
            table(heads, near),
            "</div>",
        ]
    )


def _track(figures: TrackFigures, silent: float) -> str:
    """Draw one track's histograms."""
    track = figures.track
    colour = charts.COLOURS[track.name]
    beats = {i: str(i + 1) for i in range(0, STEPS_PER_BAR, 4)}
    place = histogram(figures.positions, "onsets by step of the bar", beats, colour=colour)
    parts = [figure(place, "onsets by step of the bar")]
    if track.kind == "drums":
        parts.append(figure(bars(figures.classes, "hits by drum class", width=480), "hits"))
    else:
        octaves = {pitch: pitch_name(pitch) for pitch in range(24, 109, 12)}
        steps = {i: str(i + 1) for i in (0, 3, 7, 15)} | {_MAX_LENGTH - 1: f"{_MAX_LENGTH}+"}
        pitches = histogram(figures.pitches, "notes by pitch", octaves, colour=colour)
        lengths = histogram(figures.lengths, "notes by length", steps, colour=colour)
        parts = [figure(pitches, "pitch"), figure(lengths, "note length in 16ths"), *parts]
    words = f"<p>{track.name}: {silent:.1%} of all tokens are no event</p>"
    return f'{words}<div class="grid">{"".join(parts)}</div>'

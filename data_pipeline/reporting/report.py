"""Statistics of a conversion: what was read, dropped and kept, as numbers and as text."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

import numpy as np

from data_pipeline.codecs import drums, melody
from data_pipeline.codecs.codec import row_to_text
from data_pipeline.conversion.manifest import Unit
from data_pipeline.reading import segments
from data_pipeline.reading.extraction import TOO_SHORT
from data_pipeline.selection.near_duplicates import NEAR, Nearness
from data_pipeline.selection.songs import LARGE_SONG, Songs
from data_pipeline.selection.splits import SPLITS, Selection
from data_pipeline.selection.store import Written
from musicvae_jax.tasks import NO_EVENT, Task

NUM_EXAMPLES = 5
MAX_EXAMPLE_BARS = 2
MAX_LISTED = 12  # lines of one list in the text


def dropped(units: list[Unit], task: str) -> dict[str, int]:
    """Count the units without rows for a task by reason, most frequent first."""
    return _by_count(unit.why_dropped(task) for unit in units)


def _by_count(reasons: Iterable[str | None]) -> dict[str, int]:
    """Count reasons, most frequent first; None is no reason."""
    counts = collections.Counter(reason for reason in reasons if reason is not None)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def task_report(
    task: Task,
    units: list[Unit],
    selection: Selection,
    written: dict[str, Written],
    examples: list[str],
    near: dict[str, Nearness],
) -> dict[str, Any]:
    """Collect the statistics of one task; `near` is keyed by the way of splitting."""
    num_unique = sum(split.num_rows for split in written.values())
    tokens = num_unique * task.num_steps
    silent = np.sum([split.no_events for split in written.values()], axis=0)
    shares = {
        track.name: float(count) / tokens if tokens else None
        for track, count in zip(task.tracks, silent.tolist(), strict=True)
    }
    return {
        "task": task.name,
        "kept": sum(bool(unit.rows.get(task.name)) for unit in units),
        "dropped": dropped(units, task.name),
        "rows_extracted": sum(selection.before.values()),
        "rows_unique": num_unique,
        "rows_per_split_with_duplicates": selection.before,
        "rows_per_split": {name: split.num_rows for name, split in written.items()},
        "rows_shared_by_splits": selection.shared,
        "near_duplicates_of_train_in_test": {
            way: {**found._asdict(), "share": found.near / found.sampled if found.sampled else None}
            for way, found in near.items()
        },
        "share_of_no_event": shares,
        "examples": examples,
    }


def example_rows(rows: np.ndarray, chosen: np.ndarray, task: Task) -> list[str]:
    """Write rows spread over a split as text, without empty ones.

    Rows of more than `MAX_EXAMPLE_BARS` bars are not written; the page draws rows of every task.

    Args:
      rows: [N, *row_shape].
      chosen: indices of the split's rows.
      task: what the rows mean.
    """
    if task.num_bars > MAX_EXAMPLE_BARS:
        return []
    texts: list[str] = []
    parts = np.array_split(chosen, min(NUM_EXAMPLES, max(len(chosen), 1)))
    for part in parts:
        filled = next((i for i in part[:1000] if np.any(rows[i] != NO_EVENT)), None)
        if filled is not None:
            texts.append(row_to_text(np.asarray(rows[filled]), task.name))
    return texts


def songs_report(songs: Songs, units: list[Unit], split_by: str) -> dict[str, Any]:
    """Summarise the songs, and list those of many files."""
    names: dict[str, str] = {}
    for unit in units:
        if unit.md5 is not None:
            names[unit.md5] = min(names.get(unit.md5, unit.name), unit.name)
    large = [{"files": n, "md5": md5, "name": names[md5]} for md5, n in songs.large()]
    return {
        "split_by": split_by,
        "files": len(songs.md5s),
        "songs": songs.num_songs,
        f"of_more_than_{LARGE_SONG}_files": large,
    }


def full_report(
    sources: list[dict[str, Any]],
    num_files: int,
    units: list[Unit],
    tasks: list[dict[str, Any]],
    songs: dict[str, Any],
) -> dict[str, Any]:
    """Combine the statistics of all tasks."""
    return {
        "sources": sources,
        "files": num_files,
        "units": len(units),
        "units_read": sum(unit.reason is None for unit in units),
        "read_by": dict(sorted(collections.Counter(u.engine for u in units if u.engine).items())),
        "left_by_fast_engine": _by_count(u.fast_refusal for u in units),
        "songs": songs,
        "tasks": tasks,
        "notes": [note for task in tasks for note in _notes(task)],
    }


def _notes(task: dict[str, Any]) -> list[str]:
    """Return warnings about a task, at most one."""
    if not task["rows_unique"]:
        return [f"{task['task']}: no rows, so there is no store for it"]
    empty = [name for name in SPLITS if not task["rows_per_split"][name]]
    if not empty:
        return []
    return [
        f"{task['task']}: no rows in {' and '.join(empty)}; choose other shares with --split or "
        "draw again with --split_seed"
    ]


def format_report(report: dict[str, Any]) -> str:
    """Write a report as text."""
    lines = ["inputs"]
    for source in report["sources"]:
        lines.append(f"  {source['name']}: {_count(source['files'], 'music file')}")
        lines += [f"    {key}: {source[key]}" for key in ("licence", "citation") if key in source]
    files, units = report["files"], report["units"]
    tunes = f" ({units:,} with each tune counted)" if units != files else ""
    lines += [f"read        {_count(files, 'file')}{tunes}, {report['units_read']:,} readable"]
    lines += _engine_lines(report) + _song_lines(report["songs"])
    for task in report["tasks"]:
        lines += ["", *_task_lines(task)]
    lines += ["", *(f"warning: {note}" for note in report["notes"])]
    return "\n".join(lines).rstrip() + "\n"


def _engine_lines(report: dict[str, Any]) -> list[str]:
    """Count the files read by each engine, and why the fast one refused some."""
    if not report["read_by"]:
        return []
    by = ", ".join(f"{engine} {count:,}" for engine, count in report["read_by"].items())
    left = report["left_by_fast_engine"].items()
    lines = [f"  left to note_seq: {count:,}  {reason}" for reason, count in left]
    return [f"engines     {by}", *_listed(lines, 2)]


def _song_lines(songs: dict[str, Any]) -> list[str]:
    """Count the songs, and name the suspiciously large ones."""
    large = songs[f"of_more_than_{LARGE_SONG}_files"]
    lines = [f"  one song of {song['files']:,} files: {song['name']}" for song in large]
    return [
        f"songs       {songs['songs']:,} in {songs['files']:,} different files; "
        f"split by {songs['split_by']}",
        *_listed(lines, 2),
    ]


def _near_line(near: dict[str, Any]) -> str:
    """Count the near-duplicates of training rows in test, for each way of splitting."""
    parts = [
        f"by {way} {found['near']} of {found['sampled']}"
        + (f" ({found['share']:.1%})" if found["share"] is not None else "")
        for way, found in near.items()
    ]
    return f"  test rows with a train row within {NEAR:.0%} of the tokens: {', '.join(parts)}"


def _task_lines(task: dict[str, Any]) -> list[str]:
    """Write the section of one task."""
    lines = [
        task["task"],
        f"  kept      {task['kept']:,}",
        f"  dropped   {sum(task['dropped'].values()):,}",
        *drop_table(task),
    ]
    extracted, unique = task["rows_extracted"], task["rows_unique"]
    removed = extracted - unique
    lines.append(f"  rows      {extracted:,}; {unique:,} without {_count(removed, 'duplicate')}")
    if not unique:
        return lines
    lines += [f"    {name:<12}{task['rows_per_split'][name]:>10,}" for name in SPLITS]
    shared = ", ".join(f"{pair} {n:,}" for pair, n in task["rows_shared_by_splits"].items())
    lines.append(f"  rows found in two splits, kept in the first: {shared}")
    lines.append(_near_line(task["near_duplicates_of_train_in_test"]))
    silent = ", ".join(f"{name} {share:.1%}" for name, share in task["share_of_no_event"].items())
    lines.append(f"  no event  {silent}")
    if task["examples"]:
        lines.append("  examples")
        lines += ["    " + line for text in task["examples"] for line in text.splitlines()]
    else:
        lines.append("  examples  in report.html")
    return lines


def drop_table(task: dict[str, Any]) -> list[str]:
    """Write the reasons why units gave a task no rows, a line each."""
    return _listed([f"    {count:>8,}  {reason}" for reason, count in task["dropped"].items()], 4)


def _listed(lines: list[str], indent: int) -> list[str]:
    """Keep the first `MAX_LISTED` lines and count the others."""
    rest = len(lines) - MAX_LISTED
    more = [" " * indent + f"and {rest:,} more, see report.json"] if rest > 0 else []
    return lines[:MAX_LISTED] + more


def hint(report: dict[str, Any], meter: str) -> str:
    """Return the probable cause if there are no rows at all, and a remedy."""
    num_read, task = report["units_read"], report["tasks"][0]
    if not num_read:
        return f"none of {_count(report['units'], 'file')} can be read as music"
    reasons = collections.Counter(task["dropped"])
    no_drums = reasons[drums.NO_DRUMS] + reasons[drums.NO_CLASSES]
    pitched = reasons[melody.NO_MELODY] + reasons[melody.NO_PITCHES]
    other, programs = 0, ""
    for reason, number in task["dropped"].items():
        if reason.startswith(melody.WRONG_PROGRAMS):
            other, programs = number, reason.removeprefix(melody.WRONG_PROGRAMS)
    incomplete = sum(n for reason, n in reasons.items() if reason.startswith("no band"))
    lacking = [
        (no_drums, "channel-10 drums", "--task=mel_2bar"),
        (pitched, "pitched notes in 21..108", "--task=drums_2bar"),
        (other, f"a melody in programs {programs}", "--programs=any"),
        (incomplete, "melody, bass and drums together", "--task=mel_2bar"),
        (reasons[TOO_SHORT], "enough bars in a row", "a 2-bar task"),
        (reasons[segments.NOT_4_4] if meter != "any" else 0, "music in 4/4", "--meter=any"),
    ]
    count, what, advice = max(lacking, key=lambda item: item[0])
    if not count:
        return f"0 of {_count(num_read, 'file')} have rows for {task['task']}"
    have = "0 of {} have" if count == num_read else f"{count:,} of {{}} have no"
    return f"{have.format(_count(num_read, 'file'))} {what}: try {advice}"


def _count(number: int, what: str) -> str:
    """Write a number and its noun."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"

"""Files of the user, read in child processes with limits of time and memory.

The children import only `data_pipeline`. Nothing is written to disk but the temporary copy that
note-seq needs of a MusicXML file, in the child.
"""

from __future__ import annotations

import functools
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from data_pipeline.conversion.workers import Limits, Outcome, run_isolated
from data_pipeline.extraction.offers import OfferedTrack, Offers
from data_pipeline.reading.segments import METERS
from experiments.studio import reading, rows
from experiments.studio.errors import NO_ROWS, RefusedError
from experiments.studio.fields import check_text, wrong
from experiments.studio.models.played import PlayedModel, title
from experiments.studio.reading import Job

MAX_FILE_BYTES, MAX_FOLDER_BYTES = 8 * 2**20, 64 * 2**20
MAX_FILES = 200
MAX_NAME = 200  # characters
MAX_WINDOWS_OF_A_TRACK, MAX_TRACKS, MAX_DROPPED = 128, 64, 64
# A user waits for it; larger files are for `prepare`.
LIMITS = Limits(cpu_seconds=6.0, wall_seconds=8.0)
# Compiling the MIDI reader, once on a machine, takes longer than a file may.
COMPILE_LIMITS = Limits(cpu_seconds=300.0, wall_seconds=900.0)
NUM_CHILDREN = 2
# One request at a time has children, so that many uploads do not fill the memory.
_TURN = threading.Lock()

Reply = dict[str, Any]


def read(model: PlayedModel, query: Mapping[str, str], body: bytes) -> Reply:
    """Say what one file offers, and which row was taken.

    Raises:
      RefusedError: the file cannot be read, or has no row of the model's task.
    """
    name, task = check_text("name", query.get("name"), MAX_NAME), model.task
    (offers,) = _in_children(reading.offers, [Job(name, body, task.name, _meter(query))])
    if isinstance(offers, str):
        raise RefusedError(NO_ROWS, f"{name} cannot be read: {offers}")
    tracks = offers.tracks[:MAX_TRACKS]
    if not tracks:
        why = "; ".join(f"{what}: {why}" for what, why in offers.dropped[:3])
        raise RefusedError(NO_ROWS, f"{name} has nothing for {title(task)}: {why}")
    best = int(np.argmax([track.num_kept for track in tracks]))
    taken = tracks[best].excerpts[0]
    dropped = _left_out(offers)
    if taken.num_notes > taken.num_kept:
        what = f"{taken.num_notes - taken.num_kept} of {taken.num_notes} notes in the bars taken"
        dropped.insert(0, (what, "a row has no place for them"))
    return {
        "name": name,
        "tracks": [_track(track) for track in tracks],
        "taken": {
            "track": best,
            "window": 0,
            "row": rows.to_json(taken.row[None], task)[0],
            "text": taken.describe(),
        },
        "dropped": [{"what": what, "reason": why} for what, why in dropped],
    }


def windows(model: PlayedModel, query: Mapping[str, str], body: bytes) -> Reply:
    """List the windows of many files, at most `reading.WINDOWS_PER_FILE` of each.

    Raises:
      RefusedError: the body is not a list of files as the README beside this file describes.
    """
    task, meter = model.task, _meter(query)
    jobs = [Job(name, data, task.name, meter) for name, data in split_files(body)]
    found: list[Reply] = []
    dropped = []
    for number, result in enumerate(_in_children(reading.windows, jobs)):
        name = jobs[number].name
        if isinstance(result, str) or result.why_empty is not None:
            why = result if isinstance(result, str) else result.why_empty
            dropped.append({"what": name, "reason": why})
            continue
        tokens = rows.tidy(result.tokens, task)
        found += [
            {"file": number, "bar": bar, "tokens": row.tolist()}
            for bar, row in zip(result.bars, tokens, strict=True)
        ]
        more = result.num_found - len(tokens)
        if more:
            reason = f"{len(tokens)} are shown, evenly spread"
            dropped.append({"what": f"{name}: {more} windows", "reason": reason})
    return {"windows": found, "files": [job.name for job in jobs], "dropped": dropped}


def split_files(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of a body.

    Raises:
      RefusedError: lengths do not fit, a name is no text, or there are too many files.
    """
    at = count = 0
    while at < len(body):
        parts = []
        for _ in range(2):
            if at + 4 > len(body):
                raise wrong("body: it ends inside a length")
            (size,) = struct.unpack_from(">I", body, at)
            at += 4
            if at + size > len(body):
                raise wrong("body: it is shorter than the lengths in it say")
            parts.append(body[at : at + size])
            at += size
        count += 1
        if count > MAX_FILES:
            raise wrong(f"body: there are more than {MAX_FILES} files")
        try:
            name = check_text(f"name of file {count}", parts[0].decode(), MAX_NAME)
        except UnicodeDecodeError:
            raise wrong(f"name of file {count}: it must be UTF-8") from None
        yield name, parts[1]
    if not count:
        raise wrong("body: there are no files")


def warm_up() -> None:
    """Compile the reader and start the process that children fork from: it takes seconds."""
    with _TURN:
        _compile_reader()


@functools.cache
def _compile_reader() -> None:
    """Compile the MIDI reader in a child, or find it compiled."""
    job = Job("empty", b"", "mel_2bar", METERS[0])
    for _ in run_isolated(
        reading.compile_reader,
        [(0, job)],
        num_workers=1,
        limits=COMPILE_LIMITS,
        preload=reading.PRELOAD,
    ):
        pass


def _in_children(function: Callable[[Job], Any], jobs: list[Job]) -> list[Any]:
    """Run jobs in child processes; return their values, or texts that say why there is none."""
    with _TURN:
        _compile_reader()
        outcomes = dict(
            run_isolated(
                function,
                enumerate(jobs),
                num_workers=min(NUM_CHILDREN, len(jobs)),
                limits=LIMITS,
                preload=reading.PRELOAD,
            )
        )
    return [_value(outcomes[number]) for number in range(len(jobs))]


def _value(outcome: Outcome) -> Any:
    if outcome.reason is None:
        return outcome.value
    return f"{outcome.reason}: {outcome.detail}" if outcome.detail else outcome.reason


def _meter(query: Mapping[str, str]) -> str:
    """Read the option `meter`."""
    meter = query.get("meter", METERS[0])
    if meter not in METERS:
        raise wrong(f"meter: it must be one of {', '.join(METERS)}")
    return meter


def _track(track: OfferedTrack) -> Reply:
    """Describe a track with its windows."""
    first = track.excerpts[0]
    return {
        "title": track.title,
        "tune": first.name,
        "start_seconds": round(first.start_seconds, 3),
        "tempo": round(first.qpm, 2),
        "windows": [
            {
                "bar": excerpt.start_bar,
                "tokens": excerpt.row.tolist(),
                "num_notes": excerpt.num_notes,
                "num_kept": excerpt.num_kept,
            }
            for excerpt in track.excerpts[:MAX_WINDOWS_OF_A_TRACK]
        ],
    }


def _left_out(offers: Offers) -> list[tuple[str, str]]:
    """List (what, why) of all that is not offered."""
    dropped = list(offers.dropped)
    more = len(offers.tracks) - MAX_TRACKS
    if more > 0:
        dropped.append((f"{more} tracks", f"only {MAX_TRACKS} are listed"))
    for track in offers.tracks[:MAX_TRACKS]:
        more = len(track.excerpts) - MAX_WINDOWS_OF_A_TRACK
        if more > 0:
            what = f"the last {more} windows of {track.title}"
            dropped.append((what, f"only {MAX_WINDOWS_OF_A_TRACK} are listed"))
    if len(dropped) > MAX_DROPPED:
        more = len(dropped) - MAX_DROPPED + 1
        dropped[MAX_DROPPED - 1 :] = [(f"{more} further parts", "the list is too long")]
    return dropped

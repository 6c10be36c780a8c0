"""All that one file offers to a task: its tracks with their rows, and what cannot be used, and why.

For a user who chooses among the tracks and bars of a file. `excerpts` chooses by itself.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.codecs.codec import cutter_of
from data_pipeline.codecs.pieces import Excerpt, Piece, piece_of
from data_pipeline.reading import notes
from data_pipeline.reading.extraction import NO_NOTES, TOO_SHORT
from data_pipeline.reading.segments import NOTE_DTYPE, NoteArrays, Segment
from musicvae_jax.tasks import Task, get_task

if TYPE_CHECKING:
    from note_seq import NoteSequence

_NO_UNIT = NoteArrays(np.zeros(0, NOTE_DTYPE))
NOT_IN_BAND = "not a melody, bass or drums that play together"


@dataclasses.dataclass(frozen=True)
class OfferedTrack:
    """The rows of one track, or of one group of tracks for a trio.

    Attributes:
      title: its instruments, for the user.
      excerpts: its rows in order of time, one or more.
    """

    title: str
    excerpts: tuple[Excerpt, ...]

    @property
    def num_kept(self) -> int:
        """Notes in all rows; a note in several rows counts in each."""
        return sum(excerpt.num_kept for excerpt in self.excerpts)


@dataclasses.dataclass(frozen=True)
class Offers:
    """What a file offers.

    Attributes:
      tracks: in the order of the file.
      dropped: (what, why) of everything that gave no row.
    """

    tracks: tuple[OfferedTrack, ...]
    dropped: tuple[tuple[str, str], ...]


def read_offers(name: str, data: bytes, task_name: str, *, meter: str = "4/4") -> Offers:
    """List everything that a file offers to a task.

    Args:
      name: the file's name.
      data: its bytes.
      task_name: key of `TASKS`.
      meter: "4/4" leaves parts in other meters out; "any" ignores time signatures.

    Returns:
      The offers; music shorter than a row is padded with silence if there is no other.

    Raises:
      ReadError: the file cannot be read.
    """
    task = get_task(task_name)
    tracks: list[OfferedTrack] = []
    dropped: list[tuple[str, str]] = []
    for unit in notes.read_units(name, data):
        if unit.sequence is None:
            dropped.append((unit.name, str(unit.error)))
            continue
        piece = piece_of(notes.notes_from_sequence(unit.sequence), meter)
        titles = track_titles(unit.sequence)
        found = cutter_of(task).excerpts(piece, task, pad=True)
        tracks += _grouped([dataclasses.replace(e, name=unit.name) for e in found], titles)
        if not piece.segments:
            dropped.append((unit.name, NO_NOTES))
        by_start = collections.defaultdict(list)
        for excerpt in found:
            by_start[excerpt.start_seconds].append(excerpt)
        for segment in piece.segments:
            dropped += _dropped(segment, task, by_start[segment.start_seconds], titles)
    return Offers(tuple(tracks), tuple(dict.fromkeys(dropped)))


def track_titles(sequence: NoteSequence) -> dict[int, str]:
    """Name the tracks of a sequence: number, program or "drums", and their own names."""
    import pretty_midi

    own = {info.instrument: info.name for info in sequence.instrument_infos if info.name.strip()}
    titles = {}
    for note in sequence.notes:
        if note.instrument not in titles:
            known = 0 <= note.program <= 127
            sound = pretty_midi.program_to_instrument_name(note.program) if known else "unknown"
            words = "drums" if note.is_drum else sound
            name = "".join(c for c in own.get(note.instrument, "") if c.isprintable())[:60]
            is_new = name.strip() and name.strip().lower() != words.lower()
            quoted = f' "{name.strip()}"' if is_new else ""
            titles[note.instrument] = f"track {note.instrument}: {words}{quoted}"
    return titles


def _grouped(found: list[Excerpt], titles: dict[int, str]) -> list[OfferedTrack]:
    """Gather excerpts by segment and instruments."""
    groups: dict[tuple[float, tuple[int, ...]], list[Excerpt]] = {}
    for excerpt in found:
        groups.setdefault((excerpt.start_seconds, excerpt.instruments), []).append(excerpt)
    tracks = []
    for (seconds, instruments), own in groups.items():
        title = ", ".join(titles.get(i, f"track {i}") for i in instruments) or "all drums"
        since = f", from {seconds:.1f} s" if seconds else ""
        tracks.append(OfferedTrack(title + since, tuple(own)))
    return tracks


def _dropped(
    segment: Segment, task: Task, own: list[Excerpt], titles: dict[int, str]
) -> list[tuple[str, str]]:
    """List the instruments of a segment that gave none of its rows `own`, each with the reason."""
    since = f" from {segment.start_seconds:.1f} s" if segment.start_seconds else ""
    if segment.reason is not None:
        return [(f"the part{since or ' at the beginning'}", segment.reason)]
    used = {number for excerpt in own for number in excerpt.instruments}
    takes_all = any(not excerpt.instruments for excerpt in own)
    dropped = []
    for number in np.unique(segment.notes["instrument"]).tolist():
        only = segment.notes[segment.notes["instrument"] == number]
        if number in used or (takes_all and only["is_drum"].all()):
            continue
        reason = _reason(dataclasses.replace(segment, notes=only), task)
        dropped.append((titles.get(number, f"track {number}") + since, reason))
    return dropped


def _reason(segment: Segment, task: Task) -> str:
    """Return why a segment of one instrument gives no row."""
    if len(task.tracks) > 1:
        return NOT_IN_BAND
    (part,) = cutter_of(task).parts(Piece(_NO_UNIT, [segment]), task)
    return next(iter(part.left_out), TOO_SHORT)

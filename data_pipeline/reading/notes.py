"""Files to NoteSequences, note-seq's format: the border between files and arrays.

note-seq is imported inside functions because the import takes a second, and most processes never
need it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import pathlib
import re
import tempfile
import warnings
import zipfile
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.reading.segments import NOTE_DTYPE, NoteArrays
from musicvae_jax.config import InputError

if TYPE_CHECKING:
    from note_seq import NoteSequence

MIDI, MUSICXML, MXL, ABC = "MIDI", "MusicXML", "compressed MusicXML", "ABC"
_KIND_OF_SUFFIX = {
    ".mid": MIDI,
    ".midi": MIDI,
    ".kar": MIDI,
    ".xml": MUSICXML,
    ".musicxml": MUSICXML,
    ".mxl": MXL,
    ".abc": ABC,
}
MUSIC_SUFFIXES = tuple(_KIND_OF_SUFFIX)

# pretty_midi allocates three float64 or int64 arrays with one entry per tick.
MAX_TICKS = 2**25
MAX_UNPACKED_BYTES = 2**26


class ReadError(InputError):
    """A file, or one tune of it, cannot be read.

    Attributes:
      reason: a short, fixed text, for counting.
      detail: the exact problem of this file.
      fast_refusal: why the fast engine did not read it either, if it tried.
    """

    def __init__(self, reason: str, detail: str = "", fast_refusal: str | None = None) -> None:
        super().__init__(reason, detail)  # both, so that it can be pickled
        self.reason = reason
        self.detail = detail
        self.fast_refusal = fast_refusal

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclasses.dataclass(frozen=True)
class Unit:
    """One unit of music in a file: the file itself, or one tune of a tunebook.

    Attributes:
      name: the file's name, for tunes with "#" and the tune's number in the file, from 1.
      sha256: of the bytes of the file, or of the lines of the tune.
      sequence: the notes, or None if they could not be read.
      error: why `sequence` is None.
    """

    name: str
    sha256: str
    sequence: NoteSequence | None = None
    error: ReadError | None = None


def import_note_seq() -> ModuleType:
    """Import note-seq without warnings of its dependencies (missing audio converter, ...)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import note_seq
    return note_seq


def read_units(name: str, data: bytes) -> list[Unit]:
    """Read the bytes of one file.

    Args:
      name: the file's name; its extension is used if the content is ambiguous.
      data: its content.

    Returns:
      One unit for MIDI and MusicXML; one per tune for ABC, sections expanded, where a tune
      that cannot be read has an error and leaves the others alone.

    Raises:
      ReadError: the file as a whole cannot be read.
    """
    kind = kind_of(name, data)
    if kind == ABC:
        return _read_tunebook(name, data)
    read = _read_midi if kind == MIDI else _read_musicxml
    return [Unit(name, hashlib.sha256(data).hexdigest(), read(data))]


def kind_of(name: str, data: bytes) -> str:
    """Return the kind of a music file, from its content or else its extension.

    Raises:
      ReadError: it is not a music file.
    """
    if not data:
        raise ReadError("empty file")
    if data.startswith(b"MThd"):
        return MIDI
    if data.startswith(b"PK\x03\x04"):
        return MXL
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"<score-partwise" in head or b"<score-timewise" in head:
        return MUSICXML
    if head.startswith(b"%abc") or (b"\0" not in data and _tunes(data)[1]):
        return ABC
    kind = _KIND_OF_SUFFIX.get(pathlib.PurePath(name).suffix.lower())
    if kind == MIDI:
        raise ReadError("not a MIDI file", f"it starts with {data[:4]!r} instead of b'MThd'")
    if kind is None:
        raise ReadError("not a music file", "neither MIDI, MusicXML nor ABC")
    return kind


def _read_midi(data: bytes) -> NoteSequence:
    """Read a MIDI file as note-seq does, but check its length before memory is allocated."""
    import mido
    import pretty_midi

    note_seq = import_note_seq()
    try:
        midi = mido.MidiFile(file=io.BytesIO(data), charset="latin1")
        ticks = max((sum(event.time for event in track) for track in midi.tracks), default=0)
    except Exception as error:  # damaged files raise nearly everything
        raise _damaged("unreadable MIDI", error) from error
    if ticks > MAX_TICKS:
        raise ReadError("MIDI file too long", f"{ticks} ticks, more than {MAX_TICKS}")
    try:
        with warnings.catch_warnings():
            # Tempo and meter outside the first track are ignored, as the reference does.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="pretty_midi")
            return note_seq.midi_to_note_sequence(pretty_midi.PrettyMIDI(mido_object=midi))
    except Exception as error:
        raise _damaged("unreadable MIDI", error) from error


def _damaged(reason: str, error: Exception) -> ReadError:
    """Convert an exception of a parser to a one-line ReadError."""
    detail = " ".join(str(error).split()) or "the file ends too early"
    return ReadError(reason, f"{type(error).__name__}: {detail}"[:200])


def _read_musicxml(data: bytes) -> NoteSequence:
    """Read MusicXML, compressed or not; note-seq wants a file with the right extension."""
    import_note_seq()
    from note_seq import musicxml_reader

    compressed = data.startswith(b"PK")
    if compressed:
        _check_unpacked_size(data)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / ("score.mxl" if compressed else "score.xml")
        path.write_bytes(data)
        try:
            return musicxml_reader.musicxml_file_to_sequence_proto(str(path))
        except Exception as error:
            raise _damaged("unreadable MusicXML", error) from error


def _check_unpacked_size(data: bytes) -> None:
    """Refuse archives that are too large when unpacked."""
    try:
        size = sum(info.file_size for info in zipfile.ZipFile(io.BytesIO(data)).infolist())
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise _damaged("unreadable MusicXML", error) from error
    if size > MAX_UNPACKED_BYTES:
        raise ReadError("MusicXML too large", f"{size} bytes unpacked")


# A lower C, with accidentals of the key between MIDI pitch 10 and 14.
_REST_NOTE, _REST_PITCH = "C,,,,", 14
_ABC_FIELD = re.compile(r"[A-Za-z+]:")
# Annotations, inline fields and comments are matched first, so that their letters stay.
_ABC_REST = re.compile(r'"[^"]*"|\[[A-Za-z]:[^\]]*\]|%.*|[zx]')


def _read_tunebook(name: str, data: bytes) -> list[Unit]:
    """Read every tune of an ABC file."""
    header, tunes = _tunes(data)
    if not tunes:
        raise ReadError("no tunes", "no X: field in this ABC file")
    units = []
    for number, lines in enumerate(tunes, start=1):
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        try:
            sequence, problem = _read_tune(header + lines), None
        except ReadError as error:
            sequence, problem = None, error
        units.append(Unit(f"{name}#{number}", digest, sequence, problem))
    return units


def _tunes(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Split a tunebook at empty lines into its header and its tunes.

    Blocks without an X: field are the header, if first, else free text.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    blocks = [
        list(lines)
        for has_text, lines in itertools.groupby(map(str.strip, text.splitlines()), key=bool)
        if has_text
    ]
    is_tune = [any(line.startswith("X:") for line in block) for block in blocks]
    header = blocks[0] if blocks and not is_tune[0] else []
    return header, [block for block, tune in zip(blocks, is_tune, strict=True) if tune]


def _read_tune(lines: list[str]) -> NoteSequence:
    """Read one tune and play its repeats."""
    import_note_seq()
    from note_seq import abc_parser, sequences_lib

    try:
        sequence = abc_parser.ABCTune([_mark_rests(line) for line in lines]).note_sequence
        sounding = [note for note in sequence.notes if note.pitch > _REST_PITCH]
        del sequence.notes[:]
        sequence.notes.extend(sounding)
        return sequences_lib.expand_section_groups(sequence)
    except abc_parser.ABCParseError as error:
        # The parser has one exception per unsupported feature: multiple voices, chords, ...
        raise ReadError(f"unreadable ABC: {type(error).__name__}", str(error)[:200]) from error
    except Exception as error:
        raise _damaged("unreadable ABC", error) from error


def _mark_rests(line: str) -> str:
    """Write the rests of a line of ABC as notes far below any instrument.

    note-seq's parser does not support rests. A note without an accidental advances time as a rest
    does, takes part in broken rhythms and has no other effect; `_read_tune` removes it again. Real
    notes as low as that (MIDI pitch 14 or less, below the piano) are removed with it. Rests of
    whole bars (Z) are left to the parser, which refuses them.
    """
    if _ABC_FIELD.match(line):
        return line
    return _ABC_REST.sub(lambda found: _REST_NOTE if found[0] in "zx" else found[0], line)


def notes_from_sequence(sequence: NoteSequence) -> NoteArrays:
    """Convert the notes, tempos and time signatures of a NoteSequence to arrays."""
    notes = np.array(
        [
            (n.start_time, n.end_time, n.pitch, n.program, n.instrument, n.is_drum)
            for n in sequence.notes
            if n.velocity
        ],
        NOTE_DTYPE,
    )
    return NoteArrays(
        notes=notes,
        tempos=tuple((tempo.time, tempo.qpm) for tempo in sequence.tempos),
        meters=tuple((m.time, m.numerator, m.denominator) for m in sequence.time_signatures),
        total_seconds=sequence.total_time,
    )

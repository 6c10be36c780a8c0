from __future__ import annotations

import io
import pathlib
import pickle
import subprocess
import sys
import zipfile
from typing import Any

import pytest

from data_pipeline.reading import notes
from data_pipeline.reading.notes import ReadError, Unit, kind_of, notes_from_sequence, read_units

MUSICXML = """<?xml version="1.0" encoding="UTF-8"?>
<score-partwise version="3.0">
  <part-list><score-part id="P1"><part-name>Flute</part-name>
    <midi-instrument id="P1-I1"><midi-channel>2</midi-channel><midi-program>74</midi-program>
    </midi-instrument></score-part></part-list>
  <part id="P1"><measure number="1">
    <attributes><divisions>1</divisions><key><fifths>0</fifths></key>
      <time><beats>4</beats><beat-type>4</beat-type></time></attributes>
    <note><pitch><step>C</step><octave>4</octave></pitch><duration>3</duration>
      <voice>1</voice><type>half</type></note>
    <note><pitch><step>E</step><octave>4</octave></pitch><duration>1</duration>
      <voice>1</voice><type>quarter</type></note>
  </measure></part>
</score-partwise>
"""
TUNE = "X:{}\nT:a tune\nM:4/4\nL:1/4\nK:C\n{}\n"


def vlq(value: int) -> bytes:
    groups = [value & 127]
    while value := value >> 7:
        groups.append(128 | value & 127)
    return bytes(reversed(groups))


def midi(*events: tuple[int, bytes], ticks_per_quarter: int = 480) -> bytes:
    """One track of (wait in ticks, message)."""
    track = b"".join(vlq(wait) + message for wait, message in events) + b"\x00\xff\x2f\x00"
    header = b"MThd" + (6).to_bytes(4, "big") + b"\x00\x00\x00\x01"
    header += ticks_per_quarter.to_bytes(2, "big")
    return header + b"MTrk" + len(track).to_bytes(4, "big") + track


def note_on(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, 100])


def note_off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 0])


def mxl(xml: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "META-INF/container.xml",
            '<container><rootfiles><rootfile full-path="score.xml" '
            'media-type="application/vnd.recordare.musicxml+xml"/></rootfiles></container>',
        )
        archive.writestr("score.xml", xml)
    return buffer.getvalue()


def only(name: str, data: bytes) -> Any:
    (unit,) = read_units(name, data)
    assert unit.error is None
    return unit


def pitches(unit: Unit) -> list[int]:
    assert unit.sequence is not None
    return [note.pitch for note in unit.sequence.notes]


RESTS = [
    # Notes as (pitch, start, end) in units of a quarter, which lasts 0.5 s by default.
    ("C z D2|", [(60, 0, 1), (62, 2, 4)]),
    ("z4|C x/D/|", [(60, 4, 5), (62, 5.5, 6)]),
    ("C>z D|", [(60, 0, 1.5), (62, 2, 3)]),
    ('"zx" C [K:Gmix] z2 F|', [(60, 0, 1), (65, 3, 4)]),
    ("^C z C|C|", [(61, 0, 1), (61, 2, 3), (60, 3, 4)]),
]


@pytest.mark.parametrize(("music", "expected"), RESTS, ids=[music for music, _ in RESTS])
def test_rests_of_abc_take_time(music: str, expected: list[tuple[int, float, float]]) -> None:
    sequence = only("a.abc", TUNE.format(1, music).encode()).sequence
    assert sequence is not None
    found = [(n.pitch, n.start_time / 0.5, n.end_time / 0.5) for n in sequence.notes]
    assert found == expected


def test_an_error_stays_whole_on_its_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ReadError("empty file", "nothing")))
    assert (error.reason, error.detail, str(error)) == (
        "empty file",
        "nothing",
        "empty file: nothing",
    )


def test_midi_gives_notes_tempos_and_meters() -> None:
    data = midi(
        (0, b"\xff\x51\x03" + (600_000).to_bytes(3, "big")),
        (0, b"\xff\x58\x04\x03\x02\x18\x08"),
        (0, b"\xc0\x05"),
        (0, note_on(60)),
        (0, note_on(36, 9)),
        (480, note_off(36, 9)),
        (480, note_off(60)),
    )
    unit = only("song.mid", data)
    arrays = notes_from_sequence(unit.sequence)
    assert sorted(arrays.notes.tolist()) == [
        (0.0, 0.6, 36, 0, 0, True),
        (0.0, 1.2, 60, 5, 1, False),
    ]
    assert arrays.tempos == ((0.0, 100.0),)
    assert arrays.meters == ((0.0, 3, 4),)
    assert arrays.total_seconds == 1.2
    assert unit.name == "song.mid"
    assert len(unit.sha256) == 64


def test_notes_of_velocity_zero_do_not_sound() -> None:
    sequence = notes.import_note_seq().NoteSequence(total_time=1.0)
    sequence.notes.add(pitch=60, velocity=0, end_time=1.0)
    sequence.notes.add(pitch=62, velocity=1, end_time=1.0)
    assert notes_from_sequence(sequence).notes["pitch"].tolist() == [62]


def test_a_sequence_without_notes_gives_an_empty_array() -> None:
    arrays = notes_from_sequence(notes.import_note_seq().NoteSequence())
    assert arrays.notes.shape == (0,)
    assert arrays.notes.dtype == notes.NOTE_DTYPE


@pytest.mark.parametrize("data", [MUSICXML.encode(), mxl(MUSICXML)], ids=["xml", "mxl"])
def test_musicxml_is_read_compressed_or_not(data: bytes) -> None:
    arrays = notes_from_sequence(only("whatever.bin", data).sequence)
    assert arrays.notes[["start", "end", "pitch", "program"]].tolist() == [
        (0.0, 1.5, 60, 74),
        (1.5, 2.0, 64, 74),
    ]
    assert arrays.meters == ((0.0, 4, 4),)


def test_each_tune_is_a_unit_and_a_bad_one_loses_no_other() -> None:
    book = "\n".join(
        [
            "%abc-2.1\nR:reel\n",
            TUNE.format(7, "CDEF|"),
            "Some words between the tunes.\n",
            TUNE.format(7, "C[EG]|"),
            TUNE.format(9, "c4|"),
        ]
    )
    first, second, third = read_units("book.abc", book.encode())
    assert [first.name, second.name, third.name] == ["book.abc#1", "book.abc#2", "book.abc#3"]
    assert pitches(first) == [60, 62, 64, 65]
    assert second.sequence is None
    assert second.error is not None
    assert second.error.reason == "unreadable ABC: ChordError"
    assert pitches(third) == [72]
    assert len({first.sha256, second.sha256, third.sha256}) == 3


def test_the_header_of_a_tunebook_holds_for_its_tunes() -> None:
    book = "M:3/4\nL:1/8\n\nX:1\nT:a\nK:C\nC|\n"
    arrays = notes_from_sequence(only("book.abc", book.encode()).sequence)
    assert arrays.meters[0][1:] == (3, 4)
    assert arrays.notes["end"][0] == 0.25


def test_a_tune_keeps_its_hash_when_others_are_added() -> None:
    tune = TUNE.format(1, "CDEF|")
    alone = only("a.abc", tune.encode())
    _, last = read_units("b.abc", (TUNE.format(2, "G4|") + "\n" + tune).encode())
    assert alone.sha256 == last.sha256


def test_repeats_are_played() -> None:
    unit = only("a.abc", TUNE.format(1, "|:CD EF:|G4|").encode())
    assert pitches(unit) == [60, 62, 64, 65, 60, 62, 64, 65, 67]


def test_tunes_in_an_old_encoding_are_read() -> None:
    unit = only("a.abc", TUNE.format(1, "CDEF|").replace("a tune", "Für").encode("latin-1"))
    assert unit.sequence.sequence_metadata.title == "Für"


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("song.txt", midi((0, note_on(60))), notes.MIDI),
        ("song.mid", MUSICXML.encode(), notes.MUSICXML),
        ("song.mid", b"\xef\xbb\xbf" + MUSICXML.encode(), notes.MUSICXML),
        ("song.xml", mxl(MUSICXML), notes.MXL),
        ("song.mid", TUNE.format(1, "C|").encode(), notes.ABC),
        ("song.ABC", b"no field at all", notes.ABC),
    ],
)
def test_content_tells_the_kind_before_the_name_does(name: str, data: bytes, kind: str) -> None:
    assert kind_of(name, data) == kind


@pytest.mark.parametrize(
    ("name", "data", "reason", "detail"),
    [
        ("a.mid", b"", "empty file", ""),
        ("a.mid", b"RIFF1234", "not a MIDI file", "b'RIFF'"),
        ("a.txt", b"hello", "not a music file", "neither MIDI, MusicXML nor ABC"),
        ("a.abc", b"hello", "no tunes", "no X: field"),
        ("a.mid", midi((0, note_on(60)))[:-6], "unreadable MIDI", "EOFError"),
        ("a.mid", midi((0, b"\x90\x3c\xc8")), "unreadable MIDI", "data byte"),
        ("a.xml", MUSICXML[:300].encode(), "unreadable MusicXML", ""),
        ("a.mxl", b"PK\x03\x04rest", "unreadable MusicXML", ""),
    ],
)
def test_what_cannot_be_read_says_why(name: str, data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(ReadError, match=reason) as raised:
        read_units(name, data)
    assert raised.value.reason == reason
    assert detail in raised.value.detail
    assert "\n" not in str(raised.value)


def test_a_file_of_many_hours_is_refused_before_memory_is_taken() -> None:
    data = midi((0, note_on(60)), (2**28 - 1, note_off(60)))
    with pytest.raises(ReadError, match="MIDI file too long: 268435455 ticks, more than 33554432"):
        read_units("a.mid", data)


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "MAX_UNPACKED_BYTES", 500)
    with pytest.raises(ReadError, match=r"MusicXML too large: [0-9]+ bytes unpacked"):
        read_units("a.mxl", mxl(MUSICXML))


def test_tempo_changes_outside_the_first_track_are_ignored_without_a_warning() -> None:
    one = midi((0, note_on(60)), (480, note_off(60)))
    two = midi((0, b"\xff\x51\x03" + (250_000).to_bytes(3, "big")), (0, note_on(62)))
    data = one[:8] + b"\x00\x01\x00\x02" + one[12:] + two[14:]
    assert notes_from_sequence(only("a.mid", data).sequence).tempos == ((0.0, 120.0),)


def test_note_seq_is_imported_by_the_first_file_only() -> None:
    code = "import data_pipeline.extraction.extract, sys; print('note_seq' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_bad_files_are_read_or_refused_as_their_list_says(shared: pathlib.Path) -> None:
    folder = shared / "data" / "bad"
    table = [line.split("|") for line in (folder / "README.md").read_text().splitlines()]
    expected = {cells[1].strip().strip("`"): cells[4].strip() for cells in table if len(cells) == 6}
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name != "README.md"]
    assert len(names) == 80
    refused = {}
    for name in names:
        try:
            (unit,) = read_units(name, (folder / name).read_bytes())
        except ReadError as error:
            refused[name] = error.reason
        else:
            assert unit.sequence is not None
            assert expected[name].startswith(f"reads, {len(unit.sequence.notes)} notes"), name
    assert all(expected[name].startswith("MIDIConversionError") for name in refused)
    assert set(refused.values()) == {
        "empty file",
        "not a MIDI file",
        "unreadable MIDI",
        "MIDI file too long",
    }

from __future__ import annotations

import io
import pathlib
import subprocess
import sys
import warnings
from typing import Any

import mido
import numpy as np
import pytest

from data_pipeline.fast import events
from data_pipeline.fast import tempo as midi_time
from data_pipeline.fast.midi import FastReadError, read_table
from data_pipeline.reading.notes import import_note_seq
from tests.support.midi_bytes import END, chunk, meter, midi, random_song, read_midi, tempo, track

SILENT_SMPTE = midi(END, division=-6400)  # 25 frames a second
TOO_LONG = {"delta_huge.mid", "delta_huge_x20.mid", "note_length_huge.mid", "vlq_5_bytes.mid"}


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, so that no test writes a seed."""
    return np.random.default_rng(0)


def by_note_seq(data: bytes) -> dict[str, Any] | None:
    """What note-seq reads, None if it refuses."""
    note_seq = import_note_seq()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sequence = note_seq.midi_to_note_sequence(data)
        except note_seq.MIDIConversionError:
            return None
    return {
        "notes": [
            (n.start_time, n.end_time, n.pitch, n.program, n.instrument, n.is_drum)
            for n in sequence.notes
        ],
        "tempos": tuple((t.time, t.qpm) for t in sequence.tempos),
        "meters": tuple((m.time, m.numerator, m.denominator) for m in sequence.time_signatures),
        "total": sequence.total_time,
    }


def by_us(data: bytes) -> dict[str, Any] | None:
    """What the compiled reader reads, None if it refuses."""
    try:
        made = read_midi(data)
    except FastReadError:
        return None
    return {
        "notes": made.notes.tolist(),
        "tempos": made.tempos,
        "meters": made.meters,
        "total": made.total_seconds,
    }


def ticks(data: bytes) -> list[list[int]]:
    """Start tick, end tick, pitch and instrument of each note, the same as note-seq's."""
    made = by_us(data)
    assert made is not None
    assert made == by_note_seq(data)
    return read_table(data).notes.tolist()


def test_a_note_lasts_from_on_to_off() -> None:
    data = midi("00 90 3C 40  04 80 3C 40" + END)
    assert ticks(data) == [[0, 4, 60, 0]]
    made = read_midi(data)
    assert made.notes.tolist() == [(0.0, 0.5, 60, 0, 0, False)]
    assert (made.tempos, made.meters, made.total_seconds) == (((0.0, 120.0),), (), 0.5)


def test_an_on_without_velocity_is_an_off_and_running_status_repeats_the_message() -> None:
    assert ticks(midi("00 90 3C 40  04 3C 00  00 3E 40  04 3E 00" + END)) == [
        [0, 4, 60, 0],
        [4, 8, 62, 0],
    ]


def test_an_off_closes_every_note_of_its_pitch_that_began_earlier() -> None:
    assert ticks(midi("00 90 3C 40  02 90 3C 50  02 80 3C 40  02 80 3C 40" + END)) == [
        [0, 4, 60, 0],
        [2, 4, 60, 0],
    ]


def test_a_note_begun_on_the_tick_of_an_off_stays_only_if_that_closed_another() -> None:
    stays = "00 90 3C 40  04 90 3C 40  00 80 3C 40  04 80 3C 40"
    assert ticks(midi(stays + END)) == [[0, 4, 60, 0], [4, 8, 60, 0]]
    goes = "04 90 3C 40  00 80 3C 40  04 80 3C 40"
    assert ticks(midi(goes + END)) == []


def test_notes_never_closed_and_offs_of_other_channels_or_tracks_give_nothing() -> None:
    assert ticks(midi("00 90 3C 40  04 81 3C 40" + END, "04 80 3C 40" + END)) == []


def test_the_program_is_that_of_the_channel_at_the_note_off_within_the_track() -> None:
    data = midi(
        "00 C0 05  00 90 3C 40  04 C0 07  00 80 3C 40" + END,
        "00 90 3C 40  04 80 3C 40" + END,
    )
    assert [note[3] for note in read_midi(data).notes.tolist()] == [7, 0]
    assert by_us(data) == by_note_seq(data)


def test_instruments_are_numbered_by_their_first_off_and_notes_listed_by_instrument() -> None:
    data = midi(
        "00 90 3C 40  00 99 24 40  02 89 24 40  02 80 3C 40  00 99 24 40  02 89 24 40" + END
    )
    assert ticks(data) == [[0, 2, 36, 0], [4, 6, 36, 0], [0, 4, 60, 1]]
    assert read_midi(data).notes["is_drum"].tolist() == [True, True, False]


def test_the_wait_before_an_unknown_meta_event_is_lost() -> None:
    assert ticks(midi("00 90 3C 40  04 FF 60 00  04 80 3C 40" + END)) == [[0, 4, 60, 0]]
    assert ticks(midi("00 90 3C 40  04 FF 06 00  04 80 3C 40" + END)) == [[0, 8, 60, 0]]


def test_a_status_after_system_exclusive_bytes_is_not_forgotten() -> None:
    # The byte that would be a note stands for the repeated status F0 and is dropped.
    assert ticks(midi("00 90 3C 40  00 F0 01 F7  00 3C 01 05  04 80 3C 40" + END)) == [
        [0, 4, 60, 0]
    ]


def test_tempo_and_meter_count_in_the_first_track_only() -> None:
    first = track([(0, tempo(250_000)), (0, meter(3, 2)), (8, tempo(1_000_000))])
    other = track([(0, tempo(9)), (0, meter(0, 40)), (16, meter(5, 3))])
    data = midi(first, other, "00 90 3C 40  10 80 3C 40" + END)
    made = read_midi(data)
    assert made.tempos == ((0.0, 240.0), (0.5, 60.0))
    assert made.meters == ((0.0, 3, 4),)
    assert made.total_seconds == 2.5
    assert by_us(data) == by_note_seq(data)


def test_an_equal_tempo_makes_no_change_and_the_last_of_several_at_the_start_counts() -> None:
    changes = [(0, 250_000), (0, 500_000), (4, 500_000), (8, 400_000), (8, 300_000)]
    data = midi(track([(tick, tempo(value)) for tick, value in changes]))
    assert read_midi(data).tempos == ((0.0, 120.0), (1.0, 150.0), (1.0, 200.0))
    assert by_us(data) == by_note_seq(data)


def test_seconds_have_the_roundings_of_plain_float64_arithmetic(rng: np.random.Generator) -> None:
    changes = np.stack([np.cumsum(rng.integers(1, 900, 50)), rng.integers(1, 2**24, 50)], axis=1)
    tempos = midi_time.tempo_map(changes, 96)
    where = rng.integers(0, 40_000, (500, 1))
    row = tempos[np.searchsorted(tempos[:, 0], where[:, 0], side="right") - 1]
    expected = row[:, 1] + row[:, 2] * (where[:, 0] - row[:, 0])
    assert midi_time.to_seconds(where, 1, tempos)[:, 0].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no MThd header"),
        (b"RIFF" + midi(END), "no MThd header"),
        (b"MThd\0\0\0\6\0\1", "header cut short"),
        (midi(END, num_tracks=0), "no tracks"),
        (midi(END, num_tracks=-1), "no tracks"),
        (midi(END, division=0), "division of 0"),
        (midi("00 90 3C 40  04 80 3C 40" + END, division=-6400), "SMPTE division"),
        (midi(END, num_tracks=2), "no MTrk header"),
        (midi(END).replace(b"MTrk", b"XFIH"), "no MTrk header"),
        (midi(END)[:-1], "track ends inside an event"),
        (midi(END + "00 90 3C"), "track ends inside an event"),
        (midi(END + "00 C0"), "track ends inside an event"),
        (midi(END + "00 FF 01 05 41"), "track ends inside an event"),
        (midi(END + "81"), "track ends inside an event"),
        (midi(END, ""), "empty track"),
        (midi("00 3C 40" + END), "running status without status"),
        (midi("00 F4" + END), "undefined status byte"),
        (midi("00 F9" + END), "undefined status byte"),
        (midi("00 F8  00 01" + END), "undefined status byte"),
        (midi("00 90 3C C8" + END), "data byte over 127"),
        (midi("00 90 80 40" + END), "data byte over 127"),
        (midi("00 C0 80" + END), "data byte over 127"),
        (midi("00 F0 03 F0 F0 F7" + END), "data byte over 127"),
        (midi("00 F3 90" + END), "data byte over 127"),
        (midi("00 FF 01 BD 84 41" + END), "message over 1,000,000 bytes"),
        (midi("00 F0 FF FF FF FF FF FF FF FF FF 01" + END), "message over 1,000,000 bytes"),
        (midi(track([(10**10, b"\xff\x01\x00")])), "last tick over 1e10"),
        (midi("00 FF 51 02 01 02" + END), "short or impossible meta event"),
        (midi("00 FF 58 03 04 02 18" + END), "short or impossible meta event"),
        (midi("00 FF 00 01 01" + END), "short or impossible meta event"),
        (midi("00 FF 20 00" + END), "short or impossible meta event"),
        (midi("00 FF 54 05 80 00 00 00 00" + END), "short or impossible meta event"),
        (midi("00 FF 54 05 00 3C 00 00 00" + END), "short or impossible meta event"),
        (midi("00 FF 54 05 00 00 00 00 64" + END), "short or impossible meta event"),
        (midi("00 FF 59 02 08 00" + END), "impossible key signature"),
        (midi("00 FF 59 02 F8 00" + END), "impossible key signature"),
        (midi("00 FF 59 02 00 02" + END), "impossible key signature"),
        (midi(track([(0, meter(0, 2))])), "impossible time signature"),
        (midi(track([(0, meter(4, 31))])), "impossible time signature"),
        (midi(END, track([(0, meter(4, 29))])), "impossible time signature"),
        (midi(track([(0, tempo(0))])), "tempo of 0"),
    ],
)
def test_what_note_seq_refuses_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(FastReadError, match=f"^{reason}$"):
        read_midi(data)
    assert by_note_seq(data) is None


@pytest.mark.parametrize(
    "data",
    [
        midi("00 F0 02 F0 F7  00 F7 00  00 F0 01 F7" + END),
        midi("00 F1 7F  00 F2 00 01  00 F3 05  00 F6  00 F8  00 FE" + END),
        midi("00 F2 00 01  00 02 03" + END),
        midi("00 FF 21 00  00 FF 00 00  00 FF 08 00  00 FF 7F 02 80 FF" + END),
        midi("00 FF 59 02 F9 01  00 FF 59 02 07 00  00 FF 54 05 7F 3B 3B FF 63" + END),
        midi("00 A0 01 02  00 B0 03 04  00 D0 05  00 E0 06 07  00 E0 00 40" + END),
        midi(track([(0, meter(255, 30))]), track([(3, meter(0, 255)), (4, tempo(0))]), kind=2),
        midi(END + "00 90 3C 40  04 80 3C 40"),
        midi("FF FF FF 7F FF 60 00  00 90 3C 40  04 80 3C 40" + END),
        midi(END)[:4] + b"\0\0\0\x08" + midi(END)[8:14] + b"ab" + chunk(END) + b"behind",
    ],
)
def test_what_note_seq_reads_is_read_alike(data: bytes) -> None:
    made = by_us(data)
    assert made is not None
    assert made == by_note_seq(data)


def test_a_silent_smpte_file_is_left_to_note_seq() -> None:
    with pytest.raises(FastReadError, match=r"^SMPTE division$"):
        read_midi(SILENT_SMPTE)
    assert by_note_seq(SILENT_SMPTE) == {
        "notes": [],
        "tempos": ((0.0, 120.0),),
        "meters": (),
        "total": 0.0,
    }


def test_random_songs_are_read_alike(rng: np.random.Generator) -> None:
    for _ in range(25):
        data = random_song(rng, num_tracks=4, num_bars=6)
        made = by_us(data)
        assert made is not None
        assert made == by_note_seq(data)


def test_damaged_songs_are_read_or_refused_alike(rng: np.random.Generator) -> None:
    refused = read = 0
    for _ in range(400):
        data = bytearray(random_song(rng, num_tracks=2, num_bars=1))
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(8, len(data)))] = int(rng.integers(0, 256))
        if data[12] & 128 or _is_long(bytes(data)):
            continue  # SMPTE has its own test, and note-seq would need a gigabyte
        made = by_us(bytes(data))
        assert made == by_note_seq(bytes(data)), data.hex()
        refused, read = refused + (made is None), read + (made is not None)
    assert refused > 50
    assert read > 50


def _is_long(data: bytes) -> bool:
    """Whether a file has so many ticks that reading it with note-seq costs memory."""
    try:
        tracks = mido.MidiFile(file=io.BytesIO(data)).tracks
    except Exception:  # mido has no list of what damaged bytes make it raise
        return False
    return any(sum(event.time for event in t) > 2**20 for t in tracks)


def test_real_files_are_read_alike(shared: pathlib.Path) -> None:
    files = sorted((shared / "data" / "mini").glob("*.mid"))
    assert len(files) == 59
    for path in files[::4]:
        data = path.read_bytes()
        assert by_us(data) == by_note_seq(data), path.name


def test_bad_files_are_read_or_refused_alike(shared: pathlib.Path) -> None:
    files = [path for path in sorted((shared / "data" / "bad").iterdir()) if path.is_file()]
    assert len(files) == 81
    for path in files:
        data = path.read_bytes()
        if path.name in TOO_LONG:  # note-seq needs more memory than there is
            assert len(read_midi(data).notes) > 0
        else:
            assert by_us(data) == by_note_seq(data), path.name


def test_reading_does_not_load_note_seq() -> None:
    code = "import sys, data_pipeline.fast.rows; print({'note_seq', 'librosa'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_reader_is_compiled_for_one_type_of_input_only() -> None:
    read_midi(midi(END))
    read_midi(bytes(midi("00 90 3C 40  04 80 3C 40" + END)))
    for function in (events.read_events, events.pair_notes, events.time_changes):
        assert len(vars(function).get("overloads", {})) == 1

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from data_pipeline.codecs.codec import cutter_of
from data_pipeline.codecs.pieces import Excerpt, Piece, piece_of
from data_pipeline.extraction import extract
from data_pipeline.extraction.excerpts import read_excerpt
from data_pipeline.reading import notes
from data_pipeline.reading.segments import NOTE_DTYPE, NoteArrays, Segment
from data_pipeline.render import files
from musicvae_jax.config import InputError
from musicvae_jax.tasks import NOTE_OFF, TASKS, Task
from tests.support.note_lists import segment, steps

BAR = 16


def quarters(first_bar: int, num_bars: int, pitch: int) -> list[tuple[int, int, int]]:
    """Four notes a bar, rising."""
    starts = range(first_bar * BAR, (first_bar + num_bars) * BAR, 4)
    return [(start, start + 4, pitch + number % 12) for number, start in enumerate(starts)]


def walking_row(num_bars: int, pitch: int) -> np.ndarray:
    """A melody row with a note on every quarter."""
    row = np.zeros(num_bars * BAR, np.uint8)
    row[::4] = pitch - 19 + np.arange(num_bars * 4) % 12
    return row


def excerpts(part: Segment, task: Task) -> list[Excerpt]:
    """The rows of one segment."""
    return cutter_of(task).excerpts(Piece(NoteArrays(np.zeros(0, NOTE_DTYPE)), [part]), task)


@pytest.fixture
def walk(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file with one melody: 6 bars of quarter notes."""
    path = tmp_path / "walk.mid"
    files.write_midi(path, walking_row(6, 60), "mel_2bar")
    return path


def test_bars_count_from_the_pieces_start_and_breaks_divide_tracks() -> None:
    melody = [*quarters(2, 3, 60), *quarters(8, 2, 60)]
    found = excerpts(segment(steps(*melody, instrument=4)), TASKS["mel_2bar"])
    assert [p.start_bar for p in found] == [3, 4, 9]
    assert {p.instruments for p in found} == {(4,)}
    assert [p.num_notes for p in found] == [8, 8, 8]


def test_chords_and_pitches_without_a_token_count_as_left_out() -> None:
    melody = steps(*quarters(0, 2, 60), (0, 4, 50), (4, 8, 120))
    (found,) = excerpts(segment(melody), TASKS["mel_2bar"])
    assert (found.num_notes, found.num_kept) == (10, 8)


def test_drums_are_taken_together_and_hits_of_no_class_count_as_left_out() -> None:
    kick = steps((16, 17, 36), (30, 31, 36), (40, 41, 36), is_drum=True, instrument=9)
    snare = steps((16, 17, 38), (24, 25, 1), is_drum=True, instrument=10)
    (found,) = excerpts(segment(kick, snare), TASKS["drums_2bar"])
    assert (found.start_bar, found.num_notes, found.num_kept) == (2, 5, 4)
    assert found.describe() == ": bars 2-3, drums, 4 of 5 notes kept"


def test_a_trio_names_its_three_instruments() -> None:
    band = segment(
        steps(*quarters(0, 17, 60), instrument=5),
        steps(*quarters(0, 17, 40), instrument=3, program=33),
        steps(*quarters(0, 17, 36), instrument=7, is_drum=True),
    )
    found = excerpts(band, TASKS["trio_16bar"])
    assert [p.start_bar for p in found] == [1, 2]
    assert "bars 2-17, tracks 5, 3, 7, " in found[1].describe()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_excerpts_are_the_rows_of_extract(shared: pathlib.Path, task: Task) -> None:
    for path in sorted((shared / "data" / "mini").glob("openmsx*.mid")):
        for unit in notes.read_units(path.name, path.read_bytes()):
            assert unit.sequence is not None
            arrays = notes.notes_from_sequence(unit.sequence)
            found = [p.row for p in cutter_of(task).excerpts(piece_of(arrays), task)]
            rows = extract.rows_from_notes(arrays, task.name, dedupe=False).rows
            assert np.array_equal(np.reshape(found, (-1, *task.row_shape)), rows)


def test_a_file_gives_its_first_row_or_the_one_at_a_bar(walk: pathlib.Path) -> None:
    first, third = read_excerpt(walk, "mel_2bar"), read_excerpt(walk, "mel_2bar", start_bar=3)
    assert np.array_equal(first.row, walking_row(6, 60)[:32])
    assert np.array_equal(third.row, walking_row(6, 60)[32:64])
    assert third.describe() == "walk.mid: bars 3-4, track 0, 8 of 8 notes kept"


def test_the_track_with_the_most_notes_is_taken(tmp_path: pathlib.Path) -> None:
    trio = np.zeros((256, 3), np.uint16)
    trio[::8, 0], trio[::4, 1], trio[::16, 2] = 40, 30, 1
    files.write_midi(tmp_path / "band.mid", trio, "trio_16bar")
    excerpt = read_excerpt(tmp_path / "band.mid", "mel_16bar")
    assert (excerpt.num_kept, int(excerpt.row[0])) == (64, 30)


def test_a_part_after_a_change_of_tempo_is_named(tmp_path: pathlib.Path) -> None:
    sequence = files.row_to_sequence(walking_row(6, 60), "mel_2bar")
    sequence.tempos.add(time=4.0, qpm=90.0)
    (tmp_path / "slower.mid").write_bytes(files.midi_bytes(sequence))
    excerpt = read_excerpt(tmp_path / "slower.mid", "mel_2bar")
    assert "bars 1-2 of the part from 4.0 s, " in excerpt.describe()


def test_the_end_of_a_piece(walk: pathlib.Path) -> None:
    end = read_excerpt(walk, "mel_2bar", at_end=True)
    assert np.array_equal(end.row, walking_row(6, 60)[64:96])
    assert end.describe() == "walk.mid: bars 5-6, track 0, 8 of 8 notes kept"


def test_shorter_music_is_filled_up_with_silence(walk: pathlib.Path) -> None:
    row = np.zeros(256, np.uint8)
    row[:96] = walking_row(6, 60)
    begin = read_excerpt(walk, "mel_16bar", pad=True)
    expected = row.copy()
    expected[96] = NOTE_OFF  # the last note ends where the music does
    assert np.array_equal(begin.row, expected)
    said = "walk.mid: bars 1-6, track 0, 24 of 24 notes kept, shorter than the window: "
    assert begin.describe() == f"{said}10 bars of silence added after it"
    end = read_excerpt(walk, "mel_16bar", pad=True, at_end=True)
    assert np.array_equal(end.row, np.roll(row, 160))
    assert end.describe() == f"{said}10 bars of silence added before it"
    assert read_excerpt(walk, "mel_2bar", pad=True).silence == (0, 0)


def test_a_short_beat_is_filled_up(tmp_path: pathlib.Path) -> None:
    beat = np.zeros(16, np.uint16)
    beat[::4] = 1
    files.write_midi(tmp_path / "beat.mid", beat, "drums_2bar")
    excerpt = read_excerpt(tmp_path / "beat.mid", "drums_2bar", pad=True)
    assert np.flatnonzero(excerpt.row).tolist() == [0, 4, 8, 12]
    assert excerpt.describe().endswith("1 bar of silence added after it")


@pytest.mark.parametrize(
    ("task", "bar", "message"),
    [
        ("mel_2bar", 6, r"start_bar: no row of .*walk.mid begins at bar 6; those that do: 1-5$"),
        ("drums_2bar", None, r"input: .*walk.mid has no row of drums_2bar: no drums$"),
        ("mel_16bar", None, r"input: .*walk.mid has no row of mel_16bar: too short$"),
    ],
)
def test_what_a_file_does_not_have_is_refused(
    walk: pathlib.Path, task: str, bar: int | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_excerpt(walk, task, start_bar=bar)


def test_a_file_in_another_meter_names_the_way_out(tmp_path: pathlib.Path) -> None:
    sequence = files.row_to_sequence(walking_row(6, 60), "mel_2bar")
    sequence.time_signatures.add(numerator=3, denominator=4)
    path = tmp_path / "waltz.mid"
    path.write_bytes(files.midi_bytes(sequence))
    with pytest.raises(InputError, match=r"not 4/4 \(--meter=any ignores time signatures\)"):
        read_excerpt(path, "mel_2bar")
    assert read_excerpt(path, "mel_2bar", meter="any").num_kept == 8


def test_a_track_can_be_chosen_whatever_its_program(tmp_path: pathlib.Path) -> None:
    sequence = files.row_to_sequence(walking_row(6, 60), "mel_2bar", program=73)
    for note in list(sequence.notes):
        lower = sequence.notes.add()
        lower.CopyFrom(note)
        lower.pitch, lower.program, lower.instrument = note.pitch - 24, 40, 1
    path = tmp_path / "duet.mid"
    path.write_bytes(files.midi_bytes(sequence))
    there = r"0 \(program 73\), 1 \(program 40\)"
    with pytest.raises(InputError, match=rf"programs 0..31 \(choose .* --track: {there}\)"):
        read_excerpt(path, "mel_2bar")
    flute, violin = (read_excerpt(path, "mel_2bar", track=track) for track in (0, 1))
    assert "track 0," in flute.describe()
    assert "track 1," in violin.describe()
    assert np.array_equal(flute.row, walking_row(2, 60))
    assert np.array_equal(violin.row, walking_row(2, 36))
    with pytest.raises(InputError, match=rf"duet.mid has no notes in track 2; .*: {there}$"):
        read_excerpt(path, "mel_2bar", track=2)
    with pytest.raises(InputError, match="track: only for tasks of one melody"):
        read_excerpt(path, "trio_16bar", track=0)


def test_an_unreadable_file_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "not.mid").write_bytes(b"RIFF1234")
    with pytest.raises(InputError, match=r"input: .*not.mid cannot be read: not a MIDI file"):
        read_excerpt(tmp_path / "not.mid", "mel_2bar")
    with pytest.raises(InputError, match=r"absent.mid cannot be read: No such file"):
        read_excerpt(tmp_path / "absent.mid", "mel_2bar")

from __future__ import annotations

import collections
import json
import pathlib
import tarfile
from typing import Any

import numpy as np
import pytest

from data_pipeline.codecs import melody
from data_pipeline.extraction import extract
from data_pipeline.extraction.engines import extract_rows
from data_pipeline.extraction.extract import rows_from_notes, tasks_from_notes
from data_pipeline.reading import notes
from data_pipeline.reading.extraction import TOO_SHORT
from data_pipeline.reading.segments import BAD_METER, NOT_4_4
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS
from tests.support.note_lists import SECONDS_PER_STEP, row, segment, steps, unit

REFERENCE_CONFIGS = {
    "mel_2bar": "cat-mel_2bar_big",
    "mel_16bar": "hierdec-mel_16bar",
    "drums_2bar": "cat-drums_2bar_small",
    "drums_16bar": "drums_16bar",
    "trio_16bar": "hierdec-trio_16bar",
}
TWO_BARS = steps((0, 16, 60), (16, 32, 62))


@pytest.fixture(scope="module")
def golden_files(shared: pathlib.Path) -> list[dict[str, Any]]:
    """The golden index, with each file's bytes under "data"."""
    files = json.loads((shared / "golden" / "conversion_index.json").read_text())["files"]
    for archive in {file["archive"] for file in files}:
        wanted = {file["member"]: file for file in files if file["archive"] == archive}
        with tarfile.open(shared / "data" / archive) as tar:
            for member in tar:
                if member.name in wanted:
                    content = tar.extractfile(member)
                    assert content is not None
                    wanted[member.name]["data"] = content.read()
    return files


@pytest.fixture(scope="module")
def golden_sequences(golden_files: list[dict[str, Any]]) -> list[Any]:
    """Each file of the golden index, read once."""
    return [notes.read_units(f["member"], f["data"])[0].sequence for f in golden_files]


def counted(rows: np.ndarray) -> collections.Counter[bytes]:
    return collections.Counter(row.tobytes() for row in np.asarray(rows, np.int16))


@pytest.mark.parametrize("task", TASKS)
def test_every_golden_file_gives_the_rows_of_the_reference(
    task: str,
    shared: pathlib.Path,
    golden_files: list[dict[str, Any]],
    golden_sequences: list[Any],
) -> None:
    config = REFERENCE_CONFIGS[task]
    golden = np.load(shared / "golden" / f"conversion_{config}.npz")
    assert len(golden_files) == 48
    for index, (file, sequence) in enumerate(zip(golden_files, golden_sequences, strict=True)):
        rows = extract.extract_tasks(sequence, [task])[task].rows
        assert len(rows) == file["counts"][config], file["member"]
        expected = golden["tokens"][golden["file_index"] == index]
        assert counted(rows) == counted(expected), file["member"]


def test_rows_of_bytes_and_of_a_path_are_those_of_the_sequence(
    tmp_path: pathlib.Path, golden_files: list[dict[str, Any]], golden_sequences: list[Any]
) -> None:
    index = max(range(48), key=lambda i: golden_files[i]["counts"]["hierdec-trio_16bar"])
    data = golden_files[index]["data"]
    expected = extract.extract_tasks(golden_sequences[index], ["trio_16bar"])["trio_16bar"].rows
    assert len(expected) > 100
    assert np.array_equal(extract_rows(data, "trio_16bar"), expected)
    (tmp_path / "song.mid").write_bytes(data)
    assert np.array_equal(extract_rows(tmp_path / "song.mid", "trio_16bar"), expected)


@pytest.mark.parametrize("task", TASKS)
def test_rows_have_the_shape_and_type_of_the_task_also_when_there_are_none(task: str) -> None:
    drums = steps(*((s, s + 1, 36) for s in range(0, 256, 4)), instrument=2, is_drum=True)
    bass = steps(*((s, s + 4, 40) for s in range(0, 256, 4)), program=33, instrument=1)
    lead = steps(*((s, s + 4, 60) for s in range(0, 256, 4)))
    for music, some in ((unit(lead, bass, drums), True), (unit(steps((0, 4, 60))), False)):
        extraction = rows_from_notes(music, task)
        assert extraction.rows.shape[1:] == TASKS[task].row_shape
        assert extraction.rows.dtype == np.dtype(TASKS[task].token_dtype)
        assert bool(len(extraction.rows)) == some
        assert (extraction.why_empty is None) == some


def test_several_tasks_at_once_give_what_each_gives_alone() -> None:
    music = unit(TWO_BARS, steps((0, 1, 36), (30, 31, 38), is_drum=True, instrument=1))
    together = tasks_from_notes(music, TASKS)
    assert list(together) == list(TASKS)
    for task, extraction in together.items():
        alone = rows_from_notes(music, task)
        assert np.array_equal(extraction.rows, alone.rows)
        assert extraction.reasons == alone.reasons


def test_duplicates_go_within_a_piece_and_stay_between_pieces() -> None:
    same = steps(*((bar * 16, bar * 16 + 16, 60) for bar in range(8)))
    whole = rows_from_notes(unit(same), "mel_2bar")
    assert whole.rows.tolist() == [row(32, s0=41, s16=41)]
    assert whole.rows_before_dedupe == 7
    assert len(rows_from_notes(unit(same), "mel_2bar", dedupe=False).rows) == 7
    # The change from 4/4 to 8/8 splits at bar 4, and both are bars of 16 steps.
    split = unit(same, meters=((64 * SECONDS_PER_STEP, 8, 8),))
    assert len(rows_from_notes(split, "mel_2bar").rows) == 2


def test_different_rows_keep_their_order() -> None:
    music = unit(steps((0, 16, 70), (16, 32, 60), (32, 48, 65)))
    assert rows_from_notes(music, "mel_2bar").rows[:, 0].tolist() == [51, 41]


def test_the_two_bar_melodies_take_programs_below_32_the_long_ones_all() -> None:
    notes = steps(*((bar * 16, bar * 16 + 16, 60) for bar in range(16)), program=73)
    short, long = (rows_from_notes(unit(notes), task) for task in ("mel_2bar", "mel_16bar"))
    assert short.why_empty == "no melody in programs 0..31"
    assert len(long.rows) == 1


def test_pieces_without_rows_are_counted_by_reason() -> None:
    second = 32 * SECONDS_PER_STEP
    music = unit(
        steps((0, 16, 60), (16, 32, 62), (32, 40, 64), (60, 64, 60)),
        meters=((second, 3, 4), (1.5 * second, 0, 4), (1.75 * second, 4, 4)),
    )
    extraction = rows_from_notes(music, "mel_2bar")
    assert len(extraction.rows) == 1
    assert extraction.reasons == {NOT_4_4: 1, BAD_METER: 1, TOO_SHORT: 1}
    assert extraction.why_empty is None


def test_why_empty_is_the_reason_of_the_piece_with_most_notes() -> None:
    music = unit(
        steps((0, 4, 60), (4, 8, 60), (8, 12, 60), (16, 24, 60)),
        meters=((0.0, 3, 4), (16 * SECONDS_PER_STEP, 4, 4)),
    )
    extraction = rows_from_notes(music, "mel_2bar")
    assert extraction.reasons == {NOT_4_4: 1, TOO_SHORT: 1}
    assert extraction.why_empty == NOT_4_4


def test_music_without_notes_says_so() -> None:
    extraction = rows_from_notes(unit(steps()), "drums_2bar")
    assert (extraction.why_empty, extraction.reasons) == ("no notes", {"no notes": 1})


def test_any_meter_reads_a_corpus_whose_stated_meter_is_wrong() -> None:
    music = unit(TWO_BARS, meters=((0.0, 1, 4),))
    assert rows_from_notes(music, "mel_2bar").why_empty == NOT_4_4
    rows = rows_from_notes(music, "mel_2bar", meter="any").rows
    assert rows.tolist() == [row(32, s0=41, s16=43)]


def test_the_kept_row_is_the_codecs_row() -> None:
    rows = rows_from_notes(unit(TWO_BARS), "mel_2bar").rows
    found = melody.encode(segment(TWO_BARS), TASKS["mel_2bar"].tracks[0], 32)
    assert not isinstance(found, str)
    assert np.array_equal(rows, found.rows)


def test_all_tunes_of_a_tunebook_give_rows_and_a_bad_one_none() -> None:
    tune = "X:{}\nT:a\nM:4/4\nL:1/4\nK:C\n{}\n"
    book = "\n".join([tune.format(1, "CDEF|GABc|"), tune.format(2, "[CE]"), tune.format(3, "C8|")])
    assert extract_rows(book.encode(), "mel_2bar").tolist() == [
        row(32, s0=41, s4=43, s8=45, s12=46, s16=48, s20=50, s24=52, s28=53),
        row(32, s0=41),
    ]


def test_an_unknown_task_and_an_unreadable_file_are_refused() -> None:
    with pytest.raises(InputError, match="task: 'mel_4bar' is not one of mel_2bar"):
        rows_from_notes(unit(TWO_BARS), "mel_4bar")
    with pytest.raises(notes.ReadError, match="not a music file"):
        extract_rows(b"hello", "mel_2bar")

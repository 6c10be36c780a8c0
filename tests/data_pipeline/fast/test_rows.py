from __future__ import annotations

import collections
import json
import pathlib
import tarfile

import numpy as np
import pytest

from data_pipeline.codecs import trio
from data_pipeline.extraction.extract import tasks_from_notes
from data_pipeline.fast import cut
from data_pipeline.fast import trio as fast_trio
from data_pipeline.fast.midi import FastReadError
from data_pipeline.fast.rows import extract_fast, warm_up
from data_pipeline.reading.extraction import Extraction
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS
from tests.support.midi_bytes import END, meter, midi, random_song, read_midi, tempo, track

REFERENCE_CONFIGS = {
    "mel_2bar": "cat-mel_2bar_big",
    "mel_16bar": "hierdec-mel_16bar",
    "drums_2bar": "cat-drums_2bar_small",
    "drums_16bar": "drums_16bar",
    "trio_16bar": "hierdec-trio_16bar",
}
BAR = 16  # ticks at 4 per quarter: one per step


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, so that no test writes a seed."""
    return np.random.default_rng(1)


def assert_same(
    data: bytes, *, meter: str = "4/4", dedupe: bool = True, programs: str | None = None
) -> dict[str, Extraction]:
    """Rows, their order, and all reasons are those of the reference path."""
    unit = read_midi(data)
    expected = tasks_from_notes(unit, TASKS, meter=meter, dedupe=dedupe, programs=programs)
    made = extract_fast(data, TASKS, meter=meter, dedupe=dedupe, programs=programs)
    for task in TASKS:
        ours, theirs = made[task], expected[task]
        assert ours.rows.dtype == theirs.rows.dtype, task
        assert ours.rows.shape == theirs.rows.shape, task
        assert np.array_equal(ours.rows, theirs.rows), task
        assert ours.bars.tolist() == theirs.bars.tolist(), task
        assert ours.reasons == theirs.reasons, task
        assert ours.why_empty == theirs.why_empty, task
        assert ours.rows_before_dedupe == theirs.rows_before_dedupe, task
    return made


def song(*notes: tuple[int, int, int, int], programs: dict[int, int] | None = None) -> bytes:
    """A file of notes (start step, end step, channel, pitch) at one tick per step."""
    events = [(0, bytes([0xC0 | channel, p])) for channel, p in (programs or {}).items()]
    for start, end, channel, pitch in notes:
        events += [
            (start, bytes([0x90 | channel, pitch, 64])),
            (end, bytes([0x80 | channel, pitch, 0])),
        ]
    return midi(track(events))


def test_a_hand_made_melody_gives_its_rows() -> None:
    made = assert_same(song((0, 4, 0, 60), (8, 16, 0, 62), (20, 22, 0, 64), (20, 32, 0, 60)))
    expected = np.zeros(32, np.uint8)
    expected[[0, 4, 8, 16, 20, 22]] = [41, 1, 43, 1, 45, 1]
    assert made["mel_2bar"].rows.tolist() == [expected.tolist()]
    assert made["drums_2bar"].why_empty == "no drums"
    assert made["mel_16bar"].why_empty == "too short"


def test_hand_made_drums_give_their_rows() -> None:
    made = assert_same(song((0, 1, 9, 36), (0, 1, 9, 42), (16, 17, 9, 38), (3, 4, 9, 3)))
    expected = np.zeros(32, np.uint16)
    expected[[0, 16]] = [0b101, 0b010]
    assert made["drums_2bar"].rows.tolist() == [expected.tolist()]


def test_a_note_off_before_the_first_note_of_a_window_is_cleared() -> None:
    made = assert_same(song((0, 20, 0, 60), (24, 48, 0, 62)))
    assert np.flatnonzero(made["mel_2bar"].rows[1]).tolist() == [8]


def test_equal_windows_of_a_piece_are_kept_once_and_counted() -> None:
    bars = [(BAR * bar, BAR * bar + 4, 0, 60) for bar in range(8)]
    made = assert_same(song(*bars))["mel_2bar"]
    assert (len(made.rows), made.rows_before_dedupe) == (1, 7)
    assert assert_same(song(*bars), dedupe=False)["mel_2bar"].bars.tolist() == list(range(7))


def test_bars_are_counted_from_the_start_of_the_piece() -> None:
    melody = [(BAR * bar, BAR * bar + 12, 0, 60 + bar) for bar in (3, 4, 5, 9, 10)]
    assert assert_same(song(*melody))["mel_2bar"].bars.tolist() == [3, 4, 9]


def test_equal_windows_of_two_pieces_are_both_kept() -> None:
    bars = track(
        (BAR * bar + offset, bytes([0x90, 60, velocity]))
        for bar in range(8)
        for offset, velocity in ((0, 64), (4, 0))
    )
    changes = track([(0, tempo(500_000)), (4 * BAR, tempo(400_000))])
    assert len(assert_same(midi(changes, bars))["mel_2bar"].rows) == 2


def test_a_long_melody_is_cut_after_100_bars_and_the_search_continues() -> None:
    held = [(0, 120 * BAR, 0, 60), (130 * BAR, 132 * BAR, 0, 62)]
    made = assert_same(song(*held), dedupe=False)["mel_2bar"]
    assert len(made.rows) == 99 + 1


def test_programs_decide_what_is_a_melody_and_who_is_in_the_band() -> None:
    whole = [(0, 17 * BAR, 0, 60), (0, 17 * BAR, 1, 40)]
    hits = [(8 * step, 8 * step + 1, 9, 36) for step in range(34)]
    made = assert_same(song(*whole, *hits, programs={0: 31, 1: 39}))
    assert made["trio_16bar"].rows.shape == (2, 256, 3)
    assert made["trio_16bar"].rows[0, 0].tolist() == [41, 21, 1]
    made = assert_same(song(*whole, *hits, programs={0: 40, 1: 39}))
    assert made["trio_16bar"].why_empty == "no band: no melody"
    assert made["mel_2bar"].why_empty == "no melody in programs 0..31"


@pytest.mark.parametrize(
    ("data", "reasons"),
    [
        (midi(END), {"no notes": 1}),
        (midi(track([(0, meter(3, 2))]), song((0, 64, 0, 60))[22:]), {"not 4/4": 1}),
        (song((0, 64, 9, 36)), {"no melody: no notes but drums": 1}),
        (song((0, 64, 0, 20)), {"no melody: no pitches 21..108": 1}),
        (song((0, 16, 0, 60)), {"too short": 1}),
    ],
)
def test_pieces_without_rows_say_why(data: bytes, reasons: dict[str, int]) -> None:
    assert assert_same(data)["mel_2bar"].reasons == reasons


@pytest.mark.parametrize("meter", ["4/4", "any"])
def test_random_songs_give_the_rows_of_the_reference_path(
    meter: str, rng: np.random.Generator
) -> None:
    total: collections.Counter[str] = collections.Counter()
    for number in range(25):
        programs = ("any", "20-40,100", None, None, None)[number % 5]
        dedupe = number % 2 == 0
        made = assert_same(random_song(rng), meter=meter, dedupe=dedupe, programs=programs)
        total.update({task: len(extraction.rows) for task, extraction in made.items()})
    assert min(total[task] for task in TASKS) > 50


def test_segments_shorter_than_a_bar_give_no_rows() -> None:
    changes = track((7 * i, tempo(400_000 + 1000 * (i % 2))) for i in range(300))
    notes = track((7 * i + j, bytes([0x90, 60, 64 - 64 * j])) for i in range(300) for j in (0, 1))
    made = assert_same(midi(changes, notes))["mel_2bar"]
    assert made.reasons == {"too short": 300}


def test_the_limit_of_trio_rows_is_the_same(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_song(rng)
    while len(extract_fast(data, ["trio_16bar"])["trio_16bar"].rows) < 20:
        data = random_song(rng)
    monkeypatch.setattr(trio, "MAX_ROWS", 7)
    assert len(assert_same(data)["trio_16bar"].rows) == 7


def test_one_task_alone_gives_the_same_rows(rng: np.random.Generator) -> None:
    data = random_song(rng)
    every = extract_fast(data, TASKS)
    for task in TASKS:
        alone = extract_fast(data, [task])
        assert list(alone) == [task]
        assert np.array_equal(alone[task].rows, every[task].rows)


def test_wrong_arguments_and_files_are_refused() -> None:
    with pytest.raises(InputError, match="task: 'mel' is not one of"):
        extract_fast(midi(END), ["mel"])
    with pytest.raises(InputError, match="meter: '3/4' is not one of"):
        extract_fast(midi(END), TASKS, meter="3/4")
    with pytest.raises(FastReadError, match="no MThd header"):
        extract_fast(b"", TASKS)


def test_warming_up_compiles_everything_once_and_for_one_type() -> None:
    warm_up()
    for module in (cut, fast_trio):
        for name, function in vars(module).items():
            overloads = vars(function).get("overloads") if callable(function) else None
            if overloads is not None and not name.startswith("_") and name != "first_bars":
                assert len(overloads) == 1 + (name == "write_tracks"), name


def test_real_files_give_the_rows_of_the_reference_path(shared: pathlib.Path) -> None:
    files = sorted((shared / "data" / "mini").glob("*.mid"))
    for number, path in enumerate(files):
        assert_same(path.read_bytes(), meter=["4/4", "any"][number % 2])


def test_every_golden_file_gives_the_rows_of_the_reference(shared: pathlib.Path) -> None:
    files = json.loads((shared / "golden" / "conversion_index.json").read_text())["files"]
    index = {(file["archive"], file["member"]): i for i, file in enumerate(files)}
    golden = {
        task: np.load(shared / "golden" / f"conversion_{config}.npz")
        for task, config in REFERENCE_CONFIGS.items()
    }
    for archive in sorted({file["archive"] for file in files}):
        with tarfile.open(shared / "data" / archive) as tar:
            for member in tar:
                number = index.pop((archive, member.name), None)
                content = tar.extractfile(member)
                if number is None or content is None:
                    continue
                made = extract_fast(content.read(), TASKS)
                for task, vectors in golden.items():
                    expected = vectors["tokens"][vectors["file_index"] == number]
                    assert _counted(made[task].rows) == _counted(expected), member.name
    assert not index


def _counted(rows: np.ndarray) -> collections.Counter[bytes]:
    """Rows as a multiset."""
    return collections.Counter(row.tobytes() for row in np.asarray(rows, np.int16))

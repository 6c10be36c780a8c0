"""Files that share rows are one song, and a song has one split."""

from __future__ import annotations

import itertools
import pathlib

import numpy as np
import pytest

from data_pipeline.selection import songs
from data_pipeline.selection.songs import (
    Songs,
    connect,
    find_songs,
    num_onsets,
    similar_pairs,
    song_hashes,
)
from data_pipeline.selection.splits import split_of
from musicvae_jax.tasks import TASKS, Task, get_task


def joined(files: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Put sets of hashes one after the other, as they are spooled."""
    parts = [np.array(sorted(file), np.uint64) for file in files]
    return np.concatenate(parts), np.array([len(file) for file in files])


def brute_force(files: list[set[int]]) -> set[tuple[int, int]]:
    """Compare every pair by the rule's words."""
    counts: dict[int, int] = {}
    for row in itertools.chain.from_iterable(files):
        counts[row] = counts.get(row, 0) + 1
    kept = [{row for row in file if counts[row] <= 50} for file in files]
    return {
        (i, j)
        for i, j in itertools.combinations(range(len(files)), 2)
        if kept[i] & kept[j] and len(kept[i] & kept[j]) / len(kept[i] | kept[j]) > 0.3
    }


def test_onsets_hand_computed() -> None:
    melody = np.zeros((2, 32), np.uint8)
    melody[1, :6] = (2, 0, 1, 40, 40, 89)  # a note off is none
    assert num_onsets(melody, get_task("mel_2bar")).tolist() == [0, 4]
    drums = np.zeros((1, 32), np.uint16)
    drums[0, :4] = (1, 0, 511, 256)  # hits of one step are one onset
    assert num_onsets(drums, get_task("drums_2bar")).tolist() == [3]
    trio = np.zeros((1, 256, 3), np.uint16)
    trio[0, :3] = [(1, 1, 1), (2, 1, 0), (50, 60, 7)]
    assert num_onsets(trio, get_task("trio_16bar")).tolist() == [1 + 1 + 2 + 1]
    assert num_onsets(melody[:0], get_task("mel_2bar")).tolist() == []


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_file_without_rows_of_a_task_has_no_onsets(task: Task) -> None:
    assert num_onsets(np.zeros((0, *task.row_shape), task.token_dtype), task).shape == (0,)


def test_only_different_rows_with_enough_onsets_count() -> None:
    rows = np.zeros((5, 32), np.uint8)
    rows[0, :7] = 40
    rows[1, :8] = rows[2, :8] = 40
    rows[3, :8], rows[4, :9] = 41, 41
    assert len(song_hashes({"mel_2bar": rows})) == 3
    long = np.zeros((1, 256), np.uint8)
    long[0, :8] = 40
    assert len(song_hashes({"mel_2bar": rows, "mel_16bar": long})) == 4
    assert song_hashes({}).shape == (0,)


def test_equal_rows_of_two_tasks_differ() -> None:
    rows = np.full((1, 32), 40, np.uint16)
    both = song_hashes({"mel_2bar": rows, "drums_2bar": rows})
    assert len(both) == 2


def test_the_threshold_is_exclusive(tmp_path: pathlib.Path) -> None:
    # 3 of 10 is not above 0.3; 4 of 13 is.
    tens = [set(range(10)), {0, 1, 2}]
    assert len(similar_pairs(*joined(tens), tmp_path / "s")) == 0
    more = [set(range(10)), {0, 1, 2, 3, 20, 21, 22}]
    assert similar_pairs(*joined(more), tmp_path / "s").tolist() == [[0, 1]]
    assert list(tmp_path.iterdir()) == []


def test_rows_of_more_than_fifty_files_are_ignored(tmp_path: pathlib.Path) -> None:
    fifty = [{1, 100 + i} for i in range(50)]
    pairs = similar_pairs(*joined(fifty), tmp_path / "s")
    assert len(pairs) == 50 * 49 // 2  # 1 of 3 rows shared
    assert len(similar_pairs(*joined([*fifty, {1, 99}]), tmp_path / "s")) == 0
    # Left out of the union also: what stays of the two files is the same.
    crowd = [{1, 2, 3, 100 + i} for i in range(50)]
    pairs = similar_pairs(*joined([*crowd, {1, 2, 3, 7, 8}, {7, 8}]), tmp_path / "s")
    assert pairs.tolist() == [[50, 51]]


@pytest.mark.parametrize("bucket_rows", [7, 2**22])
def test_pairs_equal_brute_force(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, bucket_rows: int
) -> None:
    monkeypatch.setattr(songs, "_BUCKET_ROWS", bucket_rows)
    rng = np.random.default_rng(0)
    bases = [set(rng.integers(0, 2**62, 12).tolist()) for _ in range(8)]
    common = set(rng.integers(0, 2**62, 4).tolist())
    files = []
    for number in range(70):
        base = sorted(bases[number % 8])
        kept = rng.choice(base, rng.integers(3, 12), replace=False).tolist()
        files.append({*kept, *rng.integers(0, 2**62, 3).tolist()} | (common if number else set()))
    expected = brute_force(files)
    assert 50 < len(expected) < 600
    found = similar_pairs(*joined(files), tmp_path / "s")
    assert {(i, j) for i, j in found.tolist()} == expected


def test_files_without_rows_are_alone(tmp_path: pathlib.Path) -> None:
    found = find_songs(["b", "a", "c"], *joined([set(), {1}, set()]), tmp_path / "s")
    assert (found.md5s, found.first.tolist()) == (["a", "b", "c"], [0, 1, 2])
    none = find_songs([], np.zeros(0, np.uint64), np.zeros(0, np.int64), tmp_path / "s")
    assert none.num_songs == 0


def test_connected_files_take_the_smallest_index() -> None:
    pairs = np.array([(5, 3), (6, 5), (0, 4), (2, 2)])
    assert connect(7, pairs).tolist() == [0, 1, 2, 3, 0, 3, 3]


def test_songs_do_not_depend_on_the_order_of_reading(tmp_path: pathlib.Path) -> None:
    files = {"d": {1, 2, 3}, "a": {2, 3, 4}, "c": {9}, "b": {4, 2}, "e": {9, 8}}
    expected = find_songs(list(files), *joined(list(files.values())), tmp_path / "s")
    assert [expected.md5s[i] for i in expected.first] == ["a", "a", "c", "a", "c"]
    for order in itertools.permutations(files):
        found = find_songs(list(order), *joined([files[n] for n in order]), tmp_path / "s")
        assert found.first.tolist() == expected.first.tolist()


def test_same_bytes_under_two_kinds_are_one_file(tmp_path: pathlib.Path) -> None:
    found = find_songs(["a", "b", "a"], *joined([{1}, {2}, {2}]), tmp_path / "s")
    assert (found.md5s, found.first.tolist()) == (["a", "b"], [0, 0])


def test_a_song_has_the_split_of_its_smallest_md5() -> None:
    md5s = [f"{number:032x}" for number in range(600)]
    found = Songs(md5s, np.arange(600) // 3 * 3)
    splits = found.splits((60, 20, 20), 1, {})
    assert {splits[md5s[i]] for i in range(600)} == {0, 1, 2}
    for i, md5 in enumerate(md5s):
        assert splits[md5] == split_of(md5s[i // 3 * 3], (60, 20, 20), 1)


def test_pins_hold_and_draw_their_song_along() -> None:
    found = Songs(["a", "b", "c", "d", "e"], np.array([0, 0, 0, 3, 4]))
    splits = found.splits((100, 0, 0), 0, {"b": 2, "c": 1, "e": 1, "z": 2})
    assert splits == {"a": 2, "b": 2, "c": 1, "d": 0, "e": 1}


def test_large_songs_are_listed() -> None:
    md5s = [f"{number:03d}" for number in range(400)]
    first = np.concatenate([np.zeros(100), np.full(101, 100), np.full(199, 201)]).astype(int)
    assert Songs(md5s, first).large() == [("201", 199), ("100", 101)]
    assert Songs(md5s, first).num_songs == 3


def test_every_task_can_be_hashed() -> None:
    for name, task in TASKS.items():
        rows = np.full((2, *task.row_shape), 40, task.token_dtype)
        assert len(song_hashes({name: rows})) == 1

"""Splits follow the file's bytes; a repeated row stays in one place."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.selection.splits import (
    SPLITS,
    fill_empty_splits,
    row_hashes,
    select_rows,
    split_of,
)


def test_split_of_hand_computed() -> None:
    # blake2b-8 of "0:" + md5 of the empty file, as a fraction of 2**64, is 0.6545.
    empty = "d41d8cd98f00b204e9800998ecf8427e"
    assert split_of(empty, (65.4, 34.6, 0.0), 0) == 1
    assert split_of(empty, (65.5, 34.5, 0.0), 0) == 0
    assert split_of(empty, (10.0, 10.0, 80.0), 0) == 2


def test_split_shares_and_seed() -> None:
    names = [f"{number:032x}" for number in range(20_000)]
    zero = np.array([split_of(name, (90, 5, 5), 0) for name in names])
    one = np.array([split_of(name, (90, 5, 5), 1) for name in names])
    np.testing.assert_allclose(np.bincount(zero) / len(names), (0.9, 0.05, 0.05), atol=0.006)
    # Independent draws agree with probability 0.9**2 + 2 * 0.05**2 = 0.815.
    np.testing.assert_allclose(np.mean(zero == one), 0.815, atol=0.01)


def test_no_file_falls_into_an_empty_split() -> None:
    names = [f"{number:032x}" for number in range(2_000)]
    assert {split_of(name, (100, 0, 0), 0) for name in names} == {0}
    assert {split_of(name, (50, 0, 50), 0) for name in names} == {0, 2}


@pytest.mark.parametrize("num_songs", [3, 4, 12, 59])
@pytest.mark.parametrize("seed", range(20))
def test_every_split_gets_a_song_from_three_songs_on(num_songs: int, seed: int) -> None:
    shares = (90.0, 5.0, 5.0)
    drawn = {f"{n:032x}": split_of(f"{n:032x}", shares, seed) for n in range(num_songs)}
    filled = fill_empty_splits(drawn, [drawn], shares, seed)
    assert set(filled.values()) == {0, 1, 2}
    missing = {0, 1, 2} - set(drawn.values())
    assert sum(filled[md5] != drawn[md5] for md5 in drawn) == len(missing)


def test_two_songs_stay_where_they_are_drawn() -> None:
    songs = {"a": 0, "b": 0}
    assert fill_empty_splits(songs, [songs], (90, 5, 5), 0) == songs


def test_each_task_of_three_songs_gets_all_splits() -> None:
    shares = (90.0, 5.0, 5.0)
    names = [f"{number:032x}" for number in range(40)]
    drawn = {name: split_of(name, shares, 2) for name in names}
    in_train = [name for name in names if drawn[name] == 0]
    several = in_train[:3]  # with rows of a task that most songs lack
    few = in_train[3:5]
    of_tasks = [names, several, few]
    filled = fill_empty_splits(drawn, of_tasks, shares, 2)
    assert set(drawn.values()) == {0, 1, 2}
    assert {filled[name] for name in several} == {0, 1, 2}
    assert {name for name in names if filled[name] != drawn[name]} < set(several)


def test_filling_a_split_empties_none_of_another_task() -> None:
    # "b" is the only training song of the first task, so "c" or "d" must move.
    drawn = {"a": 1, "b": 0, "c": 0, "d": 0, "e": 2}
    filled = fill_empty_splits(drawn, ["abe", "bcde"], (90, 5, 5), 0)
    assert filled["b"] == 0
    assert {filled[name] for name in "cd"} == {0, 1}


def test_a_split_without_a_share_stays_empty_and_pins_stay() -> None:
    songs = dict.fromkeys("abcd", 0)
    assert set(fill_empty_splits(songs, [songs], (90, 10, 0), 0).values()) == {0, 1}
    assert fill_empty_splits(songs, [songs], (90, 5, 5), 0, pinned=songs) == songs
    moved = fill_empty_splits(songs, [songs], (90, 5, 5), 0, pinned="ab")
    assert (moved["a"], moved["b"]) == (0, 0)
    assert {moved["c"], moved["d"]} == {1, 2}


@pytest.mark.parametrize(
    ("shape", "dtype"), [((32,), "uint8"), ((32,), "uint16"), ((256, 3), "uint16"), ((5,), "uint8")]
)
def test_hashes_agree_exactly_where_rows_do(shape: tuple[int, ...], dtype: str) -> None:
    rows = np.random.default_rng(0).integers(0, 90, (20_000, *shape)).astype(dtype)
    rows[::3] = 0
    rows[::3].reshape(-1, int(np.prod(shape)))[np.arange(6667), np.arange(6667) % shape[0]] = 1
    _, by_value = np.unique(rows.reshape(len(rows), -1), axis=0, return_inverse=True)
    _, by_hash = np.unique(row_hashes(rows), axis=0, return_inverse=True)
    pairs = np.unique(np.stack([by_value.ravel(), by_hash.ravel()], axis=1), axis=0)
    assert len(pairs) == by_value.max() + 1 == by_hash.max() + 1


def test_hashes_do_not_depend_on_the_chunk_or_on_memory_order() -> None:
    rows = np.random.default_rng(0).integers(0, 90, (10_000, 32)).astype(np.uint8)
    whole = row_hashes(rows)
    np.testing.assert_array_equal(row_hashes(rows[9_000:]), whole[9_000:])
    np.testing.assert_array_equal(row_hashes(np.asfortranarray(rows)), whole)
    big_endian = rows.astype(">u2")
    np.testing.assert_array_equal(row_hashes(big_endian), row_hashes(rows.astype("<u2")))


def test_each_bit_of_a_hash_changes_half_the_time() -> None:
    rows = np.zeros((2_048, 256), np.uint8)
    rows[np.arange(2_048), np.arange(2_048) % 256] = 1 + np.arange(2_048) // 256
    bits = np.unpackbits(row_hashes(rows).view(np.uint8), axis=1)
    np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=0.06)


def test_select_rows_hand_computed() -> None:
    # Rows by letter: (letter, split, rank of its file), in reading order.
    table = [
        ("a", 2, 5), ("b", 1, 3), ("a", 1, 3), ("c", 0, 9),
        ("d", 2, 5), ("c", 0, 1), ("a", 0, 1), ("b", 2, 4), ("e", 0, 9),
    ]  # fmt: skip
    letters = np.array([ord(row[0]) for row in table], np.uint64)
    hashes = np.stack([letters % 2, letters], axis=1)
    chosen = select_rows(hashes, np.array([r[1] for r in table]), np.array([r[2] for r in table]))
    kept = {name: [table[i][0] for i in chosen.rows[name]] for name in SPLITS}
    assert kept == {"train": ["c", "a", "e"], "validation": ["b"], "test": ["d"]}
    assert chosen.rows["train"].tolist() == [5, 6, 8]  # file 1 comes before file 9
    assert chosen.before == {"train": 4, "validation": 2, "test": 3}
    assert chosen.shared == {"train/validation": 1, "train/test": 1, "validation/test": 2}


def test_reading_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, (3_000, 6)).astype(np.uint8)
    files = rng.integers(0, 50, 3_000)
    files.sort()
    splits = np.array([0, 1, 2, 0, 0])[files % 5]

    def stored(order: np.ndarray) -> list[list[list[int]]]:
        chosen = select_rows(row_hashes(rows[order]), splits[order], files[order])
        return [rows[order][chosen.rows[name]].tolist() for name in SPLITS]

    shuffled = np.concatenate([np.flatnonzero(files == f) for f in rng.permutation(50)])
    expected = stored(np.arange(3_000))
    assert stored(shuffled) == expected
    assert sum(map(len, expected)) == len(np.unique(rows, axis=0))


def test_no_rows() -> None:
    nothing = select_rows(row_hashes(np.zeros((0, 32), np.uint8)), np.zeros(0, int), np.zeros(0))
    assert {name: len(nothing.rows[name]) for name in SPLITS} == dict.fromkeys(SPLITS, 0)
    assert set(nothing.shared.values()) == {0}

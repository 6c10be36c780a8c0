from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.tasks import get_task
from tests.support.synthetic_store import write_store


@pytest.fixture
def store_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_store(tmp_path / "store", "mel_2bar", {"train": 10, "validation": 3, "test": 0})


def test_a_store_opens_with_its_task_and_rows(store_dir: pathlib.Path) -> None:
    store = data.open_store(store_dir)
    assert store.task.name == "mel_2bar"
    assert {name: rows.shape for name, rows in store.splits.items()} == {
        "train": (10, 32),
        "validation": (3, 32),
        "test": (0, 32),
    }
    data.check_content(store)


def test_the_fingerprint_is_of_the_content_not_of_the_place(tmp_path: pathlib.Path) -> None:
    prints = [
        data.open_store(write_store(tmp_path / name, "mel_2bar", seed=seed)).fingerprint
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]


def test_a_folder_without_meta_is_no_store(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"is not a token store, it has no meta\.json"):
        data.open_store(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other"}', '{"format": 1'])
def test_another_format_is_refused(store_dir: pathlib.Path, text: str) -> None:
    (store_dir / "meta.json").write_text(text)
    with pytest.raises(InputError, match="is not of format musicvae-tokens-1"):
        data.open_store(store_dir)


def test_rows_of_another_shape_are_refused(store_dir: pathlib.Path) -> None:
    np.save(store_dir / "train.npy", np.zeros((10, 16), np.uint8))
    with pytest.raises(InputError, match=r"train\.npy holds uint8 \(10, 16\), but .* \(10, 32\)"):
        data.open_store(store_dir)


def test_a_missing_file_is_named(store_dir: pathlib.Path) -> None:
    (store_dir / "test.npy").unlink()
    with pytest.raises(InputError, match=r"test\.npy cannot be read"):
        data.open_store(store_dir)


def test_changed_bytes_are_found(store_dir: pathlib.Path) -> None:
    rows = np.load(store_dir / "train.npy")
    rows[0, 0] ^= 1
    np.save(store_dir / "train.npy", rows)
    with pytest.raises(InputError, match=r"train\.npy has changed since it was written"):
        data.check_content(data.open_store(store_dir))


def test_each_epoch_is_a_permutation_and_batches_span_epochs() -> None:
    num_rows, batch_size, epochs = 10, 4, 2
    steps = epochs * num_rows // batch_size
    order = np.concatenate([data.batch_indices(3, s, num_rows, batch_size) for s in range(steps)])
    first, second = np.split(order, epochs)
    assert sorted(first) == sorted(second) == list(range(num_rows))
    assert first.tolist() != second.tolist()


def test_a_batch_depends_on_seed_and_step_only() -> None:
    before = data.batch_indices(1, 7, 100, 8)
    data.batch_indices(2, 99, 50, 8)
    assert before.tolist() == data.batch_indices(1, 7, 100, 8).tolist()
    assert before.tolist() != data.batch_indices(2, 7, 100, 8).tolist()


def test_fewer_rows_than_a_batch_names_both_numbers() -> None:
    with pytest.raises(InputError, match=r"7 training rows are fewer than one batch of 8"):
        data.batch_indices(0, 0, 7, 8)


def test_padding_covers_every_row_once() -> None:
    batches = data.padded_batches(7, 3)
    assert [mask.tolist() for _, mask in batches] == [[True] * 3, [True] * 3, [True, False, False]]
    kept = np.concatenate([indices[mask] for indices, mask in batches])
    assert kept.tolist() == list(range(7))
    assert batches[-1][0].tolist() == [6, 0, 0]


def test_chosen_rows_are_spread_over_the_split() -> None:
    assert data.spread_rows(10, 4).tolist() == [0, 2, 5, 7]
    assert data.spread_rows(3, 4).tolist() == data.spread_rows(3, 0).tolist() == [0, 1, 2]


def _shifts(tokens: np.ndarray, limit: int, task: str, key: jax.Array) -> np.ndarray:
    moved = np.asarray(data.transpose_tokens(key, jnp.asarray(tokens), limit, get_task(task)))
    return moved.astype(int) - tokens.astype(int)


def test_transposition_is_uniform_over_the_shifts_that_fit(key: jax.Array) -> None:
    examples = 3000
    tokens = np.zeros((examples, 32), np.uint8)
    tokens[:, ::4], tokens[:, 1::4], tokens[:, 2] = 50, 1, 88  # 88 may rise by one
    shifts = _shifts(tokens, 5, "mel_2bar", key)
    by_example = shifts[:, 2]
    values, counts = np.unique(by_example, return_counts=True)
    assert values.tolist() == [-5, -4, -3, -2, -1, 0, 1]
    # Six standard deviations of a count of 3000 draws with probability 1/7.
    assert np.all(np.abs(counts - examples / 7) < 6 * np.sqrt(examples * 6 / 49))
    assert np.all(shifts[:, ::4] == by_example[:, None])
    assert np.all(shifts[:, 1::4] == 0)
    assert np.all(shifts[:, 3] == 0)


def test_notes_at_both_ends_of_the_range_stay(key: jax.Array) -> None:
    tokens = np.zeros((50, 32), np.uint8)
    tokens[:, 0], tokens[:, 1] = 2, 89
    assert np.all(_shifts(tokens, 5, "mel_2bar", key) == 0)


def test_trio_melody_and_bass_move_together_and_drums_stay(key: jax.Array) -> None:
    tokens = np.zeros((200, 256, 3), np.uint16)
    tokens[:, ::2] = (60, 4, 511)  # the bass, token 4, may fall by two
    shifts = _shifts(tokens, 5, "trio_16bar", key)
    assert np.array_equal(shifts[:, :, 0], shifts[:, :, 1])
    assert set(np.unique(shifts[:, 0, 0])) == set(range(-2, 6))
    assert np.all(shifts[:, :, 2] == 0)
    assert np.all(shifts[:, 1::2] == 0)


def test_drums_and_a_limit_of_0_change_nothing(key: jax.Array) -> None:
    drums = np.random.default_rng(0).integers(0, 512, (8, 32)).astype(np.uint16)
    assert np.all(_shifts(drums, 5, "drums_2bar", key) == 0)
    melody = np.random.default_rng(0).integers(0, 90, (8, 32)).astype(np.uint8)
    assert np.all(_shifts(melody, 0, "mel_2bar", key) == 0)


def test_meta_counts_must_match(store_dir: pathlib.Path) -> None:
    meta = json.loads((store_dir / "meta.json").read_text())
    meta["counts"]["train"] = 11
    (store_dir / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"train\.npy holds uint8 \(10, 32\)"):
        data.open_store(store_dir)


def test_orders_of_many_seeds_are_drawn_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = np.random.default_rng

    def counted(seed: list[int]) -> np.random.Generator:
        drawn.append(seed)
        return draw(seed)

    monkeypatch.setattr(np.random, "default_rng", counted)
    for step in range(3):
        for seed in range(100, 108):
            data.batch_indices(seed, step, 1_009, 16)
    assert len(drawn) == 8


def test_a_folder_of_stores_names_them(tmp_path: pathlib.Path) -> None:
    for task in ("mel_2bar", "drums_2bar"):
        write_store(tmp_path / task, task)
    with pytest.raises(InputError, match="holds the token stores drums_2bar, mel_2bar; name one"):
        data.open_store(tmp_path)

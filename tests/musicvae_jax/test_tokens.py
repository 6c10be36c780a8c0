from __future__ import annotations

import numpy as np
import pytest

from musicvae_jax import tokens
from musicvae_jax.config import InputError
from musicvae_jax.tasks import KINDS, NOTE_TASKS, get_task

MELODY, BASS, DRUMS = get_task("trio_16bar").tracks


def test_melody_notes_hand_computed() -> None:
    rows = np.zeros((2, 8), np.uint8)
    rows[0, [1, 3, 4]] = (2, 41, 1)  # pitch 21 for 2 steps, pitch 60 for 1
    rows[1, 6] = 89  # pitch 108 to the end
    notes = tokens.melody_notes(rows)
    assert notes.row.tolist() == [0, 0, 1]
    assert notes.start.tolist() == [1, 3, 6]
    assert notes.length.tolist() == [2, 1, 2]
    assert notes.pitch.tolist() == [21, 60, 108]
    assert [len(part) for part in tokens.melody_notes(rows[:0])] == [0, 0, 0, 0]


def test_pitches_and_note_ons_are_inverse_and_fill_the_vocabulary() -> None:
    note_ons = np.arange(MELODY.first_onset, MELODY.num_classes, dtype=np.uint8)
    assert tokens.pitches(note_ons.astype(int)).tolist() == list(range(21, 109))
    np.testing.assert_array_equal(tokens.note_ons(tokens.pitches(note_ons)), note_ons)


def test_onsets_and_hits_hand_computed() -> None:
    melody, drums = np.array([[0, 1, 2, 89]]), np.array([[0, 1, 5, 256]])
    assert tokens.onsets(melody, BASS).tolist() == [[False, False, True, True]]
    assert tokens.onsets(drums, DRUMS).tolist() == [[False, True, True, True]]
    assert np.argwhere(tokens.hits(drums)[0]).tolist() == [[1, 0], [2, 0], [2, 2], [3, 8]]


def test_a_drum_token_counts_each_hit_and_a_note_off_counts_nothing() -> None:
    assert tokens.num_notes(np.array([0, 1, 2, 89]), MELODY).tolist() == [0, 0, 1, 1]
    assert tokens.num_notes(np.array([0, 1, 5, 511]), DRUMS).tolist() == [0, 1, 2, 9]


def test_the_previous_onset_is_strictly_before() -> None:
    starts = np.array([[True, False, True, False], [False, False, False, True]])
    assert tokens.previous_onset(starts).tolist() == [[-1, 0, 0, 2], [-1, -1, -1, -1]]


def test_columns_are_the_tracks_in_order() -> None:
    rows = np.arange(2 * 3 * 3, dtype=np.uint16).reshape(2, 3, 3)
    columns = tokens.columns_of(rows, get_task("trio_16bar"))
    np.testing.assert_array_equal(np.stack(columns, axis=-1), rows)
    (column,) = tokens.columns_of(rows[:, :, 0], get_task("mel_2bar"))
    assert [column.shape for column in tokens.columns_of(rows[:0], get_task("trio_16bar"))] == [
        (0, rows.shape[1])
    ] * 3
    np.testing.assert_array_equal(column, rows[:, :, 0])
    assert [c.shape for c in tokens.columns_of(rows[:0], get_task("trio_16bar"))] == [(0, 3)] * 3


def test_a_row_that_does_not_fit_its_task_is_refused() -> None:
    trio, mel = get_task("trio_16bar"), get_task("mel_2bar")
    with pytest.raises(InputError, match=r"trio_16bar has rows of \[T, 3\]"):
        tokens.check_row(np.zeros(4, int), trio)
    with pytest.raises(InputError, match="melody tokens of mel_2bar go from 0 to 89"):
        tokens.check_row(np.full(4, 90), mel)
    assert tokens.check_row(np.full(4, 89), mel).tolist() == [89] * 4


def test_every_track_has_a_kind() -> None:
    tasks = list(NOTE_TASKS.values())
    assert {track.kind for task in tasks for track in task.tracks} == set(KINDS)

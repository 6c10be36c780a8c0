"""Rows as text and back."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.codecs.codec import row_to_text, text_to_row
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS
from tests.support.example_rows import EXAMPLES


@pytest.mark.parametrize("task_name", TASKS)
def test_text_is_read_back(task_name: str) -> None:
    row = EXAMPLES[task_name]
    read = text_to_row(row_to_text(row, task_name), task_name)
    np.testing.assert_array_equal(read, row)
    assert read.dtype == TASKS[task_name].token_dtype


def test_a_melody_is_typed_as_numbers_and_names() -> None:
    row = text_to_row("60 _ C#4 r r Bb3 | ^ .", "mel_2bar")
    # A rest ends the note that sounds; where none does it is no event.
    np.testing.assert_array_equal(row, [41, 0, 42, 1, 0, 39, 1, 0])


def test_drums_are_letters_hit_together() -> None:
    np.testing.assert_array_equal(text_to_row("K . SH _", "drums_2bar"), [1, 0, 6, 0])


def test_a_trio_is_three_parts_of_equal_length() -> None:
    row = text_to_row("melody: 60 _; bass: 36 r; drums: K .", "trio_16bar")
    np.testing.assert_array_equal(row, [[41, 17, 1], [0, 1, 0]])


@pytest.mark.parametrize(
    ("task_name", "text", "message"),
    [
        ("mel_2bar", "60 H4", r"word 2, 'H4', must be a pitch \(21 to 108"),
        ("mel_2bar", "12", "word 1, '12', must be a pitch"),
        ("drums_2bar", "K X", r"word 2, 'X', must be letters of drum classes \(K kick"),
        ("mel_2bar", " | ", "must be equal and above 0"),
        ("trio_16bar", "60 62", "3 parts: 'melody: ...; bass: ...; drums: ...'"),
        ("trio_16bar", "melody: 60; bass: 36 r; drums: K", r"lengths: \[1, 2, 1\]"),
        ("trio_16bar", "melody: 60; bass: Q; drums: K", "bass: word 1, 'Q', must be a pitch"),
    ],
)
def test_a_wrong_word_is_named(task_name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        text_to_row(text, task_name)

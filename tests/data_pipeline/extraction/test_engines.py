from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.extraction.engines import ENGINES, extract_file, extract_rows
from data_pipeline.reading.notes import ReadError
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS
from tests.support.midi_bytes import END, midi, random_song

ABC = b"X:1\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|\n\nX:2\nM:4/4\nL:1/4\nK:C\ncBAG|FEDC|\n"


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, so that no test writes a seed."""
    return np.random.default_rng(2)


def test_both_engines_give_the_same_rows(rng: np.random.Generator) -> None:
    data = random_song(rng)
    fast, slow = (extract_file("song.mid", data, list(TASKS), engine=engine) for engine in ENGINES)
    assert (fast.engine, slow.engine) == ("fast", "note_seq")
    assert (fast.fast_refusal, slow.fast_refusal) == (None, None)
    assert sum(len(extraction.rows) for extraction in fast.parts[0].values()) > 100
    for task in TASKS:
        assert np.array_equal(fast.parts[0][task].rows, slow.parts[0][task].rows)


def test_what_the_fast_engine_refuses_is_tried_with_note_seq() -> None:
    made = extract_file("silent.mid", midi(END, division=-6400), ["mel_2bar"])
    assert (made.engine, made.fast_refusal) == ("note_seq", "SMPTE division")
    assert made.parts[0]["mel_2bar"].why_empty == "no notes"
    with pytest.raises(ReadError, match="unreadable MIDI: ValueError") as raised:
        extract_file("empty.mid", midi(""), ["mel_2bar"])
    assert raised.value.fast_refusal == "empty track"


def test_files_without_midi_go_to_note_seq_tune_by_tune() -> None:
    made = extract_file("tunes.abc", ABC, ["mel_2bar"])
    assert (made.engine, made.fast_refusal) == ("note_seq", None)
    assert [len(part["mel_2bar"].rows) for part in made.parts] == [1, 1]


def test_rows_of_a_file_are_the_same_by_either_engine(rng: np.random.Generator) -> None:
    data = random_song(rng)
    fast, slow = (extract_rows(data, "mel_16bar", engine=engine) for engine in ENGINES)
    assert len(fast) > 10
    assert np.array_equal(fast, slow)
    with pytest.raises(InputError, match="engine: 'slow' is not one of fast, note_seq"):
        extract_rows(data, "mel_16bar", engine="slow")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(InputError, match="engine: 'slow' is not one of fast, note_seq"):
        extract_file("song.mid", midi(END), ["mel_2bar"], engine="slow")

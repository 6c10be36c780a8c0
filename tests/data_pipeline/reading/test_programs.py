"""Which programs melodies are taken from, by both engines."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.extraction.engines import ENGINES, extract_file
from data_pipeline.reading.notes import import_note_seq
from data_pipeline.reading.programs import describe, parse_programs, tasks_with
from data_pipeline.render.files import midi_bytes
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS, get_task

PITCHES = {0: 60, 40: 64, 73: 67}  # program: pitch of its notes


def test_programs_are_read_and_written() -> None:
    assert parse_programs("any") is None
    assert parse_programs("3") == (3,)
    assert parse_programs("40, 0-2,1-3") == (0, 1, 2, 3, 40)
    assert parse_programs("0-127") == tuple(range(128))
    assert describe(range(32)) == "0..31"
    assert describe((0, 1, 2, 40)) == "0..2, 40"


@pytest.mark.parametrize("text", ["", "piano", "-1", "0-", "5-3", "128", "0-128", "1,,2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"programs: .* must be any, or numbers and ranges"):
        parse_programs(text)


def test_only_tasks_of_one_melody_change() -> None:
    changed = {task.name: task for task in tasks_with(TASKS, "40")}
    assert changed["mel_2bar"].tracks[0].programs == (40,)
    assert changed["mel_16bar"].tracks[0].programs == (40,)
    for name in ("drums_2bar", "drums_16bar", "trio_16bar"):
        assert changed[name] is get_task(name)
    assert tasks_with(TASKS, None) == list(TASKS.values())


def music() -> bytes:
    """Write a file with two bars of each program in `PITCHES`."""
    note_seq = import_note_seq()
    sequence = note_seq.NoteSequence(ticks_per_quarter=220)
    sequence.tempos.add(qpm=120)
    for instrument, (program, pitch) in enumerate(PITCHES.items()):
        for start in (0.0, 2.0):
            sequence.notes.add(
                start_time=start,
                end_time=start + 2.0,
                pitch=pitch,
                velocity=80,
                program=program,
                instrument=instrument,
            )
    sequence.total_time = 4.0
    return midi_bytes(sequence)


def tokens_of(programs: str | None, engine: str) -> list[int]:
    """Extract the note-on tokens of the rows of `mel_2bar`."""
    found = extract_file("a.mid", music(), ["mel_2bar"], engine=engine, programs=programs)
    assert found.engine == engine
    rows = found.parts[0]["mel_2bar"].rows
    return sorted(set(rows[rows > 1].tolist()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("programs", "expected"),
    [(None, [60]), ("0-31", [60]), ("any", [60, 64, 67]), ("40,70-80", [64, 67]), ("73", [67])],
)
def test_both_engines_take_the_programs_asked_for(
    engine: str, programs: str | None, expected: list[int]
) -> None:
    assert tokens_of(programs, engine) == (np.array(expected) - 19).tolist()


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_name_the_programs_that_no_melody_has(engine: str) -> None:
    found = extract_file("a.mid", music(), tuple(TASKS), engine=engine, programs="1-5,90")
    for name in ("mel_2bar", "mel_16bar"):
        part = found.parts[0][name]
        assert len(part.rows) == 0
        assert part.why_empty == "no melody in programs 1..5, 90"

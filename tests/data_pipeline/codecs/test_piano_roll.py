"""Piano rolls: bars by hand, any meter, windows, what is left out, notes back."""

from __future__ import annotations

import io

import mido
import numpy as np
import pytest

from data_pipeline.codecs import piano_roll
from data_pipeline.extraction.extract import rows_from_notes
from data_pipeline.reading.segments import NOTE_DTYPE, NoteArrays
from data_pipeline.render.files import midi_bytes, write_musicxml
from data_pipeline.render.sequences import concatenate
from musicvae_jax.config import InputError
from musicvae_jax.tokens import roll_row, roll_starts
from tests.support.example_rows import ROLL_TASK as TASK


def unit(
    notes: list[tuple[float, int]],
    tempos: tuple[tuple[float, float], ...] = (),
    meters: tuple[tuple[float, int, int], ...] = (),
) -> NoteArrays:
    """Make music of (start in seconds, pitch), half a second each."""
    array = np.array([(s, s + 0.5, p, 0, 0, False) for s, p in notes], NOTE_DTYPE)
    return NoteArrays(array, tempos, meters, max(s for s, _ in notes) + 0.5)


def starts(row: np.ndarray) -> list[tuple[int, int, int]]:
    """Read bar, tick and pitch of each note start."""
    _, cells = roll_starts(row[None])
    ticks, pitches = np.divmod(cells, 96)
    return [
        (t // 96, t % 96, p + 12) for t, p in zip(ticks.tolist(), pitches.tolist(), strict=True)
    ]


def test_bars_of_any_meter_have_96_ticks() -> None:
    # 120 quarters a minute: a bar of 3/4 lasts 1.5 s, one of 4/4 2 s, one of 6/8 1.5 s.
    meters = ((0.0, 3, 4), (3.0, 4, 4), (5.0, 6, 8))
    notes = [(0.0, 60), (0.5, 62), (1.5, 64), (3.0, 65), (4.0, 67), (5.75, 69)]
    found = piano_roll.windows_of(unit(notes, meters=meters), TASK, pad=True)
    assert not isinstance(found, str)
    assert starts(found.rows[0]) == [
        (0, 0, 60), (0, 32, 62), (1, 0, 64), (2, 0, 65), (2, 48, 67), (3, 48, 69)
    ]  # fmt: skip


def test_a_change_of_tempo_does_not_end_a_bar() -> None:
    # The second half of the bar is played at half the tempo.
    tempos = ((0.0, 120.0), (1.0, 60.0))
    found = piano_roll.windows_of(
        unit([(0.0, 60), (2.0, 64), (3.0, 67)], tempos=tempos), TASK, pad=True
    )
    assert not isinstance(found, str)
    assert starts(found.rows[0]) == [(0, 0, 60), (0, 72, 64), (1, 0, 67)]


def test_windows_hop_by_four_bars_and_what_is_left_out_is_counted() -> None:
    music = unit([(2.0 * bar, 40 + bar) for bar in range(24)])
    found = rows_from_notes(music, TASK.name)
    assert found.bars.tolist() == [0, 4, 8]
    assert found.rows.shape == (3, 960)
    assert found.rows.dtype == TASK.token_dtype
    assert found.rows[0].nbytes < 2000
    short = rows_from_notes(unit([(0.0, 60), (3.0, 60)]), TASK.name)
    assert (short.why_empty, short.reasons) == ("too short", {"too short": 1})
    dense = unit(
        [(bar * 2 + tick / 48, p) for bar in range(16) for tick in range(90) for p in (60, 64)]
    )
    crowded = rows_from_notes(dense, TASK.name)
    assert crowded.reasons == {piano_roll.TOO_MANY: 1}
    assert rows_from_notes(unit([(0.0, 5)]), TASK.name).why_empty == piano_roll.NO_STARTS


def test_notes_last_to_the_next_start_or_one_tick() -> None:
    cells = np.array([(t * 96 + p - 12) for t, p in [(0, 60), (0, 64), (24, 67), (1500, 72)]])
    row = roll_row(cells, TASK)
    notes = piano_roll.decode(row)
    assert notes["start_step"].tolist() == [0, 0, 24, 1500]
    assert notes["end_step"].tolist() == [24, 24, 120, 1536]
    ticked = concatenate([row], TASK.name, held=False).notes
    # 120 quarters a minute: a bar of 96 ticks lasts 2 s.
    assert [round(note.end_time - note.start_time, 4) for note in ticked] == [round(2 / 96, 4)] * 4
    melody = piano_roll.melody_of(row, TASK)
    assert [pitch for _, _, pitch in starts(melody)] == [64, 67, 72]
    with pytest.raises(InputError, match="no note lengths"):
        write_musicxml("unused", [row], TASK.name)


def test_a_midi_file_of_a_row_gives_the_row_again() -> None:
    rng = np.random.default_rng(0)
    cells = np.unique(rng.choice(TASK.num_cells, 200, replace=False))
    cells = np.append(cells, 15 * 96 * 96)  # the last bar has a note, so the window is whole
    row = roll_row(cells, TASK)
    from data_pipeline.extraction.engines import extract_rows

    content = midi_bytes(concatenate([row], TASK.name))
    assert mido.MidiFile(file=io.BytesIO(content)).length > 0
    again = extract_rows(content, TASK.name)
    np.testing.assert_array_equal(again[0], row)


def test_text_is_refused() -> None:
    with pytest.raises(InputError, match="give a file"):
        piano_roll.read_words(["60"])

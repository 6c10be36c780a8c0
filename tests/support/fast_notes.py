"""Notes as the compiled reader reads them, in the form of note-seq's."""

from __future__ import annotations

import numpy as np

from data_pipeline.fast.midi import read_table
from data_pipeline.fast.tempo import QPM, SECONDS, to_seconds
from data_pipeline.reading.segments import NOTE_DTYPE, NoteArrays


def read_midi(data: bytes) -> NoteArrays:
    """Read a MIDI file to arrays in note-seq's order, times in seconds."""
    table = read_table(data)
    notes = np.empty(len(table.notes), NOTE_DTYPE)
    seconds = to_seconds(table.notes, 2, table.tempos)
    notes["start"], notes["end"] = seconds[:, 0], seconds[:, 1]
    notes["pitch"], notes["instrument"] = table.notes[:, 2], table.notes[:, 3]
    notes["program"] = table.instruments[table.notes[:, 3], 0]
    notes["is_drum"] = table.instruments[table.notes[:, 3], 1]
    meter_seconds = to_seconds(table.meters, 1, table.tempos)[:, 0]
    return NoteArrays(
        notes=notes,
        tempos=tuple((row[SECONDS], row[QPM]) for row in table.tempos.tolist()),
        meters=tuple(
            (time, numerator, denominator)
            for time, (_, numerator, denominator) in zip(
                meter_seconds.tolist(), table.meters.tolist(), strict=True
            )
        ),
        total_seconds=float(seconds[:, 1].max(initial=0.0)),
    )

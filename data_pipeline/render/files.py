"""Rows of tokens to files: MIDI, scores, sound, pictures. All files are written atomically.

All writers of music take a path, rows and a task's name, then the keywords of `Playback`. The
functions they use can be imported from here or from their own modules.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Unpack

from data_pipeline.atomic_write import write_whole
from data_pipeline.codecs.codec import decode, row_to_text, text_to_row
from data_pipeline.codecs.melody import pitch_name
from data_pipeline.reading.notes import import_note_seq
from data_pipeline.reading.segments import DEFAULT_QPM
from data_pipeline.render import audio, engraving, scores
from data_pipeline.render.pictures import piano_roll_png
from data_pipeline.render.sequences import (
    Playback,
    Rows,
    check_sound,
    concatenate,
    lay_out_rows,
    row_to_sequence,
)

if TYPE_CHECKING:
    from note_seq import NoteSequence

__all__ = [
    "FORMATS",
    "check_formats",
    "check_sound",
    "concatenate",
    "decode",
    "midi_bytes",
    "piano_roll_png",
    "pitch_name",
    "row_to_sequence",
    "row_to_text",
    "text_to_row",
    "write_midi",
    "write_musicxml",
    "write_score_svg",
    "write_wav",
]

# Formats of the output: "png" draws a group of rows, the others take one or several.
FORMATS = ("midi", "png", "musicxml", "svg", "wav")


def check_formats(
    formats: Collection[str], soundfont: str | os.PathLike[str] | None = None
) -> None:
    """Check that all formats can be written, before any work is done.

    Args:
      formats: some of `FORMATS`.
      soundfont: as in `write_wav`.

    Raises:
      InputError: what a format needs is not installed, or the SoundFont cannot be played.
    """
    if "svg" in formats:
        engraving.import_verovio()
    if "wav" in formats and soundfont is not None:
        audio.check_soundfont(soundfont)


def midi_bytes(sequence: NoteSequence) -> bytes:
    """Return a MIDI file's content; equal sequences give equal bytes."""
    buffer = io.BytesIO()
    import_note_seq().note_sequence_to_pretty_midi(sequence).write(buffer)
    return buffer.getvalue()


def write_midi(
    path: str | os.PathLike[str],
    rows: Rows,
    task_name: str,
    *,
    held: bool = True,
    **playback: Unpack[Playback],
) -> None:
    """Write one row, or several with rests between them, as one MIDI file.

    Args:
      path: file to write.
      rows: one row, or a list or array of rows (input and output of a reconstruction).
      task_name: key of `TASKS`.
      held: notes of piano rolls last to the next start; otherwise one tick.
      **playback: tempo, program, rests.

    Raises:
      InputError: a row does not fit the task, or `qpm` or `program` is out of range.
    """
    write_whole(path, midi_bytes(concatenate(rows, task_name, held=held, **playback)))


def write_musicxml(
    path: str | os.PathLike[str], rows: Rows, task_name: str, **playback: Unpack[Playback]
) -> None:
    """Write one row, or several with rests between them, as one score in MusicXML.

    Arguments and errors are those of `write_midi`.
    """
    write_whole(path, scores.musicxml(rows, task_name, **playback).encode())


def write_score_svg(
    path: str | os.PathLike[str], rows: Rows, task_name: str, **playback: Unpack[Playback]
) -> None:
    """Engrave one row, or several with rests between them, as one picture of a score.

    Arguments are those of `write_midi`.

    Raises:
      InputError: as `write_midi`, or verovio is not installed.
    """
    write_whole(path, engraving.engrave(scores.musicxml(rows, task_name, **playback)).encode())


def write_wav(
    path: str | os.PathLike[str],
    rows: Rows,
    task_name: str,
    *,
    soundfont: str | os.PathLike[str] | None = None,
    loop: bool = False,
    **playback: Unpack[Playback],
) -> None:
    """Write one row, or several with rests between them, as sound: mono, 16 bits, 44.1 kHz.

    Arguments are those of `write_midi`; `soundfont` names an .sf2 file to play with in place
    of the built-in synthesiser. With `loop`, the file is exactly as long as its bars, and what
    rings on after the end is mixed into the beginning; otherwise it is played out.

    Raises:
      InputError: as `write_midi`, or as `audio.check_soundfont`.
    """
    if soundfont is None:
        sound = audio.synthesise(rows, task_name, **playback)
    else:
        sequence = concatenate(rows, task_name, **playback)
        sound = audio.play_soundfont(midi_bytes(sequence), soundfont)
    if loop:
        layout = lay_out_rows(rows, task_name, rest_bars=playback.get("rest_bars", 1))
        per_quarter = 60.0 / playback.get("qpm", DEFAULT_QPM)
        seconds = layout.num_steps * per_quarter / layout.steps_per_quarter
        sound = audio.make_loop(sound, round(seconds * audio.SAMPLE_RATE))
    write_whole(path, audio.wav_bytes(sound))

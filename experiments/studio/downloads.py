"""Rows as files to download: MIDI, WAV, MusicXML, and a MIDI file for each row in one ZIP."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_pipeline.render import audio, scores
from data_pipeline.render.files import midi_bytes
from data_pipeline.render.sequences import concatenate
from experiments.studio import rows
from experiments.studio.fields import Fields, check_text, wrong
from musicvae_jax.tasks import STEPS_PER_QUARTER, Task

MAX_PIECES = 128
SLOWEST, FASTEST = 20.0, 400.0  # quarter notes per minute
MAX_SECONDS = 600.0  # of a WAV file
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date a ZIP can hold: equal rows give equal bytes


class Download(NamedTuple):
    """A file's content and its media type."""

    content: bytes
    media_type: str


class _Piece(NamedTuple):
    """What every download is made of: rows one after the other, tempo and program."""

    tokens: list[np.ndarray]
    tempo: float
    program: int | None


def midi(task: Task, fields: Fields) -> Download:
    """Write rows one after the other as one MIDI file."""
    piece = _piece(task, fields)
    fields.finish()
    return Download(_midi(task, piece.tokens, piece), "audio/midi")


def wav(task: Task, fields: Fields) -> Download:
    """Play rows one after the other; a loop is exactly as long as its bars."""
    piece = _piece(task, fields)
    is_loop = fields.boolean("loop")
    fields.finish()
    num_steps = sum(map(len, piece.tokens))
    seconds = num_steps * 60.0 / piece.tempo / STEPS_PER_QUARTER
    if seconds > MAX_SECONDS:
        raise wrong(
            f"rows: they last {seconds:.0f} s, at most {MAX_SECONDS:.0f} s can be a WAV file"
        )
    sound = audio.synthesise(
        piece.tokens, task.name, qpm=piece.tempo, program=piece.program, rest_bars=0
    )
    if is_loop:
        sound = audio.make_loop(sound, round(seconds * audio.SAMPLE_RATE))
    return Download(audio.wav_bytes(sound), "audio/wav")


def musicxml(task: Task, fields: Fields) -> Download:
    """Write rows one after the other as a score."""
    piece = _piece(task, fields)
    fields.finish()
    text = scores.musicxml(
        piece.tokens, task.name, qpm=piece.tempo, program=piece.program, rest_bars=0
    )
    return Download(text.encode(), "application/vnd.recordare.musicxml+xml")


def archive(task: Task, fields: Fields) -> Download:
    """Write each row as a MIDI file of its own, all in one ZIP."""
    piece = _piece(task, fields)
    names = [f"{number:03}" for number in range(1, len(piece.tokens) + 1)]
    if fields.optional("names"):
        count = len(piece.tokens)
        given = fields.items("names", count, count)
        names = [check_text(f"names.{n}", name, 80) for n, name in enumerate(given)]
    fields.finish()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for number, (name, tokens) in enumerate(zip(names, piece.tokens, strict=True)):
            safe = "".join(c if c.isalnum() or c in " -_" else "_" for c in name) or str(number)
            entry = zipfile.ZipInfo(f"{safe}.mid", _EPOCH)
            file.writestr(entry, _midi(task, [tokens], piece), zipfile.ZIP_DEFLATED)
    return Download(buffer.getvalue(), "application/zip")


DOWNLOADS: dict[str, Callable[[Task, Fields], Download]] = {
    "midi": midi,
    "wav": wav,
    "musicxml": musicxml,
    "zip": archive,
}


def _piece(task: Task, fields: Fields) -> _Piece:
    """Take the fields that all downloads have."""
    given = fields.items("rows", 1, MAX_PIECES)
    tokens = [rows.piece_from_json(f"rows.{n}", row, task) for n, row in enumerate(given)]
    tempo = fields.number("tempo", SLOWEST, FASTEST)
    program = fields.integer("program", 0, 127) if fields.optional("program") else None
    return _Piece(tokens, tempo, program)


def _midi(task: Task, tokens: list[np.ndarray], piece: _Piece) -> bytes:
    sequence = concatenate(tokens, task.name, rest_bars=0, qpm=piece.tempo, program=piece.program)
    return midi_bytes(sequence)

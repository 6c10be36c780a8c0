"""What `experiments.generate` does with a model of sound: its options, inputs and files."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from data_pipeline.atomic_write import write_arrays
from data_pipeline.inputs import sound_files
from data_pipeline.render import waveforms
from experiments.generation.files import earlier_files
from experiments.generation.modes import Music
from experiments.generation.options import Options
from musicvae_jax.config import InputError
from musicvae_jax.tasks import SoundTask

MODES = ("sample", "reconstruct", "interpolate", "grid", "similar")
_FORMATS = ("midi", "png", "wav")  # MIDI is the default of music


def check_options(options: Options) -> None:
    """Check that nothing is asked for that needs notes.

    Raises:
      InputError: the mode, a format or a setting does.
    """
    if options.mode not in MODES:
        raise InputError(f"mode: a sound model supports the modes {', '.join(MODES)}")
    wrong = [name for name in options.formats if name not in _FORMATS]
    if wrong:
        raise InputError(f"format: {', '.join(wrong)} needs notes; sound models write wav and png")
    for name in ("temperature", "qpm", "program", "soundfont", "track"):
        if getattr(options, name) is not None:
            raise InputError(f"{name}: not available for sound models")
    for flag, given in (("start_bar", options.start_bars), ("loop", options.loop)):
        if given:
            raise InputError(f"{flag}: not available for sound models")


def read_file(path: str, task: SoundTask) -> np.ndarray:
    """Read the beginning of a sound file as a row [T] int16.

    Raises:
      InputError: it cannot be read, or is too short.
    """
    try:
        return next(sound_files.read_rows(pathlib.Path(path).read_bytes(), task))
    except (OSError, sound_files.SoundFileError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"one of the {error}"
        raise InputError(f"input: {path}: {reason}; a row is {task.seconds} s of sound") from error


def write(music: Music, task: SoundTask, options: Options) -> list[pathlib.Path]:
    """Write an array, a WAV file of each row and a picture; return their paths."""
    folder, earlier = pathlib.Path(options.output), earlier_files(options)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{options.mode}.npz"]
    inputs: dict[str, Any] = {} if music.inputs is None else {"inputs": music.inputs}
    write_arrays(written[0], {"samples": music.tokens, "z": music.z, **inputs})
    for name, row in zip(music.names, music.tokens, strict=True):
        written.append(folder / f"{name}.wav")
        waveforms.write_wav(written[-1], row, task.sample_rate)
    rows, titles, columns = music.tokens, music.titles, music.columns
    if music.inputs is not None:
        rows = np.stack([music.inputs, rows], axis=1).reshape(-1, task.num_steps)
        titles = [text for n, title in enumerate(titles, 1) for text in (f"input {n}", title)]
    written.append(folder / f"{options.mode}.png")
    waveforms.waveforms_png(written[-1], rows, task.sample_rate, titles, columns=columns)
    for path in set(earlier) - set(written):
        path.unlink()
    return written

"""Sound files: finding them, and cutting one into rows of samples."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from musicvae_jax.config import InputError
from musicvae_jax.tasks import SoundTask

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
FULL_SCALE = 2**15


class SoundFileError(Exception):
    """Why a file gives no rows, as words that can be counted: "damaged files"."""


def find_files(folder: pathlib.Path) -> tuple[list[str], int]:
    """List the sound files below a folder by name, and count the other files.

    Hidden files and folders are skipped.

    Raises:
      InputError: it is not a folder.
    """
    if not folder.is_dir():
        raise InputError(f"input: {folder} is not a folder")
    names, others = [], 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = pathlib.Path(place, name)
            if name.startswith(".") or not path.is_file():
                continue
            if path.suffix.lower() in SUFFIXES:
                names.append(path.relative_to(folder).as_posix())
            else:
                others += 1
    return sorted(names), others


def read_rows(content: bytes, task: SoundTask) -> Iterator[np.ndarray]:
    """Yield the rows [T] int16 of a file, one channel at the task's sample rate.

    Each row is resampled by itself, so that long files need little memory. A last part of at
    least half a row is filled up with silence.

    Raises:
      SoundFileError: the file is damaged, holds values that are not finite, or is too short.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as source:
            size = task.seconds * source.samplerate
            is_first = True
            while True:
                block = source.read(size, dtype="float32", always_2d=True)
                if 2 * len(block) < size:
                    if is_first:
                        raise SoundFileError("files shorter than half a row")
                    return
                is_first = False
                yield _as_row(block.mean(axis=1), source.samplerate, task)
    except soundfile.SoundFileError as error:
        raise SoundFileError("damaged files") from error


def _as_row(sound: np.ndarray, sample_rate: int, task: SoundTask) -> np.ndarray:
    """Resample one channel of sound and fill it up to a row [T] int16."""
    import soxr

    if not np.isfinite(sound).all():
        raise SoundFileError("files with values that are not finite")
    resampled = soxr.resample(sound, sample_rate, task.sample_rate)
    row = np.zeros(task.num_steps, np.int16)
    samples = np.rint(resampled[: task.num_steps] * FULL_SCALE)
    row[: len(samples)] = np.clip(samples, -FULL_SCALE, FULL_SCALE - 1)
    return row

"""A folder of short sounds: sines and noise, a folder for each kind."""

from __future__ import annotations

import pathlib

import numpy as np
import soundfile

SAMPLE_RATE = 8000


def sine(hertz: float, seconds: float, loudness: float = 0.5) -> np.ndarray:
    """Return samples [N] float32 at `SAMPLE_RATE`."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (loudness * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def write_folder(folder: pathlib.Path, num_files: int = 10, seconds: float = 2.0) -> pathlib.Path:
    """Write `num_files` files each of low and of high sines, of different frequencies."""
    # Frequencies with which no second equals another.
    for label, lowest in (("low", 40.0), ("high", 90.0)):
        (folder / label).mkdir(parents=True)
        for number in range(num_files):
            sound = sine(lowest + 2 * number + 0.3, seconds, 0.3 + 0.05 * number)
            soundfile.write(folder / label / f"{number:02}.wav", sound, SAMPLE_RATE)
    return folder

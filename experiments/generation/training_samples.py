"""Files of the samples that a run generates while it trains: RUN/samples/step_STEP.*."""

from __future__ import annotations

import io
import pathlib
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.atomic_write import write_whole
from data_pipeline.render import audio, files, pictures, waveforms
from musicvae_jax.tasks import SoundTask, get_task
from musicvae_jax.training.samples import Samples

FOLDER = "samples"


class Shown(NamedTuple):
    """What TensorBoard shows of the samples of a step.

    Attributes:
      picture: of all rows, uint8 [height, width, channels].
      sound: of the first row, float32, from -1 to 1.
      sample_rate: samples of the sound per second.
    """

    picture: np.ndarray
    sound: np.ndarray
    sample_rate: int


def write(run_dir: pathlib.Path, task_name: str, step: int, samples: Samples) -> Shown:
    """Write the samples of a step as an array, a MIDI or WAV file of all rows and a picture.

    Raises:
      OSError: a file cannot be written, for example because the disk is full.
    """
    folder, task = run_dir / FOLDER, get_task(task_name)
    folder.mkdir(exist_ok=True)
    start = folder / f"step_{step:08d}"
    picture = start.with_suffix(".png")
    titles = [f"step {step:,}, sample {n}" for n in range(1, len(samples.rows) + 1)]
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        "samples" if task.is_sound else "tokens": samples.rows,
        "z": samples.z,
    }
    np.savez(buffer, **arrays)
    write_whole(start.with_suffix(".npz"), buffer.getvalue())
    if isinstance(task, SoundTask):
        rate = task.sample_rate
        waveforms.write_wav(start.with_suffix(".wav"), samples.rows, rate)
        waveforms.waveforms_png(picture, samples.rows, rate, titles)
        sound = (samples.rows[0] / waveforms.FULL_SCALE).astype(np.float32)
        return Shown(pictures.read_png(picture), sound, rate)
    files.write_midi(start.with_suffix(".mid"), samples.rows, task_name)
    pictures.piano_roll_png(picture, samples.rows, task_name, titles, columns=2)
    sound = audio.synthesise(samples.rows[0], task_name)
    return Shown(pictures.read_png(picture), sound, audio.SAMPLE_RATE)

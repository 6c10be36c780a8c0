"""Rows of tokens as sound, by a small built-in synthesiser or with a SoundFont.

The synthesiser uses decaying harmonics for melodies and basses, and frequency sweeps and noise for
drums. It is meant for a quick listen, not for good sound, and is deterministic.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import pathlib
import wave

import numpy as np

from data_pipeline.codecs import drums, trio
from data_pipeline.reading.segments import DEFAULT_QPM
from data_pipeline.render.sequences import Rows, check_sound, lay_out_rows
from musicvae_jax.config import InputError

SAMPLE_RATE = 44_100  # samples per second
TAIL_SECONDS = 1.0  # after the last bar, for notes that still decay
MAX_SECONDS = 3600.0
PEAK = 0.9  # greatest absolute sample; 1 is full scale
LONGEST_KEPT = SAMPLE_RATE  # samples of a note; 128 of them are at most 24 MB

_ATTACK_SECONDS, _RELEASE_SECONDS = 0.005, 0.06
# For each drum class: first and last frequency of the tone (Hz), its share (the rest is noise),
# decay time (seconds), and whether the noise is high-passed.
_DRUMS = (
    (130.0, 45.0, 0.95, 0.16, False),
    (220.0, 170.0, 0.35, 0.11, False),
    (0.0, 0.0, 0.0, 0.03, True),
    (0.0, 0.0, 0.0, 0.18, True),
    (120.0, 80.0, 0.9, 0.20, False),
    (170.0, 115.0, 0.9, 0.17, False),
    (230.0, 160.0, 0.9, 0.14, False),
    (0.0, 0.0, 0.0, 0.45, True),
    (540.0, 535.0, 0.25, 0.28, True),
)


def synthesise(
    rows: Rows,
    task_name: str,
    *,
    qpm: float = DEFAULT_QPM,
    program: int | None = None,
    rest_bars: int = 1,
) -> np.ndarray:
    """Play rows one after the other with bars of rest between them.

    Args:
      rows: one row, or a list or array of rows.
      task_name: key of `TASKS`.
      qpm: quarters per minute.
      program: checked as in `files.write_midi`, but all programs sound the same.
      rest_bars: bars of silence between two rows.

    Returns:
      float32 samples at `SAMPLE_RATE`; the loudest reaches `PEAK` unless all is silent.

    Raises:
      InputError: a row does not fit the task, a number is out of range, or the sound would last
        longer than an hour.
    """
    check_sound(qpm, program)
    layout = lay_out_rows(rows, task_name, rest_bars=rest_bars, program=program)
    per_step = 60.0 / qpm / layout.steps_per_quarter
    seconds = layout.num_steps * per_step + TAIL_SECONDS
    _check_length(seconds)
    mix = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for note in layout.notes:
        if note["is_drum"]:
            sound = _drum(int(note["pitch"]))
        else:
            length = int(note["end_step"] - note["start_step"]) * per_step
            is_bass = int(note["instrument"]) == trio.BASS_INSTRUMENT
            sound = _tone(int(note["pitch"]), round(length * SAMPLE_RATE), is_bass)
        start = round(int(note["start_step"]) * per_step * SAMPLE_RATE)
        sound = sound[: len(mix) - start]
        mix[start : start + len(sound)] += sound
    loudest = float(np.abs(mix).max(initial=0.0))
    return mix * np.float32(PEAK / loudest) if loudest > 0 else mix


def make_loop(sound: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut sound to a length; what rings on after it is added to the beginning.

    Args:
      sound: float samples.
      num_samples: length of the loop.

    Returns:
      float32 [num_samples]; the loudest reaches `PEAK` unless all is silent.
    """
    folded = np.zeros(num_samples, np.float32)
    for start in range(0, len(sound), num_samples):
        part = sound[start : start + num_samples]
        folded[: len(part)] += part
    loudest = float(np.abs(folded).max(initial=0.0))
    return folded * np.float32(PEAK / loudest) if loudest > 0 else folded


def _check_length(seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise InputError(
            f"wav: {seconds / 60:.0f} minutes of sound are more than an hour; choose fewer rows "
            "or a higher --qpm"
        )


def _tone(pitch: int, num_samples: int, is_bass: bool) -> np.ndarray:
    """Return one note of a melody or bass; keep it, if it is short, for when it comes again."""
    make = _kept_tone if num_samples <= LONGEST_KEPT else _make_tone
    return make(pitch, num_samples, is_bass)


def _make_tone(pitch: int, num_samples: int, is_bass: bool) -> np.ndarray:
    """Synthesise one note of a melody or bass, with a short release after its end."""
    release = round(_RELEASE_SECONDS * SAMPLE_RATE)
    time = np.arange(num_samples + release) / SAMPLE_RATE
    frequency = 440.0 * 2.0 ** ((pitch - 69) / 12)
    harmonics = np.arange(1, 5 if is_bass else 9)
    harmonics = harmonics[harmonics * frequency < SAMPLE_RATE / 2]
    sound = np.zeros(len(time))
    for harmonic in harmonics.tolist():
        fade = np.exp(-time * (0.8 + 0.7 * harmonic))
        sound += fade * np.sin(2 * np.pi * frequency * harmonic * time) / harmonic**1.4
    attack = np.minimum(time / _ATTACK_SECONDS, 1.0)
    held = np.clip((num_samples + release - np.arange(len(time))) / release, 0.0, 1.0)
    # Low notes sound softer than high notes of the same amplitude.
    return (sound * attack * held * (0.55 if is_bass else 0.35)).astype(np.float32)


_kept_tone = functools.lru_cache(maxsize=128)(_make_tone)


@functools.lru_cache(maxsize=16)
def _drum(pitch: int) -> np.ndarray:
    """Synthesise one drum hit."""
    number = next(i for i, known in enumerate(drums.CLASS_PITCHES) if pitch in known)
    high, low, share, fade, is_bright = _DRUMS[number]
    time = np.arange(round(6 * fade * SAMPLE_RATE)) / SAMPLE_RATE
    frequency = low + (high - low) * np.exp(-time / (fade / 4))
    tone = np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)
    noise = np.random.default_rng(number).uniform(-1.0, 1.0, len(time) + 1)
    noise = np.diff(noise) if is_bright else noise[1:]
    volume = 0.35 if is_bright else 0.8
    sound = (share * tone + (1 - share) * noise) * np.exp(-time / fade) * volume
    return sound.astype(np.float32)


def check_soundfont(soundfont: str | os.PathLike[str]) -> None:
    """Check that FluidSynth can play a SoundFont.

    Raises:
      InputError: as `check_soundfont_file`, or pyfluidsynth or FluidSynth is not installed.
    """
    check_soundfont_file(soundfont)
    try:
        importlib.import_module("fluidsynth")  # pretty_midi needs it, but reports it less clearly
    except (ImportError, OSError) as error:
        raise InputError(
            "SoundFonts need pyfluidsynth and the system's FluidSynth library: "
            "pip install 'musicvae-jax[sound]' and, on Debian, apt install libfluidsynth3"
        ) from error


def check_soundfont_file(soundfont: str | os.PathLike[str]) -> None:
    """Check that a file is a SoundFont.

    Raises:
      InputError: it does not exist, is not a SoundFont, or its end is missing.
    """
    if not pathlib.Path(soundfont).is_file():
        raise InputError(f"soundfont: there is no file {os.fspath(soundfont)}")
    with open(soundfont, "rb") as stream:
        head = stream.read(12)
        size = stream.seek(0, os.SEEK_END)
    if (head[:4], head[8:]) != (b"RIFF", b"sfbk"):  # FluidSynth would play silence
        raise InputError(f"soundfont: {os.fspath(soundfont)} is not a SoundFont (.sf2, .sf3)")
    expected = int.from_bytes(head[4:8], "little") + 8
    if size < expected:
        raise InputError(
            f"soundfont: {os.fspath(soundfont)} is damaged: it has {size} bytes of {expected}"
        )


def play_soundfont(midi: bytes, soundfont: str | os.PathLike[str]) -> np.ndarray:
    """Play a MIDI file with a SoundFont through FluidSynth.

    Returns:
      float32 samples at `SAMPLE_RATE`, scaled as those of `synthesise`.

    Raises:
      InputError: as `check_soundfont`.
    """
    check_soundfont(soundfont)
    import pretty_midi

    sound = pretty_midi.PrettyMIDI(io.BytesIO(midi)).fluidsynth(
        fs=SAMPLE_RATE, sf2_path=os.fspath(soundfont)
    )
    loudest = float(np.abs(sound).max(initial=0.0))
    return (sound * (PEAK / loudest if loudest > 0 else 1.0)).astype(np.float32)


def wav_bytes(sound: np.ndarray, sample_rate: int = SAMPLE_RATE) -> bytes:
    """Return a WAV file's content: mono, 16 bits.

    Args:
      sound: float samples in [-1, 1].
      sample_rate: samples per second.
    """
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(sample_rate)
        stream.writeframes(np.round(sound * 32767).astype("<i2").tobytes())
    return buffer.getvalue()

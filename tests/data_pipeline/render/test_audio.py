from __future__ import annotations

import pathlib
import sys
import wave

import numpy as np
import pytest

from data_pipeline.render import audio, files
from musicvae_jax.config import InputError
from musicvae_jax.tasks import TASKS
from tests.support.example_rows import EXAMPLES, MELODY_ROW
from tests.support.note_lists import row
from tests.support.tiny_soundfont import tiny_soundfont

A4 = 69 - 21 + 2


def loud(sound: np.ndarray, seconds: float) -> float:
    """The loudest sample of the 20 ms from a time on."""
    start = round(seconds * audio.SAMPLE_RATE)
    return float(np.abs(sound[start : start + audio.SAMPLE_RATE // 50]).max())


def test_a_note_sounds_at_its_pitch_and_time() -> None:
    sound = audio.synthesise(np.array(row(32, s8=A4, s16=1)), "mel_2bar")
    second = sound[audio.SAMPLE_RATE : 2 * audio.SAMPLE_RATE]  # from step 8, a second in
    spectrum = np.abs(np.fft.rfft(second))
    assert spectrum.argmax() == 440
    assert loud(sound, 0.9) == 0.0
    assert loud(sound, 1.0) > 0.3
    assert loud(sound, 2.2) == 0.0  # released
    assert sound.dtype == np.float32
    assert np.abs(sound).max() == pytest.approx(audio.PEAK)


def test_tempo_and_rests_shift_the_notes() -> None:
    tokens = np.array(row(16, s0=A4, s4=1))
    slow = audio.synthesise([tokens, tokens], "mel_2bar", qpm=60.0)
    # A bar of 4 seconds, one of rest, and the second row.
    assert len(slow) == (12 + 1) * audio.SAMPLE_RATE
    assert loud(slow, 7.9) == 0.0 < loud(slow, 8.0)
    close = audio.synthesise([tokens, tokens], "mel_2bar", qpm=60.0, rest_bars=0)
    assert loud(close, 3.9) == 0.0 < loud(close, 4.0)


def test_a_loop_adds_what_rings_on_to_its_beginning() -> None:
    sound = np.array([0.1, 0.0, 0.0, 0.2, 0.4, -0.2, 0.0, 0.0, 0.3])
    loop = audio.make_loop(sound, 4)
    np.testing.assert_allclose(loop, audio.PEAK / 0.8 * np.array([0.8, -0.2, 0.0, 0.2]), rtol=1e-6)
    assert not audio.make_loop(np.zeros(3), 5).any()


def test_a_looped_file_is_exactly_as_long_as_its_bars(tmp_path: pathlib.Path) -> None:
    tokens = np.array(row(16, s14=1 << 7))  # a crash that rings on after the bar
    lengths = {}
    for loop in (False, True):
        path = tmp_path / f"{loop}.wav"
        files.write_wav(path, tokens, "drums_2bar", qpm=90.0, loop=loop)
        with wave.open(str(path)) as stream:
            lengths[loop] = stream.getnframes()
            sound = np.frombuffer(stream.readframes(lengths[loop]), "<i2")
        assert (np.abs(sound[:1000]).max() > 1000) == loop
    bar = 4 * 60 / 90 * audio.SAMPLE_RATE
    assert lengths == {False: bar + audio.SAMPLE_RATE, True: bar}


def test_every_drum_class_sounds_and_the_kick_is_lowest() -> None:
    centres = []
    for number in range(9):
        sound = audio.synthesise(np.array(row(16, s0=1 << number)), "drums_2bar")
        power = np.abs(np.fft.rfft(sound)) ** 2
        centres.append(float((power * np.arange(len(power))).sum() / power.sum()))
    assert min(centres) == centres[0]
    assert min(centres[2], centres[3]) > max(centres[4:7])


@pytest.mark.parametrize("task", TASKS)
def test_equal_rows_give_equal_files(task: str, tmp_path: pathlib.Path) -> None:
    tokens = EXAMPLES[task][:64]
    for name in ("a.wav", "b.wav"):
        files.write_wav(tmp_path / name, tokens, task, qpm=240.0)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    with wave.open(str(tmp_path / "a.wav")) as stream:
        assert (stream.getnchannels(), stream.getsampwidth(), stream.getframerate()) == (
            1,
            2,
            44_100,
        )
        seconds = stream.getnframes() / stream.getframerate()
    assert seconds == pytest.approx(len(tokens) / 16 + 1)


def test_silence_is_silent() -> None:
    assert not audio.synthesise(np.zeros(32, int), "mel_2bar").any()


def test_unplayable_input_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"wav: 16\d\d minutes of sound are more than an"):
        audio.synthesise([MELODY_ROW] * 140, "mel_2bar", qpm=1.0)
    with pytest.raises(InputError, match="soundfont: there is no file nowhere"):
        files.write_wav(tmp_path / "a.wav", MELODY_ROW, "mel_2bar", soundfont="nowhere")
    (tmp_path / "a.sf2").write_bytes(b"RIFF....WAVE")
    with pytest.raises(InputError, match=r"soundfont: .*a\.sf2 is not a SoundFont"):
        files.write_wav(tmp_path / "a.wav", MELODY_ROW, "mel_2bar", soundfont=tmp_path / "a.sf2")
    (tmp_path / "a.sf2").write_bytes(tiny_soundfont()[:-1])
    with pytest.raises(InputError, match=r"soundfont: .*a\.sf2 is damaged: it has \d+ bytes of"):
        files.write_wav(tmp_path / "a.wav", MELODY_ROW, "mel_2bar", soundfont=tmp_path / "a.sf2")
    (tmp_path / "a.sf2").write_bytes(b"RIFF\4\0\0\0sfbk")
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    with pytest.raises(InputError, match=r"pip install 'musicvae-jax\[sound\]'"):
        files.write_wav(tmp_path / "a.wav", MELODY_ROW, "mel_2bar", soundfont=tmp_path / "a.sf2")
    assert [path.name for path in tmp_path.iterdir()] == ["a.sf2"]
    with pytest.raises(InputError, match="soundfont: there is no file nowhere"):
        files.check_formats(("wav",), "nowhere")


def test_only_short_notes_are_kept() -> None:
    audio._kept_tone.cache_clear()
    held = np.array(row(32, s0=A4))
    audio.synthesise(held, "mel_2bar", qpm=30.0)  # a note of 16 seconds
    assert audio._kept_tone.cache_info().currsize == 0
    audio.synthesise(held, "mel_2bar", qpm=600.0)
    assert audio._kept_tone.cache_info().currsize == 1

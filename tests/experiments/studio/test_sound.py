"""What the page plays, measured on the audio clock, and with a SoundFont."""

from __future__ import annotations

import pathlib
import wave

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.studio_page import (
    LEVEL,
    serve,
    type_sketch,
    use_model,
    wait,
    watched_page,
)
from tests.support.tiny_soundfont import tiny_soundfont

RATE = 22_050  # samples per second
TEMPO = 120
STEP_SECONDS = 60 / TEMPO / 4
LOOP_SECONDS = 32 * STEP_SECONDS
FURTHEST_APART = 0.02  # seconds between the playhead and the sound

# Plays into an offline context, whose clock stands still while the page schedules notes: the speed
# of the machine changes nothing. Returns the samples and, every 50 ms, the time and the playhead.
RENDER = """async ([tempo, seconds, rate]) => {
  const offline = new OfflineAudioContext(1, seconds * rate, rate);
  const goOn = () => OfflineAudioContext.prototype.resume.call(offline);
  offline.resume = async () => {};
  window.AudioContext = function AudioContext() { return offline; };
  const {player, store} = studio.app;
  store.update({tempo});
  const heads = [];
  for (let tick = 1; tick < 20 * seconds; ++tick) {
    offline.suspend(tick / 20).then(() => {
      player.schedule();
      heads.push([offline.currentTime, player.position?.step ?? -1]);
      goOn();
    });
  }
  await player.start();
  const samples = (await offline.startRendering()).getChannelData(0);
  player.stop();
  return [Array.from(samples), heads];
}"""


def render(page: Page, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Play the current piece: samples [N] and rows of time and playhead [M, 2]."""
    samples, heads = page.evaluate(RENDER, [TEMPO, seconds, RATE])
    return np.array(samples), np.array(heads)


def test_the_playhead_and_the_sound_agree_on_every_beat(page: Page) -> None:
    type_sketch(page, " ".join(["H . . ."] * 8))
    samples, heads = render(page, 2.2 * LOOP_SECONDS)
    is_loud = np.abs(samples) > 0.2 * np.abs(samples).max()
    loud = np.flatnonzero(is_loud)
    onsets = loud[np.diff(loud, prepend=-RATE) > 0.5 * 4 * STEP_SECONDS * RATE] / RATE
    np.testing.assert_allclose(np.diff(onsets), 4 * STEP_SECONDS, atol=0.005)
    assert len(onsets) >= 16
    shown = heads[heads[:, 1] >= 0]
    for onset in onsets[(onsets > shown[0, 0]) & (onsets < shown[-1, 0])]:
        time, step = shown[shown[:, 0] <= onset][-1]
        heard_at = step + (onset - time) / STEP_SECONDS  # the playhead when the beat is heard
        apart = (heard_at - 4 * np.round(heard_at / 4)) * STEP_SECONDS
        assert abs(apart) < FURTHEST_APART, onset


def test_no_click_at_the_end_of_the_loop(page: Page) -> None:
    use_model(page, "mel_2bar")
    type_sketch(page, " ".join(["48 _"] * 16))
    samples, _ = render(page, 2.2 * LOOP_SECONDS)
    start = np.flatnonzero(np.abs(samples) > 1e-4)[0]
    at_loops, inside = jumps_before_notes(samples, start)
    assert min(inside) > 1e-4
    assert max(at_loops) <= 1.2 * max(inside)
    # The measure finds a click: no sound from the loudest sample before the loop's end on. A fixed
    # moment would not do, since the wave may be near zero there.
    end = start + round(LOOP_SECONDS * RATE)
    loudest = end - 199 + np.abs(samples[end - 199 : end - 21]).argmax()
    samples[loudest:end] = 0
    assert max(jumps_before_notes(samples, start)[0]) > 1.2 * max(inside)


def jumps_before_notes(samples: np.ndarray, start: int) -> tuple[list[float], list[float]]:
    """Return the largest steps between samples just before notes: at loop ends and elsewhere."""
    steps = np.abs(np.diff(samples))
    found: tuple[list[float], list[float]] = ([], [])
    for note in range(1, 33):
        end = start + round(note * 2 * STEP_SECONDS * RATE)
        found[note % 16 != 0].append(float(steps[end - 200 : end - 20].max()))
    return found


def test_sound_is_heard_while_playing_and_not_after(page: Page) -> None:
    type_sketch(page, "K K K K K K K K")
    page.locator("#play").click()
    wait(page, f"({LEVEL})() > 0.001")
    wait(page, "studio.app.player.position?.step > 1")
    page.locator("#views").click(position={"x": 2, "y": 2})
    page.keyboard.press("Space")
    wait(page, f"({LEVEL})() === 0")
    assert page.evaluate("studio.app.player.position") is None


def test_steps_are_even_over_the_loop_and_material_changes_at_a_bar(page: Page) -> None:
    page.get_by_label("Tempo").fill("400")
    page.get_by_label("Tempo").press("Enter")
    type_sketch(page, " ".join(["K"] * 32))
    page.locator("#play").click()
    wait(page, "studio.app.player.position")
    page.evaluate("""() => {
      const {synth} = studio.app.player;
      const send = synth.send;
      window.sent = [];
      synth.send = (message, time) => {
        if (message[0] === 0x99) window.sent.push([message[1], time]);
        send.call(synth, message, time);
      };
    }""")
    wait(page, "window.sent.length >= 40")
    type_sketch(page, " ".join(["S"] * 32))
    wait(page, "window.sent.filter(([pitch]) => pitch === 38).length >= 20")
    sent = page.evaluate("window.sent")
    times = np.array([time for _, time in sent])
    np.testing.assert_allclose(np.diff(times), 60 / 400 / 4, atol=1e-9)
    start, step = page.evaluate("[studio.app.player.time, studio.app.player.step]")
    first_snare = times[[pitch for pitch, _ in sent].index(38)]
    steps = step - (start - first_snare) / (60 / 400 / 4)
    assert round(steps) % 16 == 0


def test_notes_go_to_a_midi_output(page: Page) -> None:
    page.evaluate("""() => {
      window.sent = [];
      const send = (message) => window.sent.push(message[0]);
      const output = {id: 'a', name: 'Piano', send};
      navigator.requestMIDIAccess = async () => ({outputs: new Map([['a', output]])});
    }""")
    page.get_by_label("Sound").select_option("find")
    expect(page.get_by_label("Sound")).to_have_value("a")
    type_sketch(page, "K K K K")
    page.locator("#play").click()
    wait(page, "window.sent.filter((status) => status === 0x99).length >= 4")
    # A note has more than 0.001; the graph may hold a remainder that nobody hears.
    assert page.evaluate(LEVEL) < 1e-5


def test_the_wav_file_is_as_long_as_the_loop(page: Page) -> None:
    page.get_by_label("Tempo").fill("120")
    page.get_by_label("Tempo").press("Enter")
    with page.expect_download() as download:
        page.get_by_role("button", name="WAV").click()
    with wave.open(str(download.value.path())) as sound:
        assert sound.getnframes() == round(LOOP_SECONDS * sound.getframerate())


@pytest.fixture(scope="module")
def soundfont(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A SoundFont of a few hundred bytes."""
    path = tmp_path_factory.mktemp("soundfont") / "tiny.sf2"
    path.write_bytes(tiny_soundfont())
    return path


def test_a_soundfont_is_heard_while_playing_and_not_after(
    browser: Browser, soundfont: pathlib.Path
) -> None:
    with (
        serve(("mel_2bar",), soundfont) as address,
        watched_page(browser, address) as (page, requested),
    ):
        type_sketch(page, "69 _ _ _ 71 _ _ _")
        assert not [url for url in requested if "spessasynth" in url or "tinysynth" in url]
        page.locator("#play").click()
        wait(page, f"({LEVEL})() > 0.001")
        wait(page, "studio.app.player.position?.step > 1")
        page.locator("#play").click()
        wait(page, f"({LEVEL})() === 0")
        expect(page.get_by_role("button", name="WAV (built-in sound)")).to_be_visible()
        assert f"{address}soundfont" in requested
        assert not [url for url in requested if "tinysynth" in url]


def test_a_damaged_soundfont_gives_its_reason(browser: Browser, tmp_path: pathlib.Path) -> None:
    (tmp_path / "damaged.sf2").write_bytes(tiny_soundfont()[:12] + bytes(700))
    with (
        serve(("mel_2bar",), tmp_path / "damaged.sf2") as address,
        watched_page(browser, address) as (page, _),
    ):
        page.locator("#play").click()
        expect(page.get_by_role("alert")).to_contain_text("The SoundFont cannot be played")
        expect(page.locator("#play")).to_contain_text("Play")

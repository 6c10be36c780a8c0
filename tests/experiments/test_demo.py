from __future__ import annotations

import pathlib
import signal
import subprocess
import threading
import time

import pytest

from experiments import demo
from musicvae_jax.pretrained import packaged
from tests.support.commands import HANGS_SECONDS


def test_the_demo_runs_every_entry_point_on_the_folk_corpus() -> None:
    lines = [" ".join(arguments) for arguments in demo.commands("demo")]
    starts = ("data_pipeline.prepare", "experiments.train", "experiments.generate")
    names = [line.split()[1] for line in lines]
    assert names[:3] == list(starts)
    assert names[3:] == [
        *("experiments.train", "experiments.evaluate"),
        *["experiments.generate"] * 3,
    ]
    # The first music is made after a part of the same training.
    assert lines[1] == f"{lines[3]} --train_steps=500 --nofit_prior"
    assert "--output=demo/first --mode=sample --num=4" in lines[2]
    lines = lines[:1] + lines[3:]
    assert "--corpus=folk" in lines[0]
    asked = ("--mode=sample --num=8", "--mode=reconstruct", "--mode=interpolate")
    assert all(text in line for text, line in zip(asked, lines[3:], strict=True))
    assert all("--overwrite --format=midi,wav,png" in line for line in lines[3:])
    assert "--num=4" in lines[4]
    assert "--steps=9" in lines[5]


def test_the_models_of_the_package_play_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    for name in ("b_model", "a_model"):
        (tmp_path / f"{name}.safetensors").touch()
    lines = [" ".join(arguments) for arguments in demo.first_music("demo")]
    for name, line in zip(("a_model", "b_model"), lines, strict=True):
        assert line.startswith("-m experiments.generate --mode=sample")
        assert line.endswith(f"--model={name} --output=demo/{name}")


def test_the_demo_trains_with_its_preset_or_a_given_flagfile() -> None:
    own, given = demo.commands("demo"), demo.commands("demo", (), "my.flags")
    assert (own[3][2], given[1][2]) == ("--preset=demo", "--flagfile=my.flags")
    assert len(given) == len(own) - 2


def test_music_of_ones_own_takes_the_corpus_place() -> None:
    prepare = demo.commands("demo", ["a", "b"])[0]
    assert [text for text in prepare if text.startswith(("--input", "--corpus"))] == [
        "--input=a",
        "--input=b",
    ]


def test_a_command_is_shown_and_its_exit_code_returned(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert demo.run(["-c", "print('ran'); raise SystemExit(3)"]) == 3
    shown, _, rest = capfd.readouterr().out.lstrip("\n").partition("\n")
    assert shown.startswith("$ ")
    assert "raise SystemExit(3)" in shown
    assert rest == "ran\n"


# On SIGTERM it writes a file and exits with 7; it exits with 0 when the file "sent" is there.
_SAVES = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
  (folder / "saved").touch()
  sys.exit(7)
signal.signal(signal.SIGTERM, save)
(folder / "ready").touch()
for _ in range(50_000):
  if (folder / "sent").exists():
    sys.exit(0)
  time.sleep(0.02)
sys.exit(9)
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_waited_for(
    sent: signal.Signals, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "saves.py"
    script.write_text(_SAVES)
    waits, wait = threading.Event(), subprocess.Popen.wait

    def announced(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        waits.set()
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", announced)

    def send() -> None:
        waits.wait(HANGS_SECONDS)
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        signal.pthread_kill(main.ident or 0, sent)
        # SIGTERM is passed on. Ctrl-C reaches the command by itself, so here it never hears of it.
        if sent == signal.SIGINT:
            (tmp_path / "sent").touch()

    main, sender = threading.main_thread(), threading.Thread(target=send, daemon=True)
    sender.start()
    assert demo.run([str(script), str(tmp_path)]) == (7 if sent == signal.SIGTERM else 0)
    assert (tmp_path / "saved").exists() == (sent == signal.SIGTERM)
    sender.join(HANGS_SECONDS)


def test_the_closing_lines_name_files_and_three_next_commands(tmp_path: pathlib.Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for name in ("sample.png", "sample_1.mid", "sample_1.wav", "sample.npz"):
        (music / name).touch()
    text = demo.closing(str(tmp_path))
    assert f"  {music / 'sample.png'}\n" in text
    assert "  sample_1.mid\n" in text
    assert "  sample_1.wav\n" in text
    assert text.split("Try next:\n")[1].count(" -m ") == 3

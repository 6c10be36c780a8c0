"""From a folder of MIDI files to music: every entry point in processes of its own."""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import shlex

import numpy as np
import pytest

from data_pipeline.reading import notes
from data_pipeline.render import files
from experiments import demo
from musicvae_jax.pretrained import packaged
from musicvae_jax.tasks import NOTE_OFF
from tests.support.commands import ROOT, Ended, run_command, run_forked, run_here

NUM_FILES = 120  # so many that the test split of 5% is never empty
MUSIC = {"sample": 8, "reconstruct": 4, "interpolate": 9}
FLAGS = """
--task=mel_2bar
--architecture=flat
--z_size=4
--encoder_sizes=8
--decoder_sizes=8
--init=default
--batch_size=16
--train_steps=4
--steps_per_dispatch=2
--log_every=2
--eval_every=4
--save_every=4
--eval_examples=16
"""


def write_songs(folder: pathlib.Path) -> None:
    """Write files of 6 bars of eighths that wander about a scale."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(NUM_FILES):
        row = np.zeros(6 * 16, np.uint8)
        row[::2] = 40 + np.cumsum(generator.integers(-2, 3, len(row) // 2)).clip(-15, 15)
        files.write_midi(folder / f"song_{number}.mid", row, "mel_2bar")


def num_notes(path: pathlib.Path) -> int:
    (unit,) = notes.read_units(path.name, path.read_bytes())
    assert unit.sequence is not None
    return len(unit.sequence.notes)


@pytest.mark.slow
def test_midi_files_become_tokens_a_model_a_table_and_music(tmp_path: pathlib.Path) -> None:
    write_songs(tmp_path / "songs")
    (tmp_path / "tiny.flags").write_text(FLAGS)
    out = tmp_path / "demo"
    songs, flagfile = str(tmp_path / "songs"), str(tmp_path / "tiny.flags")
    given = (f"--output={out}", f"--input={songs}", f"--train_flagfile={flagfile}")
    done = run_command("experiments.demo", *given)
    assert done.returncode == 0, done.stderr

    report = json.loads((out / "tokens" / "meta.json").read_text())
    rows = sum(report["counts"].values())
    assert NUM_FILES * 5 * 0.9 < rows <= NUM_FILES * 5  # 5 windows of 2 bars each, few equal
    table = json.loads((out / "run" / "evaluation_test.json").read_text())
    assert table["step"] == 4
    assert table["examples"] == report["counts"]["test"] > 0
    arrays = {name: np.load(out / "music" / f"{name}.npz") for name in MUSIC}
    assert {name: len(arrays[name]["tokens"]) for name in MUSIC} == MUSIC
    for name, found in arrays.items():
        assert (out / "music" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert found["z"].shape == (MUSIC[name], 4)
        for number, row in enumerate(found["tokens"], start=1):
            path = out / "music" / f"{name}_{number}.mid"
            assert num_notes(path) == int((row > NOTE_OFF).sum())
            assert path.name in done.stdout.split("Try next:")[0]
    kept = arrays["reconstruct"]["inputs"]
    test_rows = np.load(out / "tokens" / "test.npy")
    assert all((row == test_rows).all(axis=1).any() for row in kept)

    # Run again, what is done is found done.
    prepare, train, *_ = demo.commands(str(out), [songs], flagfile)
    assert "found finished" in run_here(*prepare[1:]).stdout
    assert run_here(*train[1:]).returncode == 0
    assert (out / "run" / "metrics.jsonl").read_text().count('"train"') == 2


def test_the_demo_stops_at_the_first_command_that_fails(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packaged, "names", list)  # their music is that of the test above
    done = run_here("experiments.demo", f"--output={tmp_path}/demo", "--input=no_such_folder")
    assert done.returncode == 2
    assert capfd.readouterr().err == "error: input: there is no file or folder no_such_folder\n"
    assert "experiments.train" not in done.stdout


def entry_points() -> list[str]:
    """Modules of the two packages that are commands."""
    paths = [*(ROOT / "experiments").glob("*.py"), *(ROOT / "data_pipeline").glob("*.py")]
    runs = [path for path in paths if "cli.run(main" in path.read_text("utf-8")]
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in runs)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Ended]:
    """Ask every command for help, and give each a flag that it does not have."""
    asked = list(itertools.product(entry_points(), ("--help", "--no_such_flag=1")))
    folder = tmp_path_factory.mktemp("answers")
    return dict(zip(asked, run_forked(asked, folder), strict=True))


@pytest.mark.parametrize("module", entry_points())
def test_help_begins_with_an_example_of_its_own_flags(
    module: str, answers: dict[tuple[str, str], Ended]
) -> None:
    done = answers[module, "--help"]
    assert (done.returncode, done.stderr) == (0, "")
    head, _, flags = done.stdout.partition("\nflags:\n")
    lines = [line for line in head.replace("\\\n", " ").splitlines() if line.strip()]
    example = next(line for line in lines if line.strip().startswith("python -m "))
    assert lines.index(example) <= 2
    words = shlex.split(example)
    assert words[:3] == ["python", "-m", module]
    assert len(words) > 3 or module == "experiments.models"  # it has no flags of its own
    names = set(re.findall(r"^ +--(?:\[no\])?(\w+):", flags, re.MULTILINE)) | {"flagfile"}
    given = [word for word in words[3:] if word.startswith("--")]
    assert {word.removeprefix("--").split("=")[0] for word in given} <= names
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text("utf-8")
    assert given == words[3:] or "takes_arguments=True" in source


@pytest.mark.parametrize("module", entry_points())
def test_a_misspelt_flag_ends_with_one_line(
    module: str, answers: dict[tuple[str, str], Ended]
) -> None:
    done = answers[module, "--no_such_flag=1"]
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: ")
    assert "no_such_flag" in done.stderr

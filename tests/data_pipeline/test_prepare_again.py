"""A store is made again only when asked, and the report ends with the command that comes next."""

from __future__ import annotations

import pathlib
import shlex

import pytest
from absl import flags

from data_pipeline import cli
from data_pipeline.prepare import FIRST_TRAINING
from experiments import train
from experiments.cli import config_flags
from experiments.cli.presets import names, path_of, quick_preset
from musicvae_jax.config import InputError
from musicvae_jax.pretrained import packaged
from musicvae_jax.tasks import TASKS
from tests.support.prepared import content, manifest, midi, run, tune


def test_the_next_line_trains_in_minutes_or_lists_presets(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "music").mkdir()
    for task in ("mel_2bar", "drums_2bar"):
        (tmp_path / "music" / f"{task}.mid").write_bytes(midi(task, 0, num_rows=100))
    all_train = {"split": (100, 0, 0)}
    both = tmp_path / "both"
    text = run(tmp_path / "music", both, tasks=("drums_2bar", "mel_2bar"), **all_train)
    assert shlex.split(text.splitlines()[-1])[-3:] == [
        *("--preset=demo", f"--data_dir={both}/mel_2bar", "--run_dir=runs/both")
    ]
    text = run(tmp_path / "music", tmp_path / "my drums", tasks=("drums_2bar",), **all_train)
    drums = [f"--data_dir={tmp_path}/my drums", "--run_dir=runs/my drums"]
    words = shlex.split(text.splitlines()[-1])
    assert words[-5:] == [*FIRST_TRAINING["drums_2bar"][0], *drums]
    monkeypatch.setattr("data_pipeline.prepare.FIRST_TRAINING", {})
    text = run(tmp_path / "music", tmp_path / "my drums", tasks=("drums_2bar",), **all_train)
    assert text.splitlines()[-1].endswith("presets --task=drums_2bar")


def test_a_first_training_is_a_quick_or_the_only_preset_or_of_a_packaged_model() -> None:
    for task, (start, batch_size) in FIRST_TRAINING.items():
        flag, _, name = start[0].partition("=")
        if flag == "--init_from":
            assert quick_preset(task) is None
            assert name in packaged.names()
            assert start[1] == f"--batch_size={batch_size}"
        else:
            of_task = [n for n in names() if f"\n--task={task}\n" in path_of(n).read_text()]
            assert start == (f"--preset={quick_preset(task) or of_task[0]}",)
            assert quick_preset(task) or len(of_task) == 1
            assert config_flags.config_from_flagfile(path_of(name)).train.batch_size == batch_size
    assert {task for task in TASKS if quick_preset(task)} < set(FIRST_TRAINING)


def test_the_next_line_of_piano_rolls_trains(tmp_path: pathlib.Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mid").write_bytes(midi("mel_16bar", 0, num_rows=1))
    text = run(
        tmp_path / "music", tmp_path / "rolls", tasks=("pianoroll_16bar",), split=(100, 0, 0)
    )
    words = shlex.split(text.splitlines()[-1])
    start = next(number for number, word in enumerate(words) if word.startswith("--"))
    values = flags.FlagValues()
    cli.define_flags(train.Options, values)
    config_flags.define(values)
    values(["train", *words[start:]])
    store, config = train.checked_inputs(values.data_dir, values)
    assert (store.task.name, config.model.architecture) == ("pianoroll_16bar", "stacked_vae")
    assert 0 < config.train.batch_size <= len(store.splits["train"])


@pytest.mark.parametrize("task", ["mel_2bar", "drums_2bar", "mel_16bar", "drums_16bar"])
def test_the_next_line_of_few_rows_has_a_batch_of_them(tmp_path: pathlib.Path, task: str) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mid").write_bytes(midi(task, 0, num_rows=1))
    text = run(tmp_path / "music", tmp_path / "out", tasks=(task,), split=(100, 0, 0))
    words = shlex.split(text.splitlines()[-1])
    start = next(number for number, word in enumerate(words) if word.startswith("--"))
    values = flags.FlagValues()
    cli.define_flags(train.Options, values)
    config_flags.define(values)
    values(["train", *words[start:]])
    store, config = train.checked_inputs(values.data_dir, values, values.init_from)
    assert 0 < config.train.batch_size == len(store.splits["train"]) < FIRST_TRAINING[task][1]


def test_the_next_line_without_training_rows_prepares_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mid").write_bytes(midi("mel_2bar", 0))
    given = [f"--input={tmp_path}/music", "--task=mel_2bar", f"--output={tmp_path}/out"]
    monkeypatch.setattr("sys.argv", ["prepare", *given, "--split=1,99,0"])
    text = run(tmp_path / "music", tmp_path / "out", split=(1, 99, 0))
    words = shlex.split(text.splitlines()[-1])
    assert words[-5:] == [*given, "--split=100,0,0", "--overwrite"]


@pytest.mark.slow
def test_a_changed_folder_can_be_prepared_again(tmp_path: pathlib.Path) -> None:
    music, output = tmp_path / "music", tmp_path / "out"
    music.mkdir()
    for number in range(3):
        (music / f"{number}.abc").write_text(tune(number))
    run(music, output)
    before = content(output)
    (music / "3.abc").write_text(tune(3))
    with pytest.raises(InputError, match="made with other sources; give --overwrite to replace it"):
        run(music, output)
    assert content(output) == before
    assert "written: " in run(music, output, overwrite=True)
    assert len(manifest(output)) == 4
    assert "found finished" in run(music, output, overwrite=True)
    (output / "train.npy").write_bytes(b"damaged")
    assert "written: " in run(music, output, overwrite=True)
    assert len(manifest(output)) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"music", "out"}
    (music / "4.abc").write_text(tune(4))
    (output / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"also holds mine.txt, which --overwrite would delete"):
        run(music, output, overwrite=True)
    assert (output / "mine.txt").read_text() == "mine"

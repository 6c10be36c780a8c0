from __future__ import annotations

import pathlib

import pytest
from absl import flags

from data_pipeline import cli
from experiments import train
from experiments.cli import config_flags, presets, training_time
from musicvae_jax.config import Config, InputError
from musicvae_jax.training import loop
from tests.support.synthetic_store import write_store


def preset(name: str) -> Config:
    return config_flags.config_from_flagfile(presets.path_of(name))


def test_a_run_of_more_than_a_day_names_its_time_and_the_smaller_preset() -> None:
    config = preset("mel_2bar_small")
    # 5.8e16 operations at 0.4 * 8.9e10 per second are 1.63e6 s = 452 hours.
    text = training_time.warning(config, 8.9e10)
    assert text is not None
    hours = float(text.split("take about ")[1].split(" hours")[0])
    assert hours == pytest.approx(452, rel=0.02)
    assert text.startswith("200,000 steps of 512 rows take about ")
    assert text.endswith("; --preset=demo needs three minutes (measured)")
    slower = training_time.warning(config, 8.9e10 * 452 / 10_000)
    assert slower is not None
    assert " hours on this CPU" in slower  # not 1 years


def test_a_large_model_of_16_bars_is_told_of_the_one_that_needs_an_hour() -> None:
    text = training_time.warning(preset("mel_16bar_hierdec"), 1e11)
    assert text is not None
    assert "; --preset=mel_16bar_hour needs " in text
    assert text.endswith(" GFLOP/s); an hour on one core (measured)")


def test_a_task_without_a_quick_preset_is_told_what_to_reduce() -> None:
    text = training_time.warning(preset("trio_16bar_flat"), 1e11)
    assert text is not None
    assert " years on this CPU" in text
    assert "--train_steps" in text


def test_a_short_run_needs_no_warning() -> None:
    config = preset("mel_2bar_small")
    assert training_time.warning(preset("demo"), 1e10) is None
    assert training_time.warning(config.replace(train_steps=1000), 8.9e10) is None


def test_train_warns_before_it_starts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(*_: object, **__: object) -> None:
        raise InputError("starts here")

    monkeypatch.setattr(loop, "fit", fit)
    write_store(tmp_path / "data", "mel_2bar")
    values = flags.FlagValues()
    cli.define_flags(train.Options, values)
    config_flags.define(values)
    given = ("--train_steps=1000000000", "--batch_size=8", f"--data_dir={tmp_path / 'data'}")
    values(["train", *given, f"--run_dir={tmp_path / 'run'}"])
    with pytest.raises(InputError, match="starts here"):
        train.train(cli.options_from_flags(train.Options, values), values)
    error = capsys.readouterr().err
    assert error.startswith("warning: 1,000,000,000 steps of 8 rows take about ")
    assert "--preset=demo" in error

"""The training command and its loop, from flags to files.

Longer than 400 lines because all tests share one short run.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags

from data_pipeline import cli
from experiments import train
from experiments.cli import config_flags, progress
from experiments.cli.signals import StopSignal
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.storage import checkpoints, run_folder
from musicvae_jax.tasks import get_task
from musicvae_jax.training import callbacks, early_stopping, loop
from tests.support.commands import HANGS_SECONDS, ROOT, run_command, run_here
from tests.support.synthetic_store import write_store

SMALL = (
    "--encoder_sizes=8",
    "--decoder_sizes=8",
    "--z_size=4",
    "--batch_size=16",
    "--sampling_schedule=constant",
    "--sampling_rate=0",
    "--dtype=float32",
)


def _values(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    cli.define_flags(train.Options, values)
    config_flags.define(values)
    values(["train", *arguments])
    return values


def _checked(*arguments: str) -> tuple[data.Store, Config]:
    values = _values(*arguments)
    options = cli.options_from_flags(train.Options, values)
    return train.checked_inputs(options.data_dir, values)


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    counts = {"train": 40, "validation": 12, "test": 0}
    return write_store(tmp_path_factory.mktemp("data") / "store", "mel_2bar", counts)


@pytest.fixture(scope="module")
def store(store_dir: pathlib.Path) -> data.Store:
    return data.open_store(store_dir)


@pytest.fixture(scope="module")
def config(store_dir: pathlib.Path) -> Config:
    run = ("--train_steps=11", "--log_every=4", "--eval_every=6", "--save_every=5")
    arguments = (f"--data_dir={store_dir}", "--run_dir=run", *SMALL, *run)
    return _checked(*arguments)[1].replace(steps_per_dispatch=3)


def _fit(
    config: Config, store: data.Store, run_dir: pathlib.Path, stop_after: int | None = None
) -> loop.Outcome:
    """Train with the real recorder; stop when `stop_after` dispatches were made."""
    folder = run_folder.open_run_folder(run_dir, config, store)
    recorder = progress.Recorder(folder, config.run.train_steps)
    asked = iter(range(stop_after if stop_after is not None else 1000))
    outcome = loop.fit(
        config, store, str(folder), recorder, should_stop=lambda: next(asked, None) is None
    )
    recorder.close()
    return outcome


def _records(run_dir: pathlib.Path) -> list[tuple[int, str]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [(record["step"], record["split"]) for record in map(json.loads, lines)]


@pytest.fixture(scope="module")
def whole(
    config: Config,
    store: data.Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[loop.Outcome, pathlib.Path]:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return _fit(config, store, run_dir), run_dir


def _assert_equal_states(left: loop.Outcome, right: loop.Outcome) -> None:
    jax.tree.map(np.testing.assert_array_equal, left.state, right.state)


def test_a_run_records_validates_and_saves(whole: tuple[loop.Outcome, pathlib.Path]) -> None:
    outcome, run_dir = whole
    assert (outcome.step, outcome.stopped) == (11, False)
    assert _records(run_dir) == [
        (4, "train"),
        (6, "validation"),
        (8, "train"),
        (11, "train"),
        (11, "validation"),
    ]
    assert checkpoints.restore_params(run_dir, "latest")[2] == 11
    assert checkpoints.restore_params(run_dir, "best")[2] in (6, 11)
    assert list((run_dir / "tensorboard").glob("events.*"))


def test_the_next_line_scores_a_split_that_has_rows(
    whole: tuple[loop.Outcome, pathlib.Path],
    config: Config,
    store: data.Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train._say_how_it_ended(whole[0], config, "runs/my run", store)
    assert not len(store.splits["test"])
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[-2:] == ["--run_dir=runs/my run", "--split=validation"]


def test_a_record_is_in_its_file_when_its_line_is_printed(tmp_path: pathlib.Path) -> None:
    figures = {"loss": 1.5, "accuracy": 0.25, "zeroed": 0.0, "skipped": 0.0}
    written: list[list[tuple[int, str]]] = []
    recorder = progress.Recorder(tmp_path, 100, lambda line: None)
    recorder.started(callbacks.Summary("1 x cpu", "float32", 1, 1, 1, 1.0, 1, "device", 0))
    recorder.trained(callbacks.Progress(50, figures, 1.0, 1.0, True))
    written.append(_records(tmp_path))
    recorder.validated(50, figures)
    written.append(_records(tmp_path))
    recorder.close()
    assert written == [[(50, "train")], [(50, "train"), (50, "validation")]]


def test_a_resumed_run_is_bit_equal(
    whole: tuple[loop.Outcome, pathlib.Path],
    config: Config,
    store: data.Store,
    tmp_path: pathlib.Path,
) -> None:
    for stop_after in (1, 2):
        assert _fit(config, store, tmp_path / "run", stop_after).stopped
    resumed = _fit(config, store, tmp_path / "run")
    assert resumed.step == 11
    _assert_equal_states(resumed, whole[0])
    assert _records(tmp_path / "run") == _records(whole[1])


@pytest.fixture(scope="module")
def hesitant(config: Config) -> Config:
    """Nothing is ever enough better: the rate falls at every validation, the fourth is the last."""
    return config.replace(
        learning_rate=1e-3,
        warmup_steps=0,
        learning_rate_schedule="plateau",
        plateau_patience=1,
        plateau_min_delta=1000.0,
        stop_patience=4,
        stop_min_delta=1000.0,
        input_dropout=0.2,
        weight_decay=0.01,
        eval_every=2,
        log_every=2,
        save_every=3,
        train_steps=50,
    )


@pytest.mark.slow
def test_a_plateau_and_early_stopping_resume_bit_equal(
    hesitant: Config, store: data.Store, tmp_path: pathlib.Path
) -> None:
    whole = _fit(hesitant, store, tmp_path / "whole")
    assert (whole.step, whole.stopped, whole.exhausted) == (10, False, True)
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    rates = [r["learning_rate"] for r in records if r["split"] == "train"]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4])
    waited = [r["stop_waited"] for r in records if r["split"] == "validation"]
    assert waited == [0, 1, 2, 3, 4]
    assert _fit(hesitant, store, tmp_path / "run", 3).stopped
    resumed = _fit(hesitant, store, tmp_path / "run")
    _assert_equal_states(resumed, whole)
    assert _records(tmp_path / "run") == _records(tmp_path / "whole")
    assert _fit(hesitant, store, tmp_path / "run").exhausted
    with pytest.raises(InputError, match=r"eval_every 2 \(now 4\)"):
        run_folder.open_run_folder(tmp_path / "run", hesitant.replace(eval_every=4), store)


def test_what_needs_validations_is_refused_without_rows(
    hesitant: Config, tmp_path: pathlib.Path
) -> None:
    counts = {"train": 40, "validation": 0, "test": 0}
    store = data.open_store(write_store(tmp_path / "store", "mel_2bar", counts))
    with pytest.raises(InputError, match="stop_patience need validation rows"):
        _fit(hesitant, store, tmp_path / "run")


def test_a_state_of_before_takes_the_first_values_of_what_it_lacks(
    whole: tuple[loop.Outcome, pathlib.Path],
    config: Config,
    store: data.Store,
    tmp_path: pathlib.Path,
) -> None:
    state = vars(whole[0].state) | {"hyper": dict(vars(whole[0].state.hyper))}
    for name in ("warmup_steps", "weight_decay"):
        del state["hyper"][name]
    params, _ = state.pop("params"), state.pop("patience")
    folder = run_folder.open_run_folder(tmp_path / "run", config, store)
    with checkpoints.Checkpoints(folder, create=True) as kept:
        kept.save(11, params, state, config)
    # All steps are made: what is restored is what comes back.
    found = _fit(config, store, folder).state
    first = dataclasses.replace(whole[0].state, patience=early_stopping.first_patience())
    jax.tree.map(np.testing.assert_array_equal, found, first)


def test_what_was_lost_after_the_last_save_is_made_again(
    whole: tuple[loop.Outcome, pathlib.Path],
    config: Config,
    store: data.Store,
    tmp_path: pathlib.Path,
) -> None:
    # As after a kill at step 9: the checkpoint is of step 6, the records continue to step 8.
    short = config.replace(train_steps=6, log_every=6)
    _fit(short, store, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 8, "split": "train"}\n{"step": 9, "spl')
    _assert_equal_states(_fit(config, store, tmp_path / "run"), whole[0])
    assert _records(tmp_path / "run")[-3:] == _records(whole[1])[-3:]


def test_rows_on_the_host_give_the_same_run(
    whole: tuple[loop.Outcome, pathlib.Path],
    config: Config,
    store: data.Store,
    tmp_path: pathlib.Path,
) -> None:
    _assert_equal_states(
        _fit(config.replace(data_placement="host"), store, tmp_path / "run"), whole[0]
    )


def test_without_validation_rows_it_says_so(
    config: Config,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = {"train": 40, "validation": 0, "test": 0}
    store = data.open_store(write_store(tmp_path / "store", "mel_2bar", counts))
    _fit(config, store, tmp_path / "run")
    assert (
        "no validation rows: the latest checkpoint is kept as the best" in capsys.readouterr().out
    )
    assert checkpoints.restore_params(tmp_path / "run", "best")[2] == 11


def test_before_the_first_step_it_says_what_it_runs_on(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    recorder = progress.Recorder(tmp_path, 100)
    recorder.started(
        callbacks.Summary("1 x cpu", "float32", 12345, 300, 40, 9.375, 3 << 20, "device", 7)
    )
    recorder.close()
    text = capsys.readouterr().out
    for part in (
        "device: 1 x cpu, float32; estimated memory: 3 MiB per device",
        "parameters: 12,345; rows: 300 training (on the device), 40 validation",
        "steps per epoch: 9.4",
        "resuming after step 7 of 100",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("train_steps", "line"),
    [
        (350, "all 350 steps are done"),
        (100, "train_steps is 100, but 350 steps are done: nothing to train"),
    ],
)
def test_a_run_without_steps_left_says_so(
    train_steps: int, line: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    recorder = progress.Recorder(tmp_path, train_steps)
    recorder.started(callbacks.Summary("1 x cpu", "float32", 1, 1, 1, 1.0, 1, "device", 350))
    recorder.close()
    text = capsys.readouterr().out
    assert line in text.splitlines()
    assert "resuming" not in text


def test_a_progress_line_counts_what_went_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    figures = {"loss": 1.5, "accuracy": 0.25, "kl_bits": 2.0, "zeroed": 3.0, "skipped": 1.0}
    progress.Recorder(tmp_path, 100).trained(callbacks.Progress(50, figures, 1234.5, 3725.0, False))
    line = capsys.readouterr().out
    for part in ("50/100", "loss    1.500", "0.2500", "2.00 bits", "1,234 examples/s", "1h02m"):
        assert part in line
    assert "gradient too large, zeroed: 3  not finite, skipped: 1" in line


def test_training_goes_on_without_tensorboard(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    recorder = progress.Recorder(tmp_path, 100)
    recorder.started(callbacks.Summary("1 x cpu", "float32", 1, 1, 1, 1.0, 1, "device", 0))
    recorder.validated(5, {"loss": float("nan"), "accuracy": 0.5, "kl_bits": 1.0})
    recorder.close()
    assert capsys.readouterr().out.count("tensorboardX is not installed") == 1
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert record == {
        "step": 5,
        "split": "validation",
        "loss": None,
        "accuracy": 0.5,
        "kl_bits": 1.0,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "data_dir: --data_dir is needed"),
        (("--run_dir=r", "--data_dir=nowhere"), "is not a token store"),
        (("--task=drums_2bar",), "holds rows of mel_2bar, not of drums_2bar"),
        (("--task=mel_3bar",), "'mel_3bar' is not one of"),
        (("--batch_size=41",), "40 training rows are fewer than one batch of 41"),
        (("--accumulation=3",), "accumulation: 3 is out of range"),
    ],
)
def test_what_does_not_fit_is_refused(
    store_dir: pathlib.Path, arguments: tuple[str, ...], message: str
) -> None:
    if arguments and not arguments[0].startswith("--run_dir"):
        arguments = (f"--data_dir={store_dir}", "--run_dir=run", *SMALL, *arguments)
    with pytest.raises(InputError, match=message):
        _checked(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--architecture=lstm_forecaster", "--beta=0.7"),
            "beta: has no effect with architecture=lstm_forecaster; leave it out, or choose flat",
        ),
        (("--conductor_sizes=8",), "conductor_sizes: has no effect .* choose hierdec or hier"),
        (("--conv_width=3",), "conv_width: has no effect .* choose conv_forecaster"),
    ],
)
def test_settings_without_effect_are_refused(arguments: tuple[str, ...], message: str) -> None:
    config = get_task("mel_2bar").config.replace(**config_flags.given(_values(*arguments)))
    with pytest.raises(InputError, match=message):
        train.check_used(_values(*arguments), "mel_2bar", [config.model.architecture])


def test_settings_with_an_effect_in_one_point_or_the_default_value_are_taken() -> None:
    given = _values("--beta=0.7", "--conv_width=3")
    train.check_used(given, "mel_2bar", ["flat", "conv_forecaster"])
    default = get_task("mel_2bar").config.flat()["beta"]
    train.check_used(_values(f"--beta={default}"), "mel_2bar", ["lstm_forecaster"])


def test_a_run_folder_belongs_to_one_configuration_and_data(
    config: Config, store: data.Store, tmp_path: pathlib.Path
) -> None:
    folder = run_folder.open_run_folder(tmp_path / "run", config, store)
    assert run_folder.read_config(folder) == config
    longer = config.replace(train_steps=99)
    run_folder.open_run_folder(folder, longer, store)
    assert run_folder.read_config(folder) == longer
    # A run that is already longer keeps its configuration.
    (folder / checkpoints.FOLDER / "99").mkdir(parents=True)
    run_folder.open_run_folder(folder, config, store)
    assert run_folder.read_config(folder) == longer
    other = config.replace(z_size=5, beta=0.3)
    with pytest.raises(InputError, match=r"z_size 4 \(now 5\), beta 0\.2 \(now 0\.3\)"):
        run_folder.open_run_folder(folder, other, store)
    with pytest.raises(InputError, match="was trained on other data"):
        run_folder.open_run_folder(folder, config, store._replace(fingerprint="0"))
    drums = get_task("drums_2bar").config
    with pytest.raises(InputError, match="holds a run of task mel_2bar, the data is of drums_2bar"):
        run_folder.open_run_folder(folder, drums, store)
    for damaged in ('{"task": "mel_', "[]", "7"):
        (folder / "config.json").write_text(damaged)
        with pytest.raises(InputError, match=r"config\.json is damaged and cannot be read"):
            run_folder.open_run_folder(folder, longer, store)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds files that are not of a run"):
        run_folder.open_run_folder(tmp_path / "other", config, store)
    with pytest.raises(InputError, match="is a file; name a folder"):
        run_folder.open_run_folder(tmp_path / "other" / "letter.txt", config, store)
    with pytest.raises(InputError, match=r"is not a run folder, it has no config\.json"):
        run_folder.read_config(tmp_path / "other")


def test_a_signal_is_recorded() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert stop.exit_code == 128
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_signals_save_first_and_the_same_command_resumes(
    store_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    common = (f"--data_dir={store_dir}", f"--run_dir={tmp_path / 'run'}", *SMALL, "--log_every=5")
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        endless = (*common, "--train_steps=1000000", "--save_every=1000000")
        command = [sys.executable, "-m", "experiments.train", *endless]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("step"):
                    process.send_signal(number)
                    break
            rest, _ = process.communicate(timeout=HANGS_SECONDS)
        assert process.returncode == code
        assert f"{number.name}: saving" in rest
        # `python`, or the path of this one where that is another.
        resumes = r"the same command resumes:\n  \S*python\S* -m experiments\.train --data_dir="
        assert re.search(resumes, rest), rest
        stopped = checkpoints.restore_params(tmp_path / "run", "latest")[2]
        assert f"stopped after step {stopped:,}" in rest
        assert stopped > 0
        if number == signal.SIGINT:
            assert "resuming after step" in "".join(lines)
    done = run_command("experiments.train", *common, f"--train_steps={stopped + 3}")
    assert done.returncode == 0, done.stderr
    assert f"done: {stopped + 3:,} steps" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--z_sise=4",), "Unknown command line flag 'z_sise'. Did you mean: z_size ?"),
        (("--beta=-1",), "beta: -1.0 is out of range, it must be 0 or more"),
    ],
)
def test_a_wrong_flag_ends_with_one_line_and_exit_code_2(
    store_dir: pathlib.Path, arguments: tuple[str, ...], message: str
) -> None:
    folders = (f"--data_dir={store_dir}", "--run_dir=unused")
    done = run_here("experiments.train", *folders, *arguments)
    assert done.returncode == 2
    assert done.stderr == f"error: {message}\n"
    assert not (ROOT / "unused").exists()


def test_the_task_defaults_are_used_where_nothing_is_given(store_dir: pathlib.Path) -> None:
    _, config = _checked(f"--data_dir={store_dir}", "--run_dir=run", "--batch_size=40")
    assert config == get_task("mel_2bar").config.replace(batch_size=40)

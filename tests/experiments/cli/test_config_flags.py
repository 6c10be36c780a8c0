from __future__ import annotations

import csv
import pathlib
import re
from typing import Any

import pytest
from absl import flags

from experiments.cli import config_flags, operation_counts, presets
from experiments.sweep.axes import make_points, parse_axes
from musicvae_jax.config import Config, InputError, field_types
from musicvae_jax.tasks import TASKS

FORECASTERS = ("lstm_forecaster", "conv_forecaster", "gru_attention", "lstm_attention")
# Winners of the sweeps in experiments/benchmarks/sweeps.
BEST = tuple(f"{name}_best" for name in (*FORECASTERS, "dense_vae", "stacked_vae", "waveform_vae"))
FLAGFILES = pathlib.Path(config_flags.__file__).parents[1] / "flagfiles"
# The reference's configs.py: z, encoder, decoder, batch, free bits, beta, beta rate.
PUBLISHED: dict[str, tuple[Any, ...]] = {
    "mel_2bar_small": (256, (512,), (256, 256), 512, 0, 0.2, 0.99999),
    "mel_2bar_big": (512, (2048,), (2048,) * 3, 512, 0, 0.5, 0.99999),
    "drums_2bar_small": (256, (512,), (256, 256), 512, 48, 0.2, 0),
    "drums_2bar_big": (512, (2048,), (2048,) * 3, 512, 48, 0.2, 0),
    "mel_16bar_flat": (512, (2048, 2048), (2048,) * 3, 512, 256, 0.2, 0),
    "mel_16bar_hierdec": (512, (2048, 2048), (1024, 1024), 512, 256, 0.2, 0),
    "mel_16bar_hier": (512, (1024,), (1024, 1024), 512, 256, 0.2, 0),
    "drums_16bar_flat": (512, (2048, 2048), (2048,) * 3, 512, 256, 0.2, 0),
    "drums_16bar_hierdec": (512, (2048, 2048), (1024, 1024), 512, 256, 0.2, 0),
    "drums_16bar_hier": (512, (1024,), (1024, 1024), 512, 256, 0.2, 0),
    "trio_16bar_flat": (512, (2048, 2048), (2048,) * 3, 256, 0, 1, 0),
    "trio_16bar_hierdec": (512, (2048, 2048), (1024, 1024), 256, 256, 0.2, 0),
    "trio_16bar_hier": (512, (1024,), (1024, 1024), 256, 256, 0.2, 0),
}


def _parse(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.define(values)
    values(["program", *arguments])
    return values


def _config(*arguments: str) -> Config:
    return config_flags.config_for("mel_2bar", _parse(*arguments))


def test_every_field_is_a_flag_that_is_not_given_by_default() -> None:
    values = _parse()
    assert config_flags.given(values) == {}
    assert set(field_types()) | {"task", "preset"} == set(values)
    assert all(values[name].help for name in values)


def test_help_states_the_default_of_every_task() -> None:
    values = flags.FlagValues()
    config_flags.define(values)
    assert values["adam_eps"].help.endswith("Default: 1e-08.")
    assert values["remat"].help.endswith("Default: false.")
    assert values["conductor_sizes"].help.endswith("Default: none.")
    sizes = "256,256 (mel_2bar, drums_2bar), 1024,1024 (mel_16bar, drums_16bar, trio_16bar)"
    assert values["decoder_sizes"].help.endswith(f"Default: {sizes}.")


def test_what_is_not_given_is_the_tasks() -> None:
    assert _config() == TASKS["mel_2bar"].config


def test_values_reach_their_fields_with_their_types() -> None:
    config = _config(
        "--encoder_sizes=256,128", "--beta=1", "--seed=7", "--dtype=float32", "--conductor_sizes="
    )
    assert config.model.encoder_sizes == (256, 128)
    assert config.model.conductor_sizes == ()
    assert (config.train.beta, config.train.seed, config.train.dtype) == (1.0, 7, "float32")
    assert isinstance(config.train.beta, float)


def test_the_command_line_wins_over_a_flagfile(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "a.flags"
    file.write_text("# a comment\n--task=drums_2bar\n--beta=0.7\n--z_size=9\n")
    values = flags.FlagValues()
    config_flags.define(values)
    values(["program", *values.read_flags_from_files([f"--flagfile={file}", "--z_size=10"])])
    config = config_flags.config_for(values.task, values)
    assert (config.task, config.train.beta, config.model.z_size) == ("drums_2bar", 0.7, 10)
    assert config.train.free_bits == TASKS["drums_2bar"].config.train.free_bits


@pytest.mark.parametrize("text", ["256,x", "256;256", "1.5", "-3"])
def test_sizes_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(flags.IllegalFlagValueError, match="whole numbers with commas between"):
        _parse(f"--encoder_sizes={text}")


def test_a_value_out_of_range_names_field_and_range() -> None:
    with pytest.raises(InputError, match=r"beta_rate: 1\.5 is out of range, it must be from 0"):
        _config("--beta_rate=1.5")


def test_there_is_a_flagfile_for_each_published_configuration_system_and_the_demo() -> None:
    found = {path.stem for path in FLAGFILES.glob("*.flags")}
    assert found == {
        *PUBLISHED,
        *FORECASTERS,
        *BEST,
        "mel_16bar_hour",
        "drums_16bar_hour",
        "dense_vae",
        "pianoroll_16bar",
        "stacked_vae",
        "waveform_vae",
        "mel_2bar_default",
        "demo",
    }


def test_the_default_flagfile_is_the_task_by_itself() -> None:
    config = config_flags.config_from_flagfile(FLAGFILES / "mel_2bar_default.flags")
    assert config == TASKS["mel_2bar"].config


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_flagfile_says_what_the_reference_has(name: str) -> None:
    config = config_flags.config_from_flagfile(FLAGFILES / f"{name}.flags")
    model, train = config.model, config.train
    assert config.task == "_".join(name.split("_")[:2])
    last = name.split("_")[-1]
    assert model.architecture == (last if last in ("hierdec", "hier") else "flat")
    found = (
        model.z_size,
        model.encoder_sizes,
        model.decoder_sizes,
        train.batch_size,
        train.free_bits,
        train.beta,
        train.beta_rate,
    )
    assert found == PUBLISHED[name]
    two_bars = "2bar" in name
    schedule = ("inverse_sigmoid", 1000.0) if two_bars else ("constant", 0.0)
    assert (train.sampling_schedule, train.sampling_rate) == schedule
    assert (train.learning_rate, train.min_learning_rate, train.decay_rate) == (1e-3, 1e-5, 0.9999)
    assert (train.clip_mode, train.grad_clip, config.run.train_steps) == ("global_norm", 1, 200_000)
    assert (model.init, train.warmup_steps, train.adam_b2) == ("reference", 0, 0.999)


@pytest.mark.parametrize("name", BEST)
def test_the_best_preset_is_the_winner_of_its_sweep(name: str) -> None:
    folder = FLAGFILES.parent / "benchmarks" / "sweeps"
    with (folder / f"{name.removesuffix('_best')}.csv").open(encoding="utf-8") as lines:
        winner = next(csv.DictReader(lines))
    swept = config_flags.config_from_flagfile(FLAGFILES / f"{name}.flags")
    (point,) = make_points(swept, parse_axes(winner["point"].split(",")))
    assert winner["rank"] == "1"
    assert (point.config, point.config.run.train_steps) == (swept, int(winner["steps"]))


@pytest.mark.parametrize("path", sorted(FLAGFILES.glob("*.flags")), ids=lambda path: path.stem)
def test_a_flagfile_says_what_it_is_what_it_needs_and_how_to_run_it(path: pathlib.Path) -> None:
    header = path.read_text().split("\n\n")[0].splitlines()
    title, settings, score, command = header[:4]
    assert title.startswith("# ")
    assert settings.startswith("# Settings: ")
    assert score.startswith("# Expected score: ")
    assert command == f"# Run: musicvae train --preset={path.stem} --data_dir=DATA --run_dir=RUN"
    (recipe,) = (line for line in header if line.startswith("# Recipe: "))
    init = config_flags.config_from_flagfile(path).model.init
    assert recipe.startswith("# Recipe: the default") == (init == "default")
    assert all(presets.header(path.stem).values())


def _seconds(text: str) -> float:
    """Read a time of a header, such as 12 hours."""
    number, unit = text.split()
    return (
        float(number)
        * {"seconds": 1, "minutes": 60, "hours": 3600, "years": 365.25 * 24 * 3600}[unit]
    )


@pytest.mark.parametrize("path", sorted(FLAGFILES.glob("*.flags")), ids=lambda path: path.stem)
def test_the_figures_of_a_header_are_those_of_its_configuration(path: pathlib.Path) -> None:
    config, about = config_flags.config_from_flagfile(path), presets.header(path.stem)
    found = operation_counts.count(config)
    millions = float(about["Size"].split()[0])
    assert millions == pytest.approx(found.parameters / 1e6, rel=0.02)
    if path.stem == "demo":  # measured
        return
    examples = config.train.batch_size * config.run.train_steps
    fast, slow, unit, operations = re.findall(
        r"^([\d.]+) to ([\d.]+) (\w+) \(estimated: (\S+) operations", about["Two CPU cores"]
    )[0]
    assert float(operations) == pytest.approx(examples * found.operations, rel=0.05)
    assert _seconds(f"{fast} {unit}") == pytest.approx(float(operations) / 130e9, rel=0.1)
    assert _seconds(f"{slow} {unit}") == pytest.approx(float(operations) / 50e9, rel=0.1)
    least = about["GPU"].removeprefix("more than ").split(" (")[0].replace("a minute", "1 minutes")
    floor = examples * found.floor_seconds(790, 4.3)
    assert _seconds(least) == pytest.approx(floor, rel=0.25)


def test_a_preset_is_a_flagfile_below_the_command_line(tmp_path: pathlib.Path) -> None:
    demo = config_flags.config_from_flagfile(FLAGFILES / "demo.flags")
    values = _parse("--preset=demo")
    assert config_flags.task_name(values) == "mel_2bar"
    assert config_flags.config_for("mel_2bar", values) == demo
    assert _config("--preset=demo", "--z_size=3") == demo.replace(z_size=3)
    assert _config("--z_size=3", "--preset=demo") == demo.replace(z_size=3)
    (tmp_path / "a.flags").write_text("--z_size=5\n--preset=demo\n")
    both = flags.FlagValues()
    config_flags.define(both)
    both(["program", *both.read_flags_from_files([f"--flagfile={tmp_path / 'a.flags'}"])])
    assert config_flags.config_for("mel_2bar", both) == demo.replace(z_size=5)
    assert config_flags.task_name(_parse("--preset=demo", "--task=mel_2bar")) == "mel_2bar"


def test_a_preset_of_another_task_is_refused() -> None:
    with pytest.raises(InputError, match=r"preset: demo is of mel_2bar, --task says drums_2bar; "):
        config_flags.task_name(_parse("--preset=demo", "--task=drums_2bar"))


def test_a_misspelt_preset_is_refused() -> None:
    with pytest.raises(InputError, match=r"preset: there is no 'dem'; did you mean demo\?"):
        _config("--preset=dem")
    with pytest.raises(InputError, match=r"preset: there is no '\.\./x'; it must be one of demo, "):
        _config("--preset=../x")


def test_the_quick_preset_of_a_task_trains_in_minutes() -> None:
    assert presets.quick_preset("mel_2bar") == "demo"
    assert presets.quick_preset("trio_16bar") is None
    assert presets.quick_preset("sound_3000hz_30s") == "waveform_vae"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--task=mel_2bar\n--z_sise=3\n", "Unknown command line flag 'z_sise'"),
        ("--task=mel_3bar\n", "'mel_3bar' is not one of mel_2bar"),
        ("--z_size=3\n", "--task is missing"),
    ],
)
def test_a_wrong_flagfile_is_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    file = tmp_path / "a.flags"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        config_flags.config_from_flagfile(file)

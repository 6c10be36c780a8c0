"""The flags, verdicts and refusals of the benchmark; what it runs has tests of its own."""

from __future__ import annotations

import pathlib

import pytest
from absl import flags

from experiments import train
from experiments.benchmarks import architectures, kill_train
from experiments.benchmarks.architectures import OTHERS, Taken
from experiments.benchmarks.kill_train import Kill, Trial
from experiments.cli import config_flags
from musicvae_jax.config import InputError
from musicvae_jax.models.registry import build_model, find_architecture


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("stores")
    kill_train.write_rows(folder / "rows")
    architectures.write_sound(folder)
    return {"tokens": folder / "rows", "sound": folder / "sound"}


@pytest.mark.parametrize("name", OTHERS)
def test_a_tiny_model_is_given_the_fields_that_it_uses(
    name: str, stores: dict[str, pathlib.Path]
) -> None:
    values = flags.FlagValues()
    config_flags.define(values)
    values(["train", *architectures.model_flags(name)])
    store, config = train.checked_inputs(str(stores[find_architecture(name).reads[0]]), values)
    train.check_used(values, config.task, [name])
    build_model(config)
    assert (config.task, config.model.architecture) == (store.task.name, name)
    assert config.train.batch_size == 16


KILLS = (Kill("between saves", 0, 9), Kill("", 6, 15))
TAKEN = Taken(
    name="dense_vae",
    parameters=1234,
    trial=Trial(KILLS, ()),
    digest="0123456789abcdef",
    scores="0.900, 0.800, 0.700",
    wrote=("sample", "continue"),
    finished=4,
    compared=True,
)
DIFFERS = TAKEN._replace(trial=Trial(KILLS, ("params",)))


def test_a_line_says_what_became_of_an_architecture() -> None:
    text = " ".join(architectures.line(TAKEN).split())
    assert text == (
        "dense_vae 1,234 15 step 9 at 6, equal 0123456789ab 0.900, 0.800, 0.700 4 of 4 yes "
        "sample, continue; refused: 6"
    )
    assert "at 6, differs" in architectures.line(DIFFERS)
    assert architectures.line(TAKEN._replace(wrote=architectures.MODES)).endswith("all modes")


def test_what_is_not_as_it_should_be_is_seen() -> None:
    assert not architectures.is_wrong(TAKEN)
    for taken in (
        DIFFERS,
        TAKEN._replace(finished=3),
        TAKEN._replace(compared=False),
        TAKEN._replace(wrote=()),
    ):
        assert architectures.is_wrong(taken)


def test_a_command_that_must_not_refuse_or_fails_ends_the_benchmark() -> None:
    with pytest.raises(InputError, match=r"experiments.compare: refused: error: compare: give two"):
        architectures._succeed("experiments.compare", "one")
    with pytest.raises(InputError, match=r"exit code 1: .*No module named"):
        architectures._run("experiments.nothing", "one")

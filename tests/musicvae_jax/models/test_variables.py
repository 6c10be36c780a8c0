"""The reference's variables: names, shapes and sizes of the published models."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from musicvae_jax.config import InputError
from musicvae_jax.models.variables import params_from_variables, variables_from_params
from tests.support import model_cases
from tests.support.model_cases import CASES

# Published configuration -> task it was trained for.
PUBLISHED = {
    "cat-mel_2bar_small": "mel_2bar",
    "cat-mel_2bar_big": "mel_2bar",
    "cat-drums_2bar_small": "drums_2bar",
    "cat-drums_2bar_big": "drums_2bar",
    "flat-mel_16bar": "mel_16bar",
    "flat-trio_16bar": "trio_16bar",
    "hierdec-mel_16bar": "mel_16bar",
    "hierdec-trio_16bar": "trio_16bar",
    "hier-mel_16bar": "mel_16bar",
    "hier-trio_16bar": "trio_16bar",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_are_accepted(name: str, shared: pathlib.Path) -> None:
    spec = json.loads((shared / "spec" / "variables" / f"{name}.json").read_text())
    # Arrays of zero memory: the largest model has a quarter of a billion parameters.
    variables = {
        variable: np.broadcast_to(np.zeros((), entry["dtype"]), entry["shape"])
        for variable, entry in spec["variables"].items()
    }
    model, params = params_from_variables(variables, PUBLISHED[name])
    hparams = spec["hparams"]
    assert model.architecture == {"cat": "flat"}.get(name.split("-")[0], name.split("-")[0])
    assert model.z_size == hparams["z_size"]
    assert model.encoder_sizes == tuple(hparams["enc_rnn_size"])
    assert model.decoder_sizes == tuple(hparams["dec_rnn_size"])
    assert model.conductor_sizes == ()
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == spec["trainable_parameters"]
    trainable = {n for n, entry in spec["variables"].items() if entry["trainable"]}
    assert set(variables_from_params(params)) == trainable


@pytest.mark.parametrize("name", ["nade-drums_2bar_full", "groovae_4bar"])
def test_other_architectures_are_refused(name: str, shared: pathlib.Path) -> None:
    spec = json.loads((shared / "spec" / "variables" / f"{name}.json").read_text())
    variables = {
        variable: np.broadcast_to(np.zeros((), entry["dtype"]), entry["shape"])
        for variable, entry in spec["variables"].items()
    }
    with pytest.raises(InputError, match=r"^variables: '"):
        params_from_variables(variables, "drums_2bar")


@pytest.mark.parametrize(("task", "architecture"), CASES)
def test_round_trip(task: str, architecture: str) -> None:
    case = model_cases.case(task, architecture)
    variables = variables_from_params(case.params)
    model, params = params_from_variables(variables, task)
    found = {name: getattr(model, name) for name in ("architecture", "z_size", "encoder_sizes")}
    assert found == {"architecture": architecture, "z_size": 4, "encoder_sizes": (6, 5)}
    assert model.resolved_conductor_sizes == case.config.model.resolved_conductor_sizes
    assert jax.tree.map(lambda a, b: a is b, params, case.params) == jax.tree.map(
        lambda _: True, params
    )


@pytest.fixture
def variables() -> dict[str, Any]:
    return variables_from_params(model_cases.case("mel_2bar", "flat").params)


def test_counters_slots_and_suffixes_are_ignored(variables: dict[str, Any]) -> None:
    more = {f"{name}:0": array for name, array in variables.items()}
    more |= {f"{name}/Adam": array for name, array in variables.items()}
    more |= {f"{name}/Adam_1": array for name, array in variables.items()}
    more |= {"global_step": np.int64(5), "beta1_power": np.float32(0.5)}
    _, params = params_from_variables(more, "mel_2bar")
    assert set(variables_from_params(params)) == set(variables)


@pytest.mark.parametrize(
    "name",
    [
        "encoder/mu/bias",
        "encoder/sigma/kernel",
        "encoder/cell_0/bidirectional_rnn/fw/multi_rnn_cell/cell_0/lstm_cell/bias",
        "encoder/cell_1/bidirectional_rnn/bw/multi_rnn_cell/cell_0/lstm_cell/kernel",
        "decoder/multi_rnn_cell/cell_0/lstm_cell/bias",
        "decoder/output_projection/bias",
    ],
)
def test_a_missing_variable_is_named(variables: dict[str, Any], name: str) -> None:
    del variables[name]
    with pytest.raises(InputError, match=f"'{name}' is missing"):
        params_from_variables(variables, "mel_2bar")


def test_an_unknown_variable_is_named(variables: dict[str, Any]) -> None:
    variables["decoder/nade/w_enc"] = np.zeros(3)
    with pytest.raises(InputError, match="'decoder/nade/w_enc' is not a variable of a flat model"):
        params_from_variables(variables, "mel_2bar")


def test_a_wrong_shape_is_named(variables: dict[str, Any]) -> None:
    variables["encoder/mu/kernel"] = np.zeros((3, 4))
    message = r"'encoder/mu/kernel' has shape \[3, 4\], it must be \[10, 4\]"
    with pytest.raises(InputError, match=message):
        params_from_variables(variables, "mel_2bar")


def test_another_task_is_refused(variables: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"lstm_cell/kernel' has shape \[.*\], it must be"):
        params_from_variables(variables, "drums_2bar")

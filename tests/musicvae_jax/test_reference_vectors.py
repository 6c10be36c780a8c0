"""The reference's own numbers for small models of every task and architecture (tests/golden)."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicvae_jax import objectives
from musicvae_jax.config import Config
from musicvae_jax.models.registry import VAE, build_vae
from musicvae_jax.models.variables import params_from_variables
from musicvae_jax.tasks import get_task

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "golden"
# VAE -> tolerance of its logits; rounding grows over 256 steps with large random weights.
MODELS = {
    "cat-mel_2bar": 1e-4,
    "cat-drums_2bar": 1e-4,
    "hierdec-mel_16bar": 1e-3,
    "hierdec-trio_16bar": 1e-3,
    "flat-trio_16bar": 5e-3,
    "hier-mel_16bar": 1e-3,
}


class Recorded(NamedTuple):
    """A model with the reference's variables, its numbers and what ours gives."""

    numbers: dict[str, np.ndarray]
    model: VAE
    params: Any
    found: dict[str, Any]


@functools.cache
def recorded(name: str) -> Recorded:
    """Load a model and run it; one compiled function gives all but the decoded tokens."""
    numbers = dict(np.load(FOLDER / f"reference_{name}.npz"))
    task = name.partition("-")[2]
    variables = {k.removeprefix("var/"): v for k, v in numbers.items() if k.startswith("var/")}
    sizes, params = params_from_variables(variables, task)
    defaults = get_task(task).config.replace(dtype="float32")
    model = build_vae(Config(task=task, model=sizes, train=defaults.train, run=defaults.run))
    about = json.loads(str(numbers["config"]))
    hparams = about["hparams"]
    beta = objectives.beta_at(about["global_step"], hparams["max_beta"], hparams["beta_rate"])
    tokens = jnp.asarray(numbers["tokens"])

    def loss(params: Any) -> tuple[jax.Array, dict[str, Any]]:
        """Total loss of z = mu + sigma * eps, and what is recorded of z = mu."""
        posterior = model.encode(params, tokens)
        logits = model.logits(params, posterior.mu, tokens)
        z = posterior.mu + posterior.sigma * numbers["resume_eps"]
        nats = objectives.reconstruction_nats(model.logits(params, z, tokens), tokens)
        cost = objectives.free_bits_cost(objectives.kl_nats(posterior), hparams["free_bits"])
        found = {
            "mu": posterior.mu,
            "sigma": posterior.sigma,
            "logits": jnp.concatenate([track[0] for track in logits], axis=-1)[::8],
            "r_loss": objectives.reconstruction_nats(logits, tokens),
        }
        return nats.mean() + beta * cost.mean(), found

    (total, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    squares = [np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(gradient)]
    found |= {"resume_loss": total, "resume_norm": np.sqrt(sum(squares))}
    return Recorded(numbers, model, params, found)


@pytest.mark.parametrize("name", MODELS)
def test_posterior_and_teacher_forced_logits(name: str) -> None:
    numbers, _, _, found = recorded(name)
    tolerances = {"mu": 1e-5, "sigma": 1e-5, "logits": MODELS[name]}
    for key, tolerance in tolerances.items():
        np.testing.assert_allclose(found[key], numbers[key], rtol=0, atol=tolerance, err_msg=key)
    np.testing.assert_allclose(found["r_loss"], numbers["r_loss"], rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_total_loss_and_gradient_norm(name: str) -> None:
    numbers, _, _, found = recorded(name)
    np.testing.assert_allclose(found["resume_loss"], numbers["resume_loss"], rtol=1e-4)
    np.testing.assert_allclose(found["resume_norm"], numbers["resume_norm"], rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_best_tokens(name: str) -> None:
    # The reference samples at temperature 1e-5; logits this far apart never change places then.
    numbers, model, params, _ = recorded(name)
    assert numbers["greedy_min_margin"] > 15e-5
    decode = jax.jit(lambda params, z: model.generate(params, z, jax.random.key(0), 0.0))
    np.testing.assert_array_equal(decode(params, numbers["mu"]), numbers["greedy_tokens"])


def test_every_file_is_checked_and_together_they_are_small() -> None:
    files = list(FOLDER.glob("*"))
    found = {path.stem for path in files if path.suffix == ".npz"}
    assert found == {f"reference_{name}" for name in MODELS}
    assert sum(path.stat().st_size for path in files) <= 3e6

"""Tiny models of every architecture, each compiled once for all tests, and how one memorises."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from musicvae_jax.config import Config
from musicvae_jax.models.registry import VAE, Model, Params, build_vae
from musicvae_jax.tasks import Task, get_task
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import make_run_steps, make_train_step, take_from_device

# (task, architecture): every decoder and every encoder input.
CASES = (
    ("mel_2bar", "flat"),
    ("drums_2bar", "flat"),
    ("trio_16bar", "flat"),
    ("mel_16bar", "hierdec"),
    ("trio_16bar", "hierdec"),
    ("mel_16bar", "hier"),
    ("trio_16bar", "hier"),
)
BATCH = 3
# Hundreds of steps: here a program that LLVM optimises a little is faster in the end.
OPTIMISED = {"xla_backend_optimization_level": 1}
# Of a model: parameters and rows to the share of tokens that it reproduces.
Reproduced = Callable[[Params, jax.Array], float]


class Case(NamedTuple):
    """A model with parameters large enough to show errors, and its compiled functions."""

    config: Config
    task: Task
    model: VAE
    params: Params
    tokens: jax.Array  # [3, T] or [3, T, K]
    z: jax.Array  # [3, Z]
    encode: Callable[..., Any]
    logits: Callable[..., Any]
    greedy: Callable[..., Any]


def tiny_config(task: str, architecture: str) -> Config:
    sizes: dict[str, Any] = {"encoder_sizes": (6, 5), "decoder_sizes": (7, 5), "z_size": 4}
    if architecture != "flat":
        sizes["conductor_sizes"] = (5, 6)
    return get_task(task).config.replace(architecture=architecture, dtype="float32", **sizes)


def random_params(model: Model, rng: np.random.Generator) -> Params:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    draw = rng.normal
    return jax.tree.map(lambda s: jnp.asarray(draw(0.0, 0.4, s.shape), jnp.float32), shapes)


def random_tokens(task: Task, rng: np.random.Generator, num: int = BATCH) -> np.ndarray:
    depths = np.array([track.num_classes for track in task.tracks])
    rows = rng.integers(0, depths, (num, task.num_steps, len(depths)))
    rows[:, ::3] = 0
    return rows.reshape(num, *task.row_shape).astype(task.token_dtype)


def compiled(model: VAE) -> VAE:
    """Compile the functions of a model's parameters: not each operation by itself."""

    def jitted(function: Callable[..., Any]) -> Any:
        # A model without dropout leaves it out; for the others it is a number of Python.
        static = {"dropout"} & set(inspect.signature(function).parameters)
        return jax.jit(function, static_argnames=tuple(static))

    names = ("init", "encode", "logits", "generate")
    return model._replace(**{name: jitted(getattr(model, name)) for name in names})


@functools.cache
def case(task_name: str, architecture: str) -> Case:
    return _case(tiny_config(task_name, architecture))


@functools.cache
def player_case(task_name: str, architecture: str) -> Case:
    """A model that the browser player can load: one encoder layer, decoder layers of one size."""
    sizes = {"encoder_sizes": (6,), "decoder_sizes": (7, 7), "conductor_sizes": ()}
    return _case(tiny_config(task_name, architecture).replace(**sizes))


def _case(config: Config) -> Case:
    task, model = get_task(config.task), build_vae(config)
    rng = np.random.default_rng(0)
    return Case(
        config=config,
        task=task,
        model=model,
        params=random_params(model, rng),
        tokens=jnp.asarray(random_tokens(task, rng)),
        z=jnp.asarray(rng.normal(size=(BATCH, 4)), jnp.float32),
        encode=jax.jit(model.encode),
        logits=jax.jit(lambda params, z, tokens: model.logits(params, z, tokens)),
        greedy=jax.jit(lambda params, z: model.generate(params, z, jax.random.key(0), 0.0)),
    )


def memorise(
    config: Config, model: Model, rows: np.ndarray, reproduced: Reproduced, most_steps: int
) -> float:
    """Train on all rows at each step until 99% are reproduced, and return the last share."""
    rows_on_device = jnp.asarray(rows)
    chunk = jnp.tile(jnp.arange(len(rows), dtype=jnp.int32)[None], (50, 1))
    steps = make_run_steps(make_train_step(model, config), take_from_device)
    run = jax.jit(steps, compiler_options=OPTIMISED)
    state = jax.jit(lambda: init_state(model, config))()
    share = 0.0
    for _ in range(0, most_steps, len(chunk)):
        state, _ = run(state, rows_on_device, chunk, jnp.int32(len(chunk)))
        share = reproduced(state.params, rows_on_device)
        if share >= 0.99:
            break
    return share

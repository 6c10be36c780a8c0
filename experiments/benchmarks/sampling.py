r"""Time generation from z, compared with two loops of an equal PyTorch model in the same run.

Example:
  python -m experiments.benchmarks.sampling --only=mel_16bar_256

Ours is one compiled loop from z to tokens. PyTorch's *eager* loop is the one its users write: one
call per layer and step, one-hot tokens and z concatenated at every step. Its *compiled* loop looks
tokens up, multiplies z (or a bar's embedding) once, and runs each step under `torch.compile`. All
have equal parameters. Before anything is timed, all decode greedily, and the share of tokens equal
to ours is printed: where rounding decides a tie, what follows differs, in bfloat16 often.

In bfloat16 PyTorch runs with and without autocast, and the faster counts. `first` is the time to
the first samples of a shape, compilation included. A round lasts at least a second per side; rates
and ratios (PyTorch's time divided by ours) are medians over the rounds. The floor is the time of
the matrix products alone at the rate of a large product, which a loop of small dependent products
cannot reach. Needs PyTorch: pip install 'musicvae-jax[bench]'.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import machine
from experiments.benchmarks.support.options import FormatOptions, TimingOptions, check_names
from experiments.benchmarks.train_step import all_configs
from experiments.cli import operation_counts
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import build_vae
from musicvae_jax.models.variables import variables_from_params
from musicvae_jax.tasks import get_task

SMALL = ("drums_2bar_256", "mel_16bar_256", "demo")
FEWEST_EQUAL = 0.95  # of greedy tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
      seconds: way -> seconds per call in each round.
      rates: way -> rows per second, medians over the rounds. Ways are "ours", "eager", "compiled"
        and, in bfloat16, the latter two with " autocast".
      fastest: loop -> its faster way.
      ratios: loop -> median over the rounds of the time of its faster way divided by ours.
      equal_greedy_tokens: loop -> share of its greedy tokens that are equal to ours.
    """

    name: str
    num: int
    first_seconds: float
    seconds: dict[str, list[float]]
    rates: dict[str, float]
    fastest: dict[str, str]
    ratios: dict[str, float]
    equal_greedy_tokens: dict[str, float]
    floor_rows_per_second: float


def torch_loops(
    config: Config, variables: dict[str, np.ndarray], z: np.ndarray
) -> tuple[dict[str, Any], Any]:
    """Return the PyTorch models of both loops and z as a tensor, on the GPU if there is one."""
    import torch

    from experiments.benchmarks.support import torch_model

    # A function that was compiled for several shapes is no longer compiled for further ones.
    torch.compiler.reset()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loops = {
        loop: torch_model.model_of(config, variables, lean=loop == "compiled").to(device)
        for loop in ("eager", "compiled")
    }
    return loops, torch.tensor(z).to(device)


def torch_calls(config: Config, loops: dict[str, Any], z: Any) -> dict[str, Callable[[], object]]:
    """Return every way to sample from the PyTorch loops: each, in bfloat16 also with autocast."""
    import torch

    def sample(loop: str, autocast: bool) -> object:
        with torch.autocast(z.device.type, torch.bfloat16, enabled=autocast):
            return loops[loop].sample(z, 1.0).cpu()

    choices = (False,) if config.train.dtype == "float32" else (False, True)
    return {
        loop + " autocast" * autocast: functools.partial(sample, loop, autocast)
        for loop in loops
        for autocast in choices
    }


def measure(
    name: str, config: Config, num: int, rounds: int, min_seconds: float, matrix_rate: float
) -> Row:
    """Time one configuration at `num` samples per call.

    Raises:
      InputError: the sides do not decode the same tokens.
    """
    # With the reference's initial parameters z would hardly matter, unlike in trained models.
    model = build_vae(config.replace(init="default"))
    params = model.init(jax.random.key(0))
    variables = {k: np.asarray(v) for k, v in variables_from_params(params).items()}
    z, key = jax.random.normal(jax.random.key(1), (num, config.model.z_size)), jax.random.key(2)
    loops, torch_z = torch_loops(config, variables, np.asarray(z))
    generate = jax.jit(model.generate, static_argnums=3)
    ours = functools.partial(generate, params, z, key)
    first = machine.seconds(lambda: jax.block_until_ready(ours(1.0)))
    greedy = np.asarray(ours(0)).reshape(num, get_task(config.task).num_steps, -1)
    equal = {
        loop: float(np.mean(theirs.sample(torch_z, 0.0).cpu().numpy() == greedy))
        for loop, theirs in loops.items()
    }
    if config.train.dtype == "float32" and min(equal.values()) < FEWEST_EQUAL:
        raise InputError(f"{name}: of the greedy tokens only these shares are equal: {equal}")
    calls: dict[str, Callable[[], object]] = {"ours": lambda: jax.block_until_ready(ours(1.0))}
    calls |= torch_calls(config, loops, torch_z)
    for call in calls.values():
        call()
    times = machine.in_turns(calls, rounds, min_seconds)
    fastest = {
        loop: machine.fastest(times, [way for way in times if way.startswith(loop)])
        for loop in loops
    }
    return Row(
        name=name,
        num=num,
        first_seconds=first,
        seconds=times,
        rates={way: num / statistics.median(t) for way, t in times.items()},
        fastest=fastest,
        ratios={f: machine.median_ratio(times[w], times["ours"]) for f, w in fastest.items()},
        equal_greedy_tokens=equal,
        floor_rows_per_second=matrix_rate * 1e12 / operation_counts.count(config).decoding,
    )


HEADER = (
    f"{'configuration':20}{'samples':>8}{'first':>8}{'ours':>9}{'eager':>9}{'compiled':>10}"
    f"{'ratio to':>10}{'ratio to':>10}{'equal':>8}{'equal':>10}{'floor':>9}\n"
    f"{'':20}{'':>8}{'s':>8}{'rows/s':>9}{'rows/s':>9}{'rows/s':>10}"
    f"{'eager':>10}{'compiled':>10}{'eager':>8}{'compiled':>10}{'rows/s':>9}"
)


def line(row: Row) -> str:
    """Return a row as text."""
    return (
        f"{row.name:20}{row.num:8}{row.first_seconds:8.2f}{row.rates['ours']:9.1f}"
        f"{row.rates[row.fastest['eager']]:9.1f}{row.rates[row.fastest['compiled']]:10.1f}"
        f"{row.ratios['eager']:10.2f}{row.ratios['compiled']:10.2f}"
        f"{row.equal_greedy_tokens['eager']:8.4f}{row.equal_greedy_tokens['compiled']:10.4f}"
        f"{row.floor_rows_per_second:9.0f}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TimingOptions, FormatOptions):
    """What to time and how."""

    nums: tuple[int, ...] = option((1, 64), comma=True, help="Samples per call.")
    dtype: str = option(
        "float32",
        choices=("float32", "bfloat16"),
        is_enum=True,
        help="Type of the matrix products.",
    )


def main(options: Options) -> None:
    """Time the chosen configurations and print the table."""
    configs = all_configs()
    on_cpu = jax.default_backend() == "cpu"
    names = options.only or (SMALL if on_cpu else tuple(configs))
    check_names(names, configs)
    if not all(num > 0 for num in options.nums):
        raise InputError(f"--nums: {','.join(map(str, options.nums))!r} are not above 0")
    rate = machine.matrix_rate(options.dtype)
    if not options.json:
        print(machine.describe("jaxlib", "flax", "torch"))
        print(
            f"{options.dtype} products; a large one runs at {rate:.3f} TFLOP/s; "
            f"{options.rounds} rounds of at least {options.min_seconds:g} s"
        )
        print(HEADER, flush=True)
    for name in names:
        for num in options.nums:
            config = configs[name].replace(dtype=options.dtype)
            row = measure(name, config, num, options.rounds, options.min_seconds, rate)
            print(json.dumps(dataclasses.asdict(row)) if options.json else line(row), flush=True)


if __name__ == "__main__":
    cli.run(main, Options)

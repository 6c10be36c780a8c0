r"""Time generation from z, beside the loop of an equal PyTorch model in the same run.

Example:
  python -m experiments.benchmarks.sampling --only=mel_16bar_256

Ours is one compiled loop: z goes in, tokens come out. PyTorch's is the loop its users write,
one call per layer and step, eager, without gradients. Both have equal parameters; before
anything is timed both decode greedily, and the share of equal tokens is printed (a tie that
rounding decides otherwise changes what follows it; bfloat16 decides many). In bfloat16 PyTorch
runs with and without autocast, and the faster counts. `first` is the seconds until the first
samples of this shape are there, compilation included, the rest medians over the rounds. The
floor is the matrix products alone at the measured rate of a large product; a loop of small
dependent products cannot reach it.
Needs PyTorch: pip install 'musicvae-jax[bench]'.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import flags

from data_pipeline import cli
from experiments.benchmarks.support import counts, machine
from experiments.benchmarks.train_step import all_configs
from musicvae_jax.config import Config, InputError
from musicvae_jax.models.registry import build_model
from musicvae_jax.models.variables import variables_from_params
from musicvae_jax.tasks import get_task

SMALL = ("drums_2bar_256", "mel_16bar_256", "demo")
FEWEST_EQUAL = 0.95  # of greedy tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; rates in examples per second, medians over the rounds."""

    name: str
    num: int
    first_seconds: float
    examples_per_second: float
    torch_examples_per_second: float
    ratio: float
    equal_greedy_tokens: float
    floor_examples_per_second: float


def measure(name: str, config: Config, num: int, rounds: int, matrix_rate: float) -> Row:
    """Time one configuration at `num` samples per call.

    Raises:
      InputError: the two sides do not decode alike.
    """
    import torch

    from experiments.benchmarks.support import torch_model

    # The scale of trained models: the reference's start, near 0, decodes every z alike.
    model = build_model(config.replace(init="default"))
    params = model.init(jax.random.key(0))
    variables = {k: np.asarray(v) for k, v in variables_from_params(params).items()}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    theirs = torch_model.model_of(config, variables).to(device)
    z = jax.random.normal(jax.random.key(1), (num, config.model.z_size))
    torch_z, key = torch.tensor(np.asarray(z)).to(device), jax.random.key(2)
    generate = jax.jit(model.generate, static_argnums=3)
    first = machine.seconds(lambda: jax.block_until_ready(generate(params, z, key, 1.0)))
    greedy = np.asarray(generate(params, z, key, 0)).reshape(
        num, get_task(config.task).num_steps, -1
    )
    equal = float(np.mean(theirs.sample(torch_z, 0.0).cpu().numpy() == greedy))
    if config.train.dtype == "float32" and equal < FEWEST_EQUAL:
        raise InputError(f"{name}: only {equal:.3f} of the greedy tokens are equal")

    def torch_samples(low: bool) -> object:
        with torch.autocast(device, torch.bfloat16, enabled=low):
            return theirs.sample(torch_z, 1.0).cpu()

    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: jax.block_until_ready(generate(params, z, key, 1.0)),
        "torch": lambda: torch_samples(False),
    }
    if config.train.dtype != "float32":
        calls["torch autocast"] = lambda: torch_samples(True)
    times = machine.in_turns(calls, rounds)
    best = min(list(calls)[1:], key=lambda way: statistics.median(times[way]))
    return Row(
        name=name,
        num=num,
        first_seconds=first,
        examples_per_second=num / statistics.median(times["ours"]),
        torch_examples_per_second=num / statistics.median(times[best]),
        ratio=machine.median_ratio(times[best], times["ours"]),
        equal_greedy_tokens=equal,
        floor_examples_per_second=matrix_rate * 1e12 / counts.count(config).decoding,
    )


HEADER = (
    f"{'configuration':22}{'samples':>8}{'first':>8}{'ours':>10}{'PyTorch':>10}{'ratio':>7}"
    f"{'equal':>8}{'floor':>10}\n"
    f"{'':22}{'':>8}{'s':>8}{'ex/s':>10}{'ex/s':>10}{'':>7}{'':>8}{'ex/s':>10}"
)


def line(row: Row) -> str:
    """Return a row as text."""
    return (
        f"{row.name:22}{row.num:8}{row.first_seconds:8.2f}{row.examples_per_second:10.1f}"
        f"{row.torch_examples_per_second:10.1f}{row.ratio:7.2f}{row.equal_greedy_tokens:8.4f}"
        f"{row.floor_examples_per_second:10.0f}"
    )


def define_flags() -> None:
    """Define this benchmark's flags."""
    flags.DEFINE_list("only", [], "Configurations to time, by name.")
    flags.DEFINE_list("nums", ["1", "64"], "Samples per call.")
    flags.DEFINE_integer("rounds", 5, "How often each side generates in turn.", 1)
    flags.DEFINE_enum("dtype", "float32", ("float32", "bfloat16"), "Type of the products.")
    flags.DEFINE_boolean("json", False, "Print one JSON line per measurement instead.")


def main(argv: Sequence[str]) -> None:
    """Time the chosen configurations and print the table."""
    del argv
    values, configs = flags.FLAGS, all_configs()
    on_cpu = jax.default_backend() == "cpu"
    names = values.only or (SMALL if on_cpu else list(configs))
    for name in names:
        if name not in configs:
            raise InputError(f"--only: {name!r} is not one of {', '.join(configs)}")
    if not all(num.isdigit() and int(num) > 0 for num in values.nums):
        raise InputError(f"--nums: {','.join(values.nums)!r} are not whole numbers above 0")
    rate = machine.matrix_rate(values.dtype)
    if not values.json:
        print(machine.describe("jaxlib", "flax", "torch"))
        print(
            f"{values.dtype} products; a large one runs at {rate:.3f} TFLOP/s; "
            f"{values.rounds} rounds"
        )
        print(HEADER, flush=True)
    for name in names:
        for num in values.nums:
            config = configs[name].replace(dtype=values.dtype)
            row = measure(name, config, int(num), values.rounds, rate)
            print(json.dumps(dataclasses.asdict(row)) if values.json else line(row), flush=True)


if __name__ == "__main__":
    define_flags()
    cli.run(main)

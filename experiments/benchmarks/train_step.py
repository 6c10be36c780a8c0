r"""Time whole training steps, compared with two equal PyTorch models in the same run.

Example:
  python -m experiments.benchmarks.train_step --only=drums_2bar_256,mel_16bar_256

A step is: forward, backward, clip to norm 1, Adam. All sides start from equal parameters and must
give equal losses before anything is timed. Ours is the program of `train`, which makes
`steps_per_dispatch` steps per call, and gathers their batches and draws their noise. The *plain*
PyTorch model multiplies one-hot tokens and repeats z at every step, as users write it; the *lean*
one looks tokens up and multiplies z once, as ours does (`support/torch_model.py`). The table shows
the operations per row of both forms. Each runs eagerly and compiled, in bfloat16 also with autocast
(and TF32 on a GPU); the fastest way of each form is shown. A round lasts at least a second per
side. `ratio` is the time of the faster form divided by ours, the median over the rounds;
`autocast` is the same for the fastest way with autocast.

Without --only: on a CPU the two small configurations and the demo, on an accelerator all published
ones too. --lstm_backend=cudnn --dtype=float32 measures cuDNN's LSTM (one NVIDIA GPU) instead of our
loop. Needs PyTorch: pip install 'musicvae-jax[bench]'.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import machine
from experiments.benchmarks.support.options import FormatOptions, TimingOptions, check_names
from experiments.cli import operation_counts
from musicvae_jax import objectives
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices import sharding
from musicvae_jax.models.registry import VAE, build_vae
from musicvae_jax.models.variables import variables_from_params
from musicvae_jax.tasks import TASKS, get_task
from musicvae_jax.training.program import Dispatch
from musicvae_jax.training.state import init_state
from musicvae_jax.training.step import Batch

LOSS_TOLERANCE = 1e-4  # relative


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
      seconds: way -> seconds per step in each round.
      rates: way -> rows per second, medians over the rounds. Ways are "ours" and the form of a
        PyTorch model, "plain" or "lean", with how it runs: "plain compiled autocast".
      plain, lean: the fastest way of each form.
      ratios: form -> median over the rounds of the time of its fastest way divided by ours; also
        "autocast", for the fastest way with autocast, except in float32.
      operations, plain_operations: per row, forward and backward, of ours and of the plain form.
    """

    name: str
    batch_size: int
    compile_seconds: float
    memory_gigabytes: float
    seconds: dict[str, list[float]]
    rates: dict[str, float]
    plain: str
    lean: str
    ratios: dict[str, float]
    loss_difference: float
    operations: int
    plain_operations: int
    tflops: float
    share_of_matrix_rate: float
    floor_rows_per_second: float

    @property
    def ratio(self) -> float:
        """Ratio to the faster PyTorch form."""
        return self.ratios["plain" if self.rates[self.plain] > self.rates[self.lean] else "lean"]


def small_configs() -> dict[str, Config]:
    """Return the configurations that a small machine is measured on."""
    drums = TASKS["drums_2bar"].config.replace(
        z_size=256, encoder_sizes=(256,), decoder_sizes=(256, 256), batch_size=512
    )
    melody = TASKS["mel_16bar"].config.replace(
        z_size=256, encoder_sizes=(256, 256), decoder_sizes=(256, 256), batch_size=64
    )
    return {"drums_2bar_256": drums, "mel_16bar_256": melody}


def all_configs() -> dict[str, Config]:
    """Return every configuration by name, set to teacher forcing and no transposition."""
    named = small_configs() | operation_counts.published()
    same = {"sampling_schedule": "constant", "sampling_rate": 0.0, "transpose": 0}
    return {name: config.replace(**same, beta_rate=0.0) for name, config in named.items()}


def random_batch(config: Config) -> Batch:
    """Draw tokens, of which about half are "no event" as in real rows, and noise."""
    rng, task = np.random.default_rng(0), get_task(config.task)
    sizes = [track.num_classes for track in task.tracks]
    shape = (config.train.batch_size, task.num_steps, len(sizes))
    tokens = rng.integers(0, sizes, shape) * (rng.random(shape) < 0.5)
    eps = rng.normal(size=(config.train.batch_size, config.model.z_size))
    rows = tokens.reshape(config.train.batch_size, *task.row_shape)
    return Batch(jnp.asarray(rows, jnp.int32), jnp.asarray(eps, jnp.float32))


class OurSteps:
    """The program of several training steps that `train` runs, and the state it carries.

    Attributes:
      state: training state after the last call.
      steps: number of steps per call.
      params: parameters before the first step.
      compile_seconds: time to build the program.
      memory_gigabytes: memory of a call.
    """

    def __init__(self, model: VAE, config: Config, batch: Batch) -> None:
        self.state = init_state(model, config)
        self.params = jax.device_get(self.state.params)
        mesh, rows = sharding.make_mesh(), np.asarray(batch.tokens)
        built: list[Dispatch] = []
        self.compile_seconds = machine.seconds(
            lambda: built.append(Dispatch(model, config, rows, mesh, self.state))
        )
        self._dispatch = built[0]
        self.memory_gigabytes = self._dispatch.memory_bytes / 1e9
        self.steps, self._done = self._dispatch.size, 0

    def __call__(self) -> None:
        """Make the steps of a call and wait for them."""
        self.state, measured = self._dispatch(self.state, self._done, self.steps)
        self._done += self.steps
        jax.block_until_ready(measured)


def our_loss(model: VAE, config: Config, params: Any, batch: Batch) -> float:
    """Compute the loss of PyTorch's step: mean cross-entropy + beta * KL above the free bits."""
    free_bits = config.train.free_bits

    def loss(params: Any) -> jax.Array:
        posterior = model.encode(params, batch.tokens)
        z = posterior.mu + posterior.sigma * jnp.asarray(batch.eps)
        nats = objectives.reconstruction_nats(model.logits(params, z, batch.tokens), batch.tokens)
        kl = objectives.free_bits_cost(objectives.kl_nats(posterior), free_bits)
        return jnp.mean(nats) + config.train.beta * jnp.mean(kl)

    return float(jax.jit(loss)(params))


class TorchStep:
    """The same step in PyTorch."""

    def __init__(
        self,
        config: Config,
        variables: dict[str, np.ndarray],
        batch: Any,
        *,
        lean: bool = False,
        compiled: bool = False,
        autocast: bool = False,
    ) -> None:
        import torch

        from experiments.benchmarks.support import torch_model

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = torch_model.model_of(config, variables, lean).to(self.device)
        self.call = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.tokens = torch_model.tokens_of(get_task(config.task), np.asarray(batch.tokens)).to(
            self.device
        )
        self.eps = torch.tensor(np.asarray(batch.eps)).to(self.device)
        self.autocast = autocast
        if config.train.dtype != "float32":
            torch.set_float32_matmul_precision("high")
        self.learning_rate = config.train.learning_rate
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(self.parameters, lr=self.learning_rate, fused=True)

    def loss(self) -> Any:
        """Compute the loss as a tensor."""
        import torch

        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            return self.call(self.tokens, self.eps)

    def __call__(self) -> None:
        """Make one step and wait for it."""
        import torch

        self.adam.zero_grad()
        loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()
        loss.item()


def torch_steps(
    config: Config, variables: dict[str, np.ndarray], batch: Batch
) -> dict[str, TorchStep]:
    """Return every way to run the PyTorch models: form, eager or compiled, with autocast or not."""
    import torch

    # What was compiled for another configuration would make this one's shapes dynamic.
    torch.compiler.reset()
    steps, low = {}, config.train.dtype != "float32"
    for form, compiled, autocast in itertools.product(
        ("plain", "lean"), (False, True), (False, True) if low else (False,)
    ):
        way = f"{form} {'compiled' if compiled else 'eager'}" + " autocast" * autocast
        steps[way] = TorchStep(
            config, variables, batch, lean=form == "lean", compiled=compiled, autocast=autocast
        )
    return steps


def measure(name: str, config: Config, rounds: int, min_seconds: float, matrix_rate: float) -> Row:
    """Time one configuration.

    Raises:
      InputError: the sides do not compute the same loss.
    """
    batch, model = random_batch(config), build_vae(config)
    ours = OurSteps(model, config, batch)
    variables = {k: np.asarray(v) for k, v in variables_from_params(ours.params).items()}
    loss = our_loss(model, config, ours.params, batch)
    theirs = torch_steps(config, variables, batch)
    difference = max(abs(step.loss().item() - loss) / abs(loss) for step in theirs.values())
    if config.train.dtype == "float32" and difference > LOSS_TOLERANCE:
        raise InputError(f"{name}: the losses differ by {difference:.2g} of {loss:.6g}")
    calls: dict[str, Callable[[], object]] = {"ours": ours, **theirs}
    for call in calls.values():
        call()
    times = machine.in_turns(calls, rounds, min_seconds)
    times["ours"] = [seconds / ours.steps for seconds in times["ours"]]
    rates = {way: config.train.batch_size / statistics.median(t) for way, t in times.items()}
    fastest = {
        form: machine.fastest(times, [way for way in theirs if form in way])
        for form in ("plain", "lean", "autocast")
        if any(form in way for way in theirs)
    }
    counted = operation_counts.count(config)
    tflops = rates["ours"] * counted.operations / 1e12
    return Row(
        name=name,
        batch_size=config.train.batch_size,
        compile_seconds=ours.compile_seconds,
        memory_gigabytes=ours.memory_gigabytes,
        seconds=times,
        rates=rates,
        plain=fastest["plain"],
        lean=fastest["lean"],
        ratios={f: machine.median_ratio(times[w], times["ours"]) for f, w in fastest.items()},
        loss_difference=difference,
        operations=counted.operations,
        plain_operations=counted.plain_operations,
        tflops=tflops,
        share_of_matrix_rate=tflops / matrix_rate,
        floor_rows_per_second=matrix_rate * 1e12 / counted.operations,
    )


HEADER = (
    f"{'configuration':20}{'batch':>6}{'compile':>8}{'memory':>8}{'MFLOP/row':>11}{'plain':>9}"
    f"{'ours':>9}{'plain':>9}{'lean':>9}{'ratio':>7}{'autocast':>9}{'loss':>9}{'share':>7}{'floor':>9}\n"
    f"{'':20}{'':>6}{'s':>8}{'GB':>8}{'ours':>11}{'':>9}"
    f"{'rows/s':>9}{'rows/s':>9}{'rows/s':>9}{'':>7}{'':>9}{'differs':>9}{'':>7}{'rows/s':>9}"
)


def line(row: Row) -> str:
    """Return a row as text."""
    autocast = f"{row.ratios['autocast']:.2f}" if "autocast" in row.ratios else "-"
    return (
        f"{row.name:20}{row.batch_size:6}{row.compile_seconds:8.1f}{row.memory_gigabytes:8.2f}"
        f"{row.operations / 1e6:11.1f}{row.plain_operations / 1e6:9.1f}"
        f"{row.rates['ours']:9.1f}{row.rates[row.plain]:9.1f}{row.rates[row.lean]:9.1f}"
        f"{row.ratio:7.2f}{autocast:>9}{row.loss_difference:9.1e}{row.share_of_matrix_rate:7.2f}"
        f"{row.floor_rows_per_second:9.1f}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TimingOptions, FormatOptions):
    """What to time and how."""

    dtype: str = option("auto", help="Type of the matrix products: auto, float32, bfloat16.")
    lstm_backend: str = option("auto", help="LSTM implementation: auto, xla, native, cudnn.")
    cpu_devices: int = option(1, low=1, help="Number of devices that a CPU is divided into.")


def main(options: Options) -> None:
    """Time the chosen configurations and print the table."""
    configs = all_configs()
    jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    on_cpu = jax.default_backend() == "cpu"
    names = options.only or ((*small_configs(), "demo") if on_cpu else tuple(configs))
    check_names(names, configs)
    dtype = ("float32" if on_cpu else "bfloat16") if options.dtype == "auto" else options.dtype
    how = {"dtype": dtype, "lstm_backend": options.lstm_backend}
    chosen = {name: configs[name].replace(**how) for name in names}
    rate = machine.matrix_rate(dtype)
    if not options.json:
        print(machine.describe("jaxlib", "flax", "torch"))
        print(
            f"{dtype} products; a large one runs at {rate:.3f} TFLOP/s; {options.rounds} rounds of "
            f"at least {options.min_seconds:g} s; lstm_backend {options.lstm_backend}"
        )
        print(HEADER, flush=True)
    for name, config in chosen.items():
        row = measure(name, config, options.rounds, options.min_seconds, rate)
        whole = dataclasses.asdict(row) | {"ratio": row.ratio}
        print(json.dumps(whole) if options.json else line(row), flush=True)


if __name__ == "__main__":
    cli.run(main, Options)

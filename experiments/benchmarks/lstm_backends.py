"""Time training steps with the native LSTM kernel and with XLA's loop, in turn.

Example:
  python -m experiments.benchmarks.lstm_backends --only=demo

Each way runs in a process of its own, because the number of devices is fixed when JAX starts: the
native kernel, XLA's loop on one device, and XLA's loop on one device per core. All wait while one
makes calls of the program of `train` (`train_step.OurSteps`) for at least a second. `ratio` is the
time of XLA's faster way divided by the kernel's, the median over the rounds.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import subprocess
import sys

import jax

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks import train_step
from experiments.benchmarks.support import machine
from experiments.benchmarks.support.options import TimingOptions, check_names
from musicvae_jax.config import InputError
from musicvae_jax.models.registry import build_vae


class StepProcess:
    """A process that makes training steps when it is asked to.

    Args:
      name: configuration, of `train_step.all_configs`.
      backend: LSTM implementation.
      devices: number of devices that the CPU is divided into.
      min_seconds: shortest time of a round.
    """

    def __init__(self, name: str, backend: str, devices: int, min_seconds: float) -> None:
        command = [sys.executable, "-m", "experiments.benchmarks.lstm_backends"]
        options = [f"--serve={name}", f"--lstm_backend={backend}", f"--cpu_devices={devices}"]
        self._process = subprocess.Popen(
            [*command, *options, f"--min_seconds={min_seconds}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()  # built, and called once

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise InputError(f"a process of the benchmark ended, code {self._process.wait()}")
        return line

    def seconds_per_step(self) -> float:
        """Run a round and return its seconds per training step."""
        assert self._process.stdin is not None
        self._process.stdin.write("round\n")
        self._process.stdin.flush()
        return float(self._read())

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(name: str, backend: str, devices: int, min_seconds: float) -> None:
    """Build the program; for every line of standard input run a round and print its time."""
    jax.config.update("jax_num_cpu_devices", devices)
    config = train_step.all_configs()[name].replace(dtype="float32", lstm_backend=backend)
    steps = train_step.OurSteps(build_vae(config), config, train_step.random_batch(config))
    steps()
    calls = math.ceil(min_seconds / machine.seconds(steps))
    print("ready", flush=True)

    def make_calls() -> None:
        for _ in range(calls):
            steps()

    for _ in sys.stdin:
        print(machine.seconds(make_calls) / calls / steps.steps, flush=True)


def table_row(name: str, rounds: int, min_seconds: float) -> str:
    """Time the three ways of a configuration in turn; return a line of the table."""
    cores = len(os.sched_getaffinity(0))
    how = {"native": ("native", 1), "xla": ("xla", 1), "divided": ("xla", cores)}
    ways: dict[str, StepProcess] = {}
    try:
        for way, (backend, devices) in how.items():
            ways[way] = StepProcess(name, backend, devices, min_seconds)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, process in ways.items():
                times[way].append(process.seconds_per_step())
    finally:
        for process in ways.values():
            process.end()
    batch_size = train_step.all_configs()[name].train.batch_size
    rates = [batch_size / statistics.median(times[way]) for way in how]
    best = machine.fastest(times, ["xla", "divided"])
    ratio = machine.median_ratio(times[best], times["native"])
    return f"{name:20}{batch_size:6}" + "".join(f"{rate:10.1f}" for rate in rates) + f"{ratio:8.2f}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TimingOptions):
    """What to time and how."""

    serve: str | None = option(None, help="Used by the benchmark itself: the configuration to run.")
    lstm_backend: str = option("auto", help="Used by the benchmark itself.")
    cpu_devices: int = option(1, low=1, help="Used by the benchmark itself.")


def main(options: Options) -> None:
    """Time the chosen configurations and print the table."""
    if options.serve:
        serve(options.serve, options.lstm_backend, options.cpu_devices, options.min_seconds)
        return
    names = options.only or (*train_step.small_configs(), "demo")
    check_names(names, train_step.all_configs())
    print(machine.describe("jaxlib"))
    print(f"float32, rows/s; {options.rounds} rounds of at least {options.min_seconds:g} s")
    print(f"{'configuration':20}{'batch':>6}{'native':>10}{'XLA':>10}{'divided':>10}{'ratio':>8}")
    for name in names:
        print(table_row(name, options.rounds, options.min_seconds), flush=True)


if __name__ == "__main__":
    cli.run(main, Options)

"""What a benchmark ran on: the line above every table, and the rate of a matrix product."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp


def describe(*packages: str) -> str:
    """Return date, machine and versions in one line.

    Args:
      *packages: distributions whose versions to name besides jax.
    """
    from importlib.metadata import version

    names = ("jax", *packages)
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    device = jax.devices()[0]
    kind = device.device_kind if device.platform != "cpu" else processor()
    cores = len(os.sched_getaffinity(0))
    return (
        f"{datetime.date.today()}; {len(jax.devices())} x {kind}, {cores} cores; "
        f"Python {platform.python_version()}, {versions}"
    )


def processor() -> str:
    """Return the processor's name, as far as the system says."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def matrix_rate(dtype: str, size: int | None = None) -> float:
    """Measure a matrix product with float32 sums: TFLOP/s, median of 7, random data."""
    n = size or (2048 if jax.default_backend() == "cpu" else 8192)
    a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    product = jax.jit(functools.partial(jnp.dot, preferred_element_type=jnp.float32))
    return 2 * n**3 / median_seconds(lambda: jax.block_until_ready(product(a, a)), 7) / 1e12


def seconds(call: Callable[[], object]) -> float:
    """Time one call that returns when its work is done."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Time a call after one that does not count: the median."""
    call()
    return statistics.median(seconds(call) for _ in range(repeats))


def in_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time several calls one after the other, round by round: seconds of each round.

    What slows the machine for a while slows all of them, so that ratios within a round hold.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median over the rounds of `slow / fast`."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))

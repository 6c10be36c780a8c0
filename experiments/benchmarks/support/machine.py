"""The machine a benchmark ran on, the rate of its matrix products, and timing."""

from __future__ import annotations

import datetime
import functools
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp


def describe(*packages: str) -> str:
    """Return date, machine and versions in one line.

    Args:
      *packages: distributions to name with their versions, besides jax.
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
    """Return the processor's name, or its architecture if the system does not say."""
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
    """Return the median time of a call, after one warm-up call."""
    call()
    return statistics.median(seconds(call) for _ in range(repeats))


def in_turns(
    calls: dict[str, Callable[[], object]], rounds: int, min_seconds: float = 0.0
) -> dict[str, list[float]]:
    """Time several calls one after the other, round by round.

    Whatever slows the machine for a while slows all of them, so ratios within a round hold.

    Args:
      calls: name -> a call that returns when its work is done, made at least once before.
      rounds: how often each is timed.
      min_seconds: a call is repeated within a round until it takes about this long.

    Returns:
      Name -> seconds per call in each round.
    """
    repeats = dict.fromkeys(calls, 1)
    if min_seconds > 0:
        repeats = {
            name: max(1, math.ceil(min_seconds / max(seconds(call), 1e-6)))
            for name, call in calls.items()
        }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return times


def fastest(times: Mapping[str, list[float]], names: Iterable[str]) -> str:
    """Return the name with the lowest median time."""
    return min(names, key=lambda name: statistics.median(times[name]))


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median over the rounds of `slow / fast`."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))

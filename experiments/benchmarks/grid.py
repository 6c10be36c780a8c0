"""A sweep in one program compared with single runs: time, and equality of each point and its run.

Example:
  python -m experiments.benchmarks.grid --data_dir=data/folk --json=grid.json

A 3 x 3 sweep over beta and free bits of the `demo` flagfile's model, trained once as one program
and once as nine single runs, each in its own process without a compilation cache. Imports and
opening the data are not timed; the last validation and checkpoint are. Single runs are made
before and after the sweep, so that both see the same machine; their median is "one run". "Without
compilation" subtracts the seconds in which JAX lowered and compiled. On an accelerator, or with
--side_by_side, the points run under one `jax.vmap`; otherwise each device takes its points in
turn, and each core of a CPU counts as a device.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from data_pipeline import cli
from experiments import grid_search
from experiments.benchmarks.support import machine
from experiments.cli import config_flags
from experiments.cli.progress import METRICS
from experiments.sweep.axes import GridPoint, make_points, parse_axes
from experiments.sweep.executors import Options, train
from experiments.sweep.points import open_folders
from experiments.sweep.worker import train_folder
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.storage import run_folder

FLAGFILE = pathlib.Path(__file__).parents[1] / "flagfiles" / "demo.flags"
AXES = ("beta=0.02,0.08,0.2", "free_bits=0,16,48")
COMPILING = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


def points_of(flagfile: str, steps: int) -> list[GridPoint]:
    """Return the nine points."""
    base = config_flags.config_from_flagfile(flagfile)
    base = base.replace(train_steps=steps, log_every=20, eval_every=steps, save_every=steps)
    return make_points(base, parse_axes(AXES))


def measured(folder: pathlib.Path, points: Sequence[GridPoint], side_by_side: int) -> None:
    """Train points in this process (a single one as an ordinary run); write seconds to a file."""
    compiling = [0.0]

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event in COMPILING:
            compiling[0] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    store = data.open_store(flags.FLAGS.data_dir)
    if len(points) > 1 and side_by_side < len(points):
        grid_search.spread_over_cores(len(points))
    devices = len(jax.devices())
    start = time.perf_counter()
    tasks = open_folders(folder, points, store)
    if len(points) == 1:
        train_folder(str(tasks[0].folder))
    else:
        train(tasks, store, Options("vmap", side_by_side, 1, None), lambda: False, lambda _: None)
    found = {"wall_s": time.perf_counter() - start, "compile_s": compiling[0], "devices": devices}
    (folder / "seconds.json").write_text(json.dumps(found))


def run_child(folder: pathlib.Path, number: int | None, side_by_side: int) -> dict[str, float]:
    """Measure one point, or all together, in a new process."""
    values = flags.FLAGS
    arguments = [
        f"--data_dir={values.data_dir}",
        f"--flagfile_measured={values.flagfile_measured}",
        f"--steps={values.steps}",
        f"--side_by_side={side_by_side}",
        f"--child={folder}",
        f"--point={-1 if number is None else number}",
    ]
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "experiments.benchmarks.grid", *arguments], check=True)
    found: dict[str, float] = json.loads((folder / "seconds.json").read_text())
    return found


def largest_difference(one: pathlib.Path, other: pathlib.Path) -> float:
    """Return the largest relative difference of two runs' scores, speeds excluded."""
    largest = 0.0
    lines = [(folder / METRICS).read_text().splitlines() for folder in (one, other)]
    for left, right in zip(*lines, strict=True):
        a, b = json.loads(left), json.loads(right)
        for name in a.keys() - {"split", "examples_per_second"}:
            largest = max(largest, abs(a[name] - b[name]) / max(abs(b[name]), 1.0))
    return largest


def compare(folder: pathlib.Path, points: Sequence[GridPoint]) -> dict[str, Any]:
    """Run the sweep between single runs, and compare."""
    half = len(points) // 2
    singles = [run_child(folder / f"single{n}", n, 0) for n in range(half)]
    together = run_child(folder / "grid", None, flags.FLAGS.side_by_side)
    singles += [run_child(folder / f"single{n}", n, 0) for n in range(half, len(points))]
    differences = [
        largest_difference(
            folder / "grid" / "points" / point.name, folder / f"single{n}" / "points" / point.name
        )
        for n, point in enumerate(points)
    ]
    one = statistics.median(found["wall_s"] for found in singles)
    steps = statistics.median(found["wall_s"] - found["compile_s"] for found in singles)
    return {
        "points": len(points),
        "steps": flags.FLAGS.steps,
        "devices": together["devices"],
        "single_wall_s": one,
        "grid_wall_s": together["wall_s"],
        "wall_ratio": together["wall_s"] / one,
        "singles_ratio": sum(found["wall_s"] for found in singles) / one,
        "single_steps_s": steps,
        "grid_steps_s": together["wall_s"] - together["compile_s"],
        "steps_ratio": (together["wall_s"] - together["compile_s"]) / steps,
        "single_wall_range_s": [f(s["wall_s"] for s in singles) for f in (min, max)],
        "largest_relative_difference": max(differences),
    }


def table(found: dict[str, Any]) -> str:
    """Write the table."""
    low, high = found["single_wall_range_s"]
    return "\n".join(
        [
            f"{found['points']} points x {found['steps']} steps; {found['devices']} devices",
            f"{'':24}{'one run/s':>12}{'grid/s':>10}{'ratio':>8}",
            f"{'with compilation':24}{found['single_wall_s']:12.1f}{found['grid_wall_s']:10.1f}"
            f"{found['wall_ratio']:8.2f}",
            f"{'without':24}{found['single_steps_s']:12.1f}{found['grid_steps_s']:10.1f}"
            f"{found['steps_ratio']:8.2f}",
            f"single runs one after the other: {found['singles_ratio']:.2f} times one "
            f"({low:.1f} to {high:.1f} s each)",
            "largest relative difference of a point's figures from its single run's: "
            f"{found['largest_relative_difference']:.1e}",
        ]
    )


def define_flags() -> None:
    """Define this benchmark's flags."""
    flags.DEFINE_string("data_dir", None, "Token store of the folk corpus, mel_2bar.")
    flags.DEFINE_string("flagfile_measured", str(FLAGFILE), "Configuration of the points.")
    flags.DEFINE_integer("steps", 300, "Steps of each run.", 1)
    flags.DEFINE_integer("side_by_side", 0, "As of grid_search.", 0)
    flags.DEFINE_string("json", None, "File to write the figures to.")
    flags.DEFINE_string("child", None, "Folder of one measurement; for the children only.")
    flags.DEFINE_integer("point", -1, "Which point; for the children only.")


def main(argv: Sequence[str]) -> None:
    """Measure, print the table, write the figures."""
    del argv
    values = flags.FLAGS
    if not values.data_dir:
        raise InputError("--data_dir is needed")
    points = points_of(values.flagfile_measured, values.steps)
    if values.child:
        chosen = points if values.point < 0 else [points[values.point]]
        measured(pathlib.Path(values.child), chosen, values.side_by_side)
        return
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = compare(pathlib.Path(folder), points)
    after = os.getloadavg()[0]
    found |= {"load_before": before, "load_after": after}
    print(machine.describe("jaxlib", "flax"))
    print(f"other work on the machine: load average before {before:.1f}, after {after:.1f}")
    print(table(found))
    if values.json:
        run_folder.write_text(pathlib.Path(values.json), json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    define_flags()
    cli.run(main)

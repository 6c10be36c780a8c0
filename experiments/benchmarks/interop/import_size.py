"""Import a checkpoint of the largest published model: time and memory.

python -m experiments.benchmarks.interop.import_size

Writes a checkpoint of random numbers with the sizes of trio_16bar_hierdec and Adam's moments, then
measures, each in a process of its own: reading the bytes, writing as many, reading all tensors with
their checksums, `MusicVAE.from_checkpoint`, and `experiments.import_checkpoint`. The peak is the
highest resident memory (VmHWM) above that of a process that only imports the same modules. CPU
seconds count all threads, and tell more where other programs run on the machine.
"""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support.machine import describe
from experiments.cli import config_flags, presets
from musicvae_jax.interop.bundle_writer import write_bundle
from musicvae_jax.models.registry import build_model
from musicvae_jax.models.variables import variables_from_params

_PRELUDE = """
import os, sys, time
import numpy as np, jax, orbax.checkpoint
from musicvae_jax import MusicVAE
from musicvae_jax.interop.tensor_bundle import TensorBundle
import musicvae_jax.models.registry, musicvae_jax.training.imported_state
from experiments.import_checkpoint import import_checkpoint
jax.block_until_ready(jax.numpy.zeros(3) + 1)
piece = bytearray(1 << 23)
prefix, run = sys.argv[1:]
def peak():
    line = next(l for l in open('/proc/self/status') if l.startswith('VmHWM'))
    return int(line.split()[1]) * 1024
before, start, busy = peak(), time.perf_counter(), time.process_time()
"""
_REPORT = "\nprint(time.perf_counter() - start, time.process_time() - busy, peak() - before)\n"
_MEASURED = {
    "bytes read in pieces of 8 MB": (
        "with open(prefix + '.data-00000-of-00001', 'rb', buffering=0) as file:\n"
        "    while file.readinto(piece): pass"
    ),
    "bytes written in such pieces, on the disk": (
        "with open(prefix + '.copy', 'wb', buffering=0) as file:\n"
        "    for _ in range(os.path.getsize(prefix + '.data-00000-of-00001') >> 23):\n"
        "        file.write(piece)\n"
        "    os.fsync(file.fileno())\n"
        "os.remove(prefix + '.copy')"
    ),
    "every tensor read, one at a time": (
        "with TensorBundle(prefix) as bundle:\n    for name in bundle.entries: bundle.read(name)"
    ),
    "the same, checksums with NumPy alone": (
        "from musicvae_jax.interop import crc32c\n"
        "crc32c._implementation = lambda: crc32c.numpy_crc32c\n"
        "with TensorBundle(prefix) as bundle:\n"
        "    for name in bundle.entries: bundle.read(name)"
    ),
    "MusicVAE.from_checkpoint (a third of it)": (
        "jax.block_until_ready(MusicVAE.from_checkpoint(prefix).params)"
    ),
    "import_checkpoint (writes a run folder)": "import_checkpoint(prefix, run)",
}


def write_example(prefix: pathlib.Path) -> int:
    """Write the checkpoint and return the bytes of its data file."""
    config = config_flags.config_from_flagfile(presets.path_of("trio_16bar_hierdec"))
    shapes = variables_from_params(jax.eval_shape(build_model(config).init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {"global_step": np.array(200_000)}
    for name, leaf in shapes.items():
        for suffix in ("", "/Adam", "/Adam_1"):
            tensors[name + suffix] = rng.random(leaf.shape, np.float32)
    write_bundle(prefix, tensors)
    return prefix.with_name(prefix.name + ".data-00000-of-00001").stat().st_size


def measure(code: str, prefix: pathlib.Path, run: pathlib.Path) -> tuple[float, float, int]:
    """Run code in a process of its own: (seconds, CPU seconds, peak in bytes)."""
    command = [sys.executable, "-c", _PRELUDE + code + _REPORT, str(prefix), str(run)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, busy, peak = output.split()[-3:]
    return float(seconds), float(busy), int(peak)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Where to write."""

    folder: str | None = option(None, help="Where to put the checkpoint. Default: the system's.")


def main(options: Options) -> None:
    """Write the checkpoint, measure, and print the table."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        prefix = pathlib.Path(folder) / "model.ckpt-200000"
        size = write_example(prefix)
        print(f"trio_16bar_hierdec with Adam's moments: {size / 1e6:,.0f} MB; {describe()}")
        print(f"{'':42} {'seconds':>8} {'CPU s':>7} {'peak, MB':>9} {'of the bytes':>13}")
        for label, code in _MEASURED.items():
            seconds, busy, peak = measure(code, prefix, pathlib.Path(folder) / "run")
            figures = f"{seconds:8.2f} {busy:7.2f} {peak / 1e6:9,.0f} {peak / size:13.2f}"
            print(f"{label:42} {figures}", flush=True)


if __name__ == "__main__":
    cli.run(main, Options)

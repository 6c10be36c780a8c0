"""Read a checkpoint whose index file was damaged, many times.

python -m experiments.benchmarks.interop.fuzz_index --count=10000

Each time, bytes of the index are flipped, cut out or doubled. The reader must refuse the file or
find the original values. Every second time the blocks' checksums are computed again after the
damage, so that it reaches the parser; then other values may be found, but no other exception.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import struct
import tempfile

import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from musicvae_jax.config import InputError
from musicvae_jax.interop.bundle_writer import write_bundle
from musicvae_jax.interop.crc32c import crc32c, masked
from musicvae_jax.interop.tensor_bundle import TensorBundle

OUTCOMES = ("refused", "equal values", "other values, with new checksums")


def example_tensors() -> dict[str, np.ndarray]:
    """Return a few tensors of several types and shapes, so that damage is likely to matter."""
    rng = np.random.default_rng(0)
    found = {f"encoder/cell_{n}/kernel": rng.normal(size=(3, n)).astype("f4") for n in range(6)}
    return found | {"global_step": np.array(7), "half": np.arange(4, dtype=np.float16)}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip some bits, cut a part out, or double it."""
    damaged = bytearray(content)
    start, stop = sorted(rng.integers(0, len(content) + 1, 2))
    kind = rng.integers(3)
    if kind == 0:
        for at in rng.integers(0, len(content), rng.integers(1, 5)):
            damaged[at] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del damaged[start:stop]
    else:
        damaged[stop:stop] = damaged[start:stop]
    return bytes(damaged)


def first_block_end(content: bytes) -> int:
    """Return where the first block of an index ends, found by its checksum."""
    for end in range(len(content) - 5):
        if struct.pack("<I", masked(crc32c(content[: end + 1]))) == content[end + 1 : end + 5]:
            return end
    raise ValueError("no block begins at byte 0")


def mutated_inside(content: bytes, end: int, rng: np.random.Generator) -> bytes:
    """Change bytes of the first block, which ends at `end`, and compute its checksum again."""
    damaged = bytearray(content)
    for at in rng.integers(0, end, rng.integers(1, 4)):
        damaged[at] = int(rng.integers(256))
    struct.pack_into("<I", damaged, end + 1, masked(crc32c(damaged[: end + 1])))
    return bytes(damaged)


def fuzz(folder: pathlib.Path, count: int, seed: int) -> collections.Counter[str]:
    """Read `count` damaged copies of a checkpoint and count what happened.

    Raises:
      AssertionError: other values were found though the checksums were not computed again.
      Exception: any that is not an InputError, which is a fault of the reader.
    """
    rng = np.random.default_rng(seed)
    tensors = example_tensors()
    write_bundle(folder / "m", tensors)
    index = folder / "m.index"
    original = index.read_bytes()
    end = first_block_end(original)
    found: collections.Counter[str] = collections.Counter(dict.fromkeys(OUTCOMES, 0))
    for number in range(count):
        is_inside = number % 2 == 1
        index.write_bytes(
            mutated_inside(original, end, rng) if is_inside else mutated(original, rng)
        )
        try:
            with TensorBundle(folder / "m") as bundle:
                values = {name: bundle.read(name) for name in bundle.entries}
        except InputError:
            found["refused"] += 1
            continue
        is_equal = values.keys() == tensors.keys() and all(
            np.array_equal(values[name], tensors[name]) for name in tensors
        )
        if not is_equal and not is_inside:
            raise AssertionError(f"mutation {number} of seed {seed} gave other values")
        found["equal values" if is_equal else OUTCOMES[2]] += 1
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How much damage to make."""

    count: int = option(10_000, low=1, help="Number of damaged files.")
    seed: int = option(0, help="Random seed of the damage.")


def main(options: Options) -> None:
    """Print how often each outcome occurred."""
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(pathlib.Path(folder), options.count, options.seed)
    print(f"{options.count:,} damaged index files, seed {options.seed}")
    for name, times in found.items():
        print(f"  {name:32} {times:6,}")


if __name__ == "__main__":
    cli.run(main, Options)

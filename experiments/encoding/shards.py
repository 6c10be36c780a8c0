"""The output folder of `experiments.encode`: shards of latents, each written whole or not at all.

OUTPUT/encode.json          identity of model and input; whether all latents are there
OUTPUT/latents-00000.npz    mu, sigma [N, Z] float32; file_name [N]; bar int32 [N]; row int64 [N]
"""

from __future__ import annotations

import collections
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.atomic_write import write_arrays
from experiments.encoding.inputs import Block, Place
from musicvae_jax.config import InputError
from musicvae_jax.storage import run_folder

RECORD = "encode.json"
FORMAT = "musicvae-latents-1"


class Latents(NamedTuple):
    """Mean and standard deviation of posteriors, each [N, Z] float32."""

    mu: np.ndarray
    sigma: np.ndarray


class Shard(NamedTuple):
    """Rows that are written to one file.

    Attributes:
      rows: [N, *task.row_shape].
      files: N names.
      bars: int32 [N].
      numbers: int64 [N], number of each row in its file or split.
      skipped: (name, reason) of inputs without rows since the last shard.
      after: place of the next row.
    """

    rows: np.ndarray
    files: list[str]
    bars: np.ndarray
    numbers: np.ndarray
    skipped: list[tuple[str, str]]
    after: Place


def cut(blocks: Iterable[Block], size: int) -> Iterator[Shard]:
    """Divide blocks into shards of `size` rows; the last one may have fewer, or none."""
    held: list[Block] = []
    skipped: list[tuple[str, str]] = []
    count = 0
    after: Place | None = None
    for block in blocks:
        skipped += block.skipped
        rest = block
        while count + len(rest.rows) >= size:
            taken, rest = _divide(rest, size - count)
            yield _join([*held, taken], skipped, rest.first)
            held, skipped, count = [], [], 0
        held.append(rest)
        count, after = count + len(rest.rows), block.after
    if after is not None:
        yield _join(held, skipped, after)


def _divide(block: Block, count: int) -> tuple[Block, Block]:
    """Split a block after its first `count` rows."""
    middle = Place(block.first.unit, block.first.row + count)
    files, bars = block.files, block.bars
    return (
        Block(block.first, middle, block.rows[:count], files[:count], bars[:count]),
        Block(middle, block.after, block.rows[count:], files[count:], bars[count:]),
    )


def _join(blocks: list[Block], skipped: list[tuple[str, str]], after: Place) -> Shard:
    """Concatenate blocks to a shard."""
    numbers = [np.arange(len(b.rows), dtype=np.int64) + b.first.row for b in blocks]
    return Shard(
        np.concatenate([b.rows for b in blocks]),
        [name for b in blocks for name in b.files],
        np.concatenate([b.bars for b in blocks]),
        np.concatenate(numbers),
        skipped,
        after,
    )


def open_output(folder: pathlib.Path, identity: dict[str, Any]) -> bool:
    """Create the folder, or check that it holds latents of the same model and input.

    Returns:
      Whether all latents are there.

    Raises:
      InputError: the folder holds something else, or latents of other rows or another model.
    """
    path = folder / RECORD
    if path.is_file():
        try:
            record = json.loads(path.read_text())
            differing = [name for name, value in identity.items() if record.get(name) != value]
        except (ValueError, AttributeError):
            record, differing = {}, ["format"]
        if differing:
            raise InputError(
                f"output: {folder} holds latents with another {', '.join(differing)}; "
                "name another folder"
            )
        return bool(record.get("done"))
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"output: {folder} holds files that are not latents; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_text(path, json.dumps(identity | {"done": False}, indent=1) + "\n")
    return False


def shard_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Return the file of a shard."""
    return folder / f"latents-{number:05}.npz"


def next_place(folder: pathlib.Path) -> tuple[int, int, Place]:
    """Return the number of finished shards, the rows in them, and the place to resume from."""
    number, rows, place = 0, 0, Place(0, 0)
    while shard_path(folder, number).is_file():
        with np.load(shard_path(folder, number)) as arrays:
            place = Place(*arrays["after"].tolist())
            rows += len(arrays["bar"])
        number += 1
    return number, rows, place


def write_shard(path: pathlib.Path, shard: Shard, latents: Latents) -> None:
    """Write a shard, whole or not at all.

    Raises:
      OSError: the file cannot be written; it names the file.
    """
    arrays = {
        "mu": latents.mu,
        "sigma": latents.sigma,
        "file_name": np.array(shard.files, np.str_),
        "bar": shard.bars,
        "row": shard.numbers,
        "after": np.array(shard.after, np.int64),
        "skipped": np.array(shard.skipped, np.str_).reshape(-1, 2),
    }
    write_arrays(path, arrays)


def discard(folder: pathlib.Path) -> None:
    """Remove all shards and the record, and the folder if it is empty then."""
    for path in [*folder.glob("latents-*.npz"), folder / RECORD]:
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def finish(folder: pathlib.Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Count the contents of the shards, mark the output as complete, and return the record."""
    reasons: collections.Counter[str] = collections.Counter()
    num_shards, rows, _ = next_place(folder)
    for number in range(num_shards):
        with np.load(shard_path(folder, number)) as arrays:
            reasons.update(arrays["skipped"][:, 1].tolist())
    counts = {"rows": rows, "shards": num_shards, "skipped": dict(reasons.most_common())}
    record = identity | counts | {"done": True}
    run_folder.write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return record

"""Encode a token store or music files to latents, in bulk.

Example:
  python -m experiments.encode --run_dir=runs/mel_2bar --input=data/mel_2bar --output=latents

The input is a token store (all its splits, or --split), or files, folders and archives of music.
From files it takes every row that `data_pipeline.prepare` would find, duplicates included; for
large collections prepare a store first, which is faster to read. It writes to --output, in the
order of the input: latents-00000.npz, ... with

  mu, sigma  [N, Z] float32, mean and standard deviation of each row's posterior
  file_name  name of the file (with "#" and a number for a tune); for a store, the split
  bar        first bar of the row in its file, from 1; -1 for a store
  row        number of the row in its file or split, from 0
  skipped    (name, reason) of files without rows

and encode.json, which identifies model and input. Memory use is one shard, whatever the size of
the input. An interrupted run (kill -9 included) resumes with the same command and gives the same
bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import pathlib
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.progress_bar import progress_bar
from data_pipeline.reading.segments import METERS
from experiments.cli import compile_cache
from experiments.cli.outputs import check_writable
from experiments.cli.run_options import ModelOptions, check_ranges, open_model
from experiments.cli.signals import StopSignal
from experiments.encoding import shards
from experiments.encoding.inputs import Corpus, open_corpus
from musicvae_jax import data
from musicvae_jax.config import Config, InputError
from musicvae_jax.devices.sharding import along_data, check_divides, make_mesh, replicated
from musicvae_jax.models.encoders import Posterior
from musicvae_jax.models.registry import Params, build_vae

Encode = Callable[[np.ndarray], shards.Latents]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """What to encode, and how."""

    inputs: tuple[str, ...] = option(
        flag="input", help="Token store, or music files, folders and archives; may be repeated."
    )
    output: str = option(help="Output folder.")
    split: str | None = option(
        None, choices=data.SPLITS, is_enum=True, help="Split of the token store. Default: all."
    )
    meter: str = option(
        "4/4", choices=METERS, help="Meter to accept: 4/4, or any (ignore time signatures)."
    )
    batch_size: int = option(512, help="Rows per batch.")
    shard_rows: int = option(16_384, help="Rows per output file.")

    def __post_init__(self) -> None:
        """Check every field that needs neither model nor files."""
        cli.check_choices(self)
        check_ranges(self, batch_size=(1, math.inf), shard_rows=(1, math.inf))


def make_encode(config: Config, params: Params, batch_size: int) -> Encode:
    """Return a function of rows [N, *task.row_shape] that encodes them a batch at a time.

    All devices share each batch. The last batch is padded, so that only one size is compiled;
    further batches are computed while results are fetched.

    Raises:
      InputError: the devices cannot share a batch evenly.
    """
    mesh = make_mesh()
    check_divides(mesh, batch_size, "batch_size")
    placed = jax.device_put(params, replicated(mesh))
    run = jax.jit(build_vae(config).encode)
    nothing = np.zeros((0, config.model.z_size), np.float32)

    def encode(rows: np.ndarray) -> shards.Latents:
        pending: list[Posterior] = []
        for start in range(0, len(rows), batch_size):
            index = np.minimum(np.arange(start, start + batch_size), len(rows) - 1)
            batch = jax.device_put(rows[index], along_data(mesh))
            pending.append(run(placed, batch))
        mu = [np.asarray(posterior.mu) for posterior in pending]
        sigma = [np.asarray(posterior.sigma) for posterior in pending]
        return shards.Latents(
            np.concatenate([nothing, *mu])[: len(rows)],
            np.concatenate([nothing, *sigma])[: len(rows)],
        )

    return encode


def encode_corpus(
    corpus: Corpus, encode: Encode, folder: pathlib.Path, shard_rows: int, stop: StopSignal
) -> int:
    """Write the missing shards; return the number of rows encoded now."""
    number, done, place = shards.next_place(folder)
    if number:
        print(f"resuming after {number} shards with {done:,} rows", flush=True)
    encoded = 0
    with progress_bar(total=corpus.total, initial=done, unit=" rows") as bar:
        for shard in shards.cut(corpus.blocks(place), shard_rows):
            if stop.received:
                break
            num_rows = len(shard.rows)
            if num_rows or shard.skipped:
                path = shards.shard_path(folder, number)
                shards.write_shard(path, shard, encode(shard.rows))
                number, encoded = number + 1, encoded + num_rows
            bar.update(num_rows)
    return encoded


def run(options: Options) -> str:
    """Encode the input; return a summary.

    Raises:
      InputError: there is no such model or input, they do not fit, or the output is something else.
      SystemExit: a signal stopped it; the exit code is that of a shell.
    """
    vae = open_model(options, "note starts")
    corpus = open_corpus(
        options.inputs, options.split, options.meter, vae.task, options.allow_changed_data
    )
    folder = check_writable(options.output, "output")
    identity = {
        "format": shards.FORMAT,
        "task": vae.task.name,
        "step": vae.step,
        "model": _digest(vae.params),
        "input": corpus.fingerprint,
        "z_size": vae.z_size,
        "shard_rows": options.shard_rows,
        "batch_size": options.batch_size,
    }
    if shards.open_output(folder, identity):
        return f"{folder}: found finished"
    encode = make_encode(vae.config, vae.params, options.batch_size)
    start = time.perf_counter()
    with StopSignal() as stop:
        encoded = encode_corpus(corpus, encode, folder, options.shard_rows, stop)
    seconds = time.perf_counter() - start
    if stop.received:
        print(f"stopped; run the same command again to resume in {folder}")
        sys.exit(stop.exit_code)
    record = shards.finish(folder, identity)
    if not record["rows"]:
        shards.discard(folder)
        raise InputError(f"input: no row of {vae.task.name} found: {_counted(record['skipped'])}")
    return (
        f"{folder}: {record['rows']:,} rows in {record['shards']} shards; now {encoded:,} in "
        f"{seconds:.1f} s, {encoded / seconds:,.0f} examples/s"
        + (f"\nwithout rows: {_counted(record['skipped'])}" if record["skipped"] else "")
    )


def _digest(params: Params) -> str:
    """Return the hexadecimal digest of the parameters."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _counted(reasons: dict[str, int]) -> str:
    """Format reasons with their counts."""
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "nothing to read"


def main(options: Options) -> None:
    """Encode the input and print a summary."""
    compile_cache.switch_on()
    print(run(options))


if __name__ == "__main__":
    cli.run(main, Options)

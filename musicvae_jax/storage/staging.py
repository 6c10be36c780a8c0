"""Arrays that are on the disk before the checkpoint they will be part of.

    arrays, or sources of bytes -> FOLDER/0, FOLDER/1, ...  -> checkpoints/<step>/params, state

Saving a checkpoint from memory needs all of it in memory, then reads it again for the checksums.
Here several threads copy arrays to files, piece by piece, each with its SHA-256. Orbax then moves
the files to where it reads them: an array is a folder of the Zarr format, version 2, with one
chunk, which has the array's bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Protocol

import jax
import numpy as np
from orbax import checkpoint as ocp

from musicvae_jax.storage.full_disk import DiskFullError, is_disk_full

Tree = Any
ITEMS = ("params", "state")  # of a checkpoint: those that have arrays
# More threads than processors: some wait until their file is on the disk.
_THREADS = 2 * min(os.cpu_count() or 1, 8)


class Source(Protocol):
    """An array that is not in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""

    @property
    def dtype(self) -> np.dtype:
        """Its type."""

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield its bytes in parts, uint8, each valid until the next; several threads may."""


@dataclasses.dataclass(frozen=True)
class StagedArray:
    """An array in a file of its bytes, little endian; a leaf for JAX."""

    path: pathlib.Path
    shape: tuple[int, ...]
    dtype: np.dtype
    sha256: str


class Staging:
    """A folder of staged arrays, and how orbax takes them from there.

    Args:
      folder: a folder that does not exist; on the disk of the checkpoint.

    Attributes:
      digests: file to its SHA-256, for files moved into a checkpoint; relative to its folder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.digests: dict[str, str] = {}

    def __enter__(self) -> Staging:
        self.folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def stage(self, tree: Tree) -> Tree:
        """Write the arrays of a tree to files, and wait until they are on the disk.

        Args:
          tree: leaves are NumPy or JAX arrays, or each a `Source`.

        Returns:
          the tree of `StagedArray`.

        Raises:
          DiskFullError: there is no space left.
          Exception: what a source raised.
        """
        leaves, structure = jax.tree.flatten(tree)
        try:
            self._check_space(leaves)
            with ThreadPoolExecutor(_THREADS) as threads:
                waiting = [
                    threads.submit(_write, leaf, self.folder / str(number))
                    for number, leaf in enumerate(leaves)
                ]
                try:
                    staged = [future.result() for future in waiting]
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise self._disk_full() from error
        return jax.tree.unflatten(structure, staged)

    def _check_space(self, leaves: Sequence[Any]) -> None:
        needed = sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
        if shutil.disk_usage(self.folder).free < needed:
            raise self._disk_full()

    def _disk_full(self) -> DiskFullError:
        return DiskFullError(f"run_dir: no space left in {self.folder.parent}")

    def handlers(self) -> dict[str, ocp.CheckpointHandler]:
        """Return what saves items whose leaves are all `StagedArray`s."""
        found: dict[str, ocp.CheckpointHandler] = {}
        for item in ITEMS:
            types = ocp.type_handlers.create_type_handler_registry(
                (StagedArray, _Mover(item, self.digests))
            )
            # It warns that there is nothing to merge, and no metadata of JAX arrays.
            logging.getLogger("absl").addFilter(_is_not_about_other_formats)
            found[item] = ocp.PyTreeCheckpointHandler(
                use_ocdbt=False, use_compression=False, type_handler_registry=types
            )
        return found


def _is_not_about_other_formats(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(
        ("No jax.Array in TypeHandlerRegistry", "[process=%s][thread=%s] Skipping merge of OCDBT")
    )


def _write(array: Any, path: pathlib.Path) -> StagedArray:
    """Write one array and compute its digest from what was in memory."""
    digest = hashlib.sha256()
    pieces: Iterator[np.ndarray] = array.pieces() if hasattr(array, "pieces") else _pieces(array)
    with path.open("wb", buffering=0) as file:
        for piece in pieces:
            rest = piece.data
            digest.update(rest)
            while rest:
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    return StagedArray(path, tuple(array.shape), np.dtype(array.dtype), digest.hexdigest())


def _pieces(array: Any) -> Iterator[np.ndarray]:
    """Yield the bytes of an array in memory."""
    whole = np.asarray(array)
    whole = np.ascontiguousarray(whole.astype(whole.dtype.newbyteorder("<"), copy=False))
    content = whole.reshape(-1).view(np.uint8)
    for start in range(0, content.size, 1 << 20):
        yield content[start : start + (1 << 20)]


class _Mover(ocp.type_handlers.TypeHandler):
    """Moves staged arrays into a checkpoint; `ocp` reads them as JAX arrays."""

    def __init__(self, item: str, digests: dict[str, str]) -> None:
        self._item = item
        self._digests = digests

    def typestr(self) -> str:
        """Return the type that the checkpoint's metadata names."""
        return "jax.Array"

    async def serialize(
        self, values: Sequence[StagedArray], infos: Sequence[Any], args: Any = None
    ) -> list[Any]:
        """Move arrays to their places."""
        del args
        for array, info in zip(values, infos, strict=True):
            folder = pathlib.Path(info.parent_dir / info.name)
            folder.mkdir()
            chunk = ".".join("0" for _ in array.shape) or "0"
            os.replace(array.path, folder / chunk)
            (folder / ".zarray").write_text(json.dumps(_zarr_metadata(array)))
            self._digests[f"{self._item}/{info.name}/{chunk}"] = array.sha256
        return []

    async def metadata(self, infos: Sequence[Any]) -> NoReturn:
        """Refuse: this only saves."""
        raise NotImplementedError

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> NoReturn:
        """Refuse: this only saves."""
        raise NotImplementedError


def _zarr_metadata(array: StagedArray) -> dict[str, Any]:
    """Return the content of the file .zarray."""
    return {
        "zarr_format": 2,
        "shape": array.shape,
        "chunks": [max(size, 1) for size in array.shape],
        "dtype": array.dtype.newbyteorder("<").str,
        "order": "C",
        "compressor": None,
        "filters": None,
        "fill_value": None,
        "dimension_separator": ".",
    }

"""Token stores on disk: built in a work folder, renamed when complete.

A store's files depend on what is read and on the options only: never on time, machine,
path, number of processes or order of reading. What does depend on those is in `run.json`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.codecs.codec import CODECS
from data_pipeline.selection.splits import SPLITS, Selection
from musicvae_jax.config import InputError
from musicvae_jax.tasks import NO_EVENT, NOTE_TASKS, Task, Track

FORMAT = "musicvae-tokens-1"
META, MANIFEST, SPLIT = "meta.json", "manifest.jsonl", "split.json"
REPORT, RUN = "report", "run.json"
STORE, REPLACED = "store", "replaced"
_MARK = ".unfinished"
_CHUNK_BYTES = 2**24


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write indented JSON with sorted keys: equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="ascii")


@contextlib.contextmanager
def work_folder(output: pathlib.Path, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """Give a folder beside `output`, whose part `STORE` takes that name when the block ends well.

    If the block is interrupted or killed, the folder stays so that the same command can resume; if
    it raises InputError, nothing is left. With `overwrite`, a store at `output` stays until then
    and is deleted.

    Raises:
      InputError: another process is writing to `output`, the place cannot be written, or its
        disk is full.
    """
    folder = _work_path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output: {output} cannot be written: {error.strerror}") from error
    with _locked(folder, output):
        _claim(folder, output, overwrite)
        try:
            yield folder
            if overwrite and output.is_dir():
                os.rename(output, folder / REPLACED)
            os.rename(folder / STORE, output)
        except InputError:
            _remove(folder)
            raise
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise InputError(
                f"output: the disk of {output} is full; free some, then run the same command again"
            ) from error
        _remove(folder)


@contextlib.contextmanager
def _locked(folder: pathlib.Path, output: pathlib.Path) -> Iterator[None]:
    """Lock a folder against other processes."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"output: {output} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"output: another process is writing to {output}") from None
        yield
    finally:
        os.close(lock)


def _work_path(output: pathlib.Path) -> pathlib.Path:
    return output.with_name(f".{output.name}.unfinished")


def _claim(folder: pathlib.Path, output: pathlib.Path, overwrite: bool) -> None:
    """Delete the incomplete store of an earlier run, but keep its converted files."""
    if not (folder / _MARK).exists() and any(folder.iterdir()):
        raise InputError(f"output: {folder} is in the way, remove it or choose another --output")
    (folder / _MARK).touch()
    if not overwrite and output.is_dir() and any(output.iterdir()):  # since we looked
        raise InputError(f"output: another process has just written {output}")
    for name in (STORE, REPLACED):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / STORE).mkdir()


def clear_leftover(output: pathlib.Path) -> None:
    """Delete the work folder of a run that was killed after it had finished."""
    folder = _work_path(output)
    if folder.is_dir() and ((folder / _MARK).exists() or not any(folder.iterdir())):
        with _locked(folder, output):
            _remove(folder)


def _remove(folder: pathlib.Path) -> None:
    """Delete a work folder, its mark last, so that a partly deleted one is still recognised."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _MARK:
            path.unlink()
    (folder / _MARK).unlink(missing_ok=True)
    folder.rmdir()


class Written(NamedTuple):
    """The content of one array file.

    Attributes:
      num_rows: N.
      sha256: of the file.
      no_events: tokens "no event" in each track.
    """

    num_rows: int
    sha256: str
    no_events: tuple[int, ...]


def write_rows(path: pathlib.Path, rows: np.ndarray, chosen: np.ndarray, task: Task) -> Written:
    """Write `rows[chosen]` as a plain .npy file, a few megabytes at a time.

    Args:
      path: file to write.
      rows: [N, *row_shape], may be memory-mapped.
      chosen: indices of the rows to write, in order.
      task: shape and type of a row.
    """
    no_events = np.zeros(len(task.tracks), np.int64)
    dtype = np.dtype(task.token_dtype).newbyteorder("<")
    step = max(1, _CHUNK_BYTES // (int(np.prod(task.row_shape)) * dtype.itemsize))
    head = io.BytesIO()
    shape = (len(chosen), *task.row_shape)
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, header)
    sha256 = hashlib.sha256(head.getvalue())
    with path.open("wb") as stream:
        stream.write(head.getvalue())
        for start in range(0, len(chosen), step):
            chunk = np.ascontiguousarray(rows[chosen[start : start + step]], dtype)
            if task.tracks:
                no_events += (chunk.reshape(-1, len(task.tracks)) == NO_EVENT).sum(axis=0)
            sha256.update(chunk.reshape(-1).view(np.uint8).data)
            stream.write(chunk.data)
    return Written(len(chosen), sha256.hexdigest(), tuple(no_events.tolist()))


def write_splits(
    folder: pathlib.Path, rows: np.ndarray, selection: Selection, task: Task
) -> dict[str, Written]:
    """Write one array per split into a folder; return what each holds."""
    return {
        name: write_rows(folder / f"{name}.npy", rows, chosen, task)
        for name, chosen in selection.rows.items()
    }


def meta(
    task: Task, written: dict[str, Written], sources: list[Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Describe a store: what `musicvae_jax.data` checks and a reader wants to know."""
    return {
        "format": FORMAT,
        "task": task.name,
        "vocabulary": [_vocabulary(track) for track in task.tracks],
        "row_shape": list(task.row_shape),
        "counts": {name: split.num_rows for name, split in written.items()},
        "sha256": {f"{name}.npy": split.sha256 for name, split in written.items()},
        "sources": sources,
        "options": options,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that determine the rows."""
    names = ("mido", "musicvae-jax", "note-seq", "numpy", "pretty-midi")
    return {name: metadata.version(name) for name in names}


def _vocabulary(track: Track) -> dict[str, Any]:
    """Describe the tokens of a track."""
    return {
        "track": track.name,
        "kind": track.kind,
        "num_classes": track.num_classes,
        "tokens": CODECS[track.kind].vocabulary(track),
    }


def held(output: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return the stores in a folder: {relative folder: content of its meta.json}.

    Empty when the folder is missing or empty.

    Raises:
      InputError: the folder contains something other than token stores.
    """
    if not output.exists():
        return {}
    if not output.is_dir():
        raise InputError(f"output: {output} is a file, --output must name a folder")
    found = {name: output / name / META for name in (".", *NOTE_TASKS)}
    stores = {name: _read_meta(path) for name, path in found.items() if path.is_file()}
    others = sorted(path.name for path in output.iterdir())
    if others and (not stores or None in stores.values()):
        raise InputError(
            f"output: {output} holds something else ({', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}), choose another folder"
        )
    return {name: store for name, store in stores.items() if store is not None}


def check_replaceable(output: pathlib.Path) -> None:
    """Check that a folder holds nothing but stores.

    Raises:
      InputError: it does; the message names what.
    """
    files = {META, MANIFEST, SPLIT, RUN, *(f"{REPORT}.{end}" for end in ("txt", "json", "html"))}
    files |= {f"{name}{end}" for name in SPLITS for end in (".npy", ".labels.npy")}
    folders = [output / name for name in (".", *NOTE_TASKS) if (output / name).is_dir()]
    found = [path for folder in folders for path in folder.iterdir() if path not in folders]
    others = sorted(str(path.relative_to(output)) for path in found if path.name not in files)
    if others:
        raise InputError(
            f"output: {output} also holds {', '.join(others[:3])}, which --overwrite would delete: "
            "move it elsewhere"
        )


def _read_meta(path: pathlib.Path) -> dict[str, Any] | None:
    """Read a meta.json; None if it is not of our format."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return value if isinstance(value, dict) and value.get("format") == FORMAT else None


def check_held(
    output: pathlib.Path,
    stores: dict[str, dict[str, Any]],
    sources: list[Any],
    options: dict[str, Any],
) -> None:
    """Check that stores were made from these inputs with these options, and are whole.

    Raises:
      InputError: they were not; the message names the differences.
    """
    wanted = {"sources": sources, "versions": versions()}
    for name, store in stores.items():
        made_with = store["options"]
        differ = [f"--{key}" for key in options if made_with.get(key) != options[key]]
        differ += [key for key, value in wanted.items() if store[key] != value]
        if differ:
            raise InputError(
                f"output: {output} holds a store made with other {', '.join(differ)}; "
                "give --overwrite to replace it, or choose another --output"
            )
        for file, sha256 in store["sha256"].items():
            path = output / name / file
            if not path.is_file() or _sha256(path) != sha256:
                raise InputError(
                    f"output: {path} is missing or damaged; give --overwrite to make it again"
                )


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Where the files of a TensorFlow checkpoint are: a prefix, a folder, or a tar file.

Tensors are read from where they are, also within an uncompressed tar file; nothing is unpacked.
Only files beside the prefix are opened, whatever a `checkpoint` file or a tar member is named.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import pathlib
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from musicvae_jax.config import InputError

MAX_INDEX_BYTES = 1 << 26
_MAX_MEMBERS = 10_000
_MAX_STATE_BYTES = 1 << 20
_TAR_MAGIC = (257, b"ustar")  # offset and content
_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


class DataFile(NamedTuple):
    """One file of tensor bytes.

    Attributes:
      name: for messages.
      size: bytes.
      read_into: `read_into(offset, array)` fills a uint8 array from that offset on.
      is_seekable: whether offsets may come in any order, and from several threads.
    """

    name: str
    size: int
    read_into: Callable[[int, np.ndarray], None]
    is_seekable: bool = True


class CheckpointFiles(NamedTuple):
    """The files of one checkpoint.

    Attributes:
      name: of the index file, for messages.
      table: bytes of the index file.
      data: `data(suffix)` opens the data file whose name is the prefix and that suffix.
    """

    name: str
    table: bytes
    data: Callable[[str], DataFile]


@contextlib.contextmanager
def open_files(path: str | os.PathLike[str]) -> Iterator[CheckpointFiles]:
    """Find the files that a path names.

    Args:
      path: a prefix ("run/train/model.ckpt-200000"), its index file, a folder (the newest
        checkpoint in it), or a tar file with any compression.

    Raises:
      InputError: there is no such checkpoint, or a file cannot be read.
    """
    place = pathlib.Path(path)
    with contextlib.ExitStack() as stack:
        try:
            found = _find(place, stack)
        except OSError as error:
            raise InputError(f"checkpoint: {place}: {error.strerror or error}") from error
        yield found


def _find(path: pathlib.Path, stack: contextlib.ExitStack) -> CheckpointFiles:
    if path.is_dir():
        return _from_prefix(_newest(path), stack)
    named = re.fullmatch(r"(.+)\.(index|data-\d{5}-of-\d{5})", path.name)
    if named:
        return _from_prefix(path.with_name(named[1]), stack)
    if path.with_name(path.name + ".index").is_file():
        return _from_prefix(path, stack)
    if path.is_file():
        return _from_tar(path, stack)
    raise InputError(
        f"checkpoint: {path} is not there, and there is no {path.name}.index; name a prefix, a "
        "folder or a tar file"
    )


def _newest(folder: pathlib.Path) -> pathlib.Path:
    """Return the prefix of a folder's newest checkpoint."""
    state = folder / "checkpoint"
    if not state.is_file():
        prefixes = [path.with_suffix("") for path in folder.glob("*.index")]
        if not prefixes:
            raise InputError(f"checkpoint: {folder} has no .index file")
        return max(prefixes, key=lambda path: (_step_in(path.name), path.name))
    with state.open("rb") as file:
        text = file.read(_MAX_STATE_BYTES).decode("utf-8", "replace")
    named = re.search(r'^\s*model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)*)"', text, re.MULTILINE)
    if not named:
        raise InputError(f"checkpoint: {state} names no model_checkpoint_path")
    # The folder may have been moved since, so only the last part of the path counts.
    name = posixpath.basename(_unescaped(named[1]))
    if not (folder / f"{name}.index").is_file():
        raise InputError(
            f"checkpoint: {state} names {name!r}, but {name}.index is not beside it; give the "
            "checkpoint's own path"
        )
    return folder / name


def _step_in(name: str) -> int:
    """Return the number after the last hyphen, -1 for none."""
    last = name.rpartition("-")[2]
    return int(last) if last.isascii() and last.isdigit() and len(last) < 20 else -1


def _unescaped(text: str) -> str:
    """Undo the C escapes of a quoted string of the text format; octal ones are bytes of UTF-8."""
    simple = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}

    def replaced(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) & 0xFF]) if code[0] in b"01234567" else simple.get(code, code)

    octets = re.sub(rb"\\([0-7]{1,3}|.)", replaced, text.encode())
    return octets.decode("utf-8", "replace")


def _from_prefix(prefix: pathlib.Path, stack: contextlib.ExitStack) -> CheckpointFiles:
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        raise InputError(f"checkpoint: {index} is missing")
    _check_index_size(str(index), index.stat().st_size)

    def data(suffix: str) -> DataFile:
        path = prefix.with_name(prefix.name + suffix)
        if not path.is_file():
            raise InputError(f"checkpoint: {path} is missing")
        return DataFile(str(path), path.stat().st_size, _reader(path, 0, stack))

    return CheckpointFiles(str(index), index.read_bytes(), data)


def _check_index_size(name: str, size: int) -> None:
    if size > MAX_INDEX_BYTES:
        raise InputError(f"checkpoint: {name} has {size:,} bytes, too many for an index file")


def _reader(
    path: pathlib.Path, base: int, stack: contextlib.ExitStack
) -> Callable[[int, np.ndarray], None]:
    """Return a reader of the bytes from `base` on, straight into the array."""
    file = stack.enter_context(path.open("rb", buffering=0))

    def read_into(offset: int, array: np.ndarray) -> None:
        rest = array.data
        place = base + offset
        try:
            while rest:
                count = os.preadv(file.fileno(), [rest], place)
                if not count:
                    raise InputError(f"checkpoint: {path} was truncated while it was read")
                rest, place = rest[count:], place + count
        except OSError as error:
            raise InputError(f"checkpoint: {path}: {error.strerror or error}") from error

    return read_into


def _from_tar(path: pathlib.Path, stack: contextlib.ExitStack) -> CheckpointFiles:
    """Find the checkpoint of a tar file: its first member that ends in .index, and its data."""
    with path.open("rb") as file:
        start = file.read(_TAR_MAGIC[0] + len(_TAR_MAGIC[1]))
    is_plain = start[_TAR_MAGIC[0] :] == _TAR_MAGIC[1]
    try:
        tar = tarfile.open(path, "r:*")  # noqa: SIM115  (the stack closes it)
        stack.enter_context(tar)
        members = _members(path, tar)
        name = next((name for name in members if name.endswith(".index")), None)
        if name is None:
            raise InputError(f"checkpoint: {path} has no member that ends in .index")
        index = _regular(path, members, name)
        _check_index_size(f"{path}: {name}", index.size)
        stream = tar.extractfile(index)
        content = stream.read() if stream else b""
    except _TAR_ERRORS as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"checkpoint: {path} is neither a readable tar file nor a prefix with an .index file "
            f"(V1 checkpoints are not supported): {reason}"
        ) from error

    def data(suffix: str) -> DataFile:
        member = _regular(path, members, name.removesuffix(".index") + suffix)
        label = f"{path}: {member.name}"
        if not is_plain:
            return DataFile(label, member.size, _streamed(tar, member, label), is_seekable=False)
        if member.offset_data + member.size > path.stat().st_size:
            raise InputError(f"checkpoint: {label} is truncated")
        return DataFile(label, member.size, _reader(path, member.offset_data, stack))

    return CheckpointFiles(f"{path}: {name}", content, data)


def _members(path: pathlib.Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """List a tar file's members by their normalised names, in their order."""
    members: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        name = posixpath.normpath(member.name)
        if name.startswith(("/", "../")):
            raise InputError(f"checkpoint: {path}: member {member.name!r} leaves the folder")
        members.setdefault(name, member)
        if len(members) > _MAX_MEMBERS:
            raise InputError(f"checkpoint: {path} has more than {_MAX_MEMBERS:,} members")
    return members


def _regular(path: pathlib.Path, members: dict[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo:
    """Return a member that must be a regular file."""
    if name not in members:
        raise InputError(f"checkpoint: {path} has no member {name}")
    member = members[name]
    if not member.isreg() or member.issparse():
        raise InputError(f"checkpoint: {path}: member {name} is not a regular file")
    return member


def _streamed(
    tar: tarfile.TarFile, member: tarfile.TarInfo, label: str
) -> Callable[[int, np.ndarray], None]:
    """Return a reader of a compressed member; quick as long as offsets ascend."""

    def read_into(offset: int, array: np.ndarray) -> None:
        stream = tar.extractfile(member)
        try:
            if stream is None:
                raise EOFError
            stream.seek(offset)
            content = stream.read(len(array))
        except _TAR_ERRORS as error:
            raise InputError(f"checkpoint: {label} is damaged: {error}") from error
        if len(content) != len(array):
            raise InputError(f"checkpoint: {label} is truncated")
        array[:] = np.frombuffer(content, np.uint8)

    return read_into

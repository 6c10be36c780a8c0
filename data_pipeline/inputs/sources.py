"""Where music files come from: folders, archives, single files, named corpora.

Names begin with the input's own name, never with the folders above it, so that a
manifest reads the same on every machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import pathlib
import stat
import sys
from collections.abc import Iterable, Iterator

from data_pipeline.inputs.archives import (
    FOLDER,
    LINK,
    MAX_FILE_BYTES,
    NOT_MUSIC,
    TOO_LARGE,
    Entry,
    archive_entries,
    is_archive,
    is_music,
    printable,
    read_limited,
)
from data_pipeline.inputs.corpora import CORPORA, Corpus
from data_pipeline.inputs.download import default_cache, fetch
from musicvae_jax.config import InputError

CANNOT_OPEN = "cannot be opened"
NOT_REGULAR = "not a regular file"
NO_TUNE = "no tunes"


@dataclasses.dataclass(frozen=True)
class Source:
    """One input whose files are listed but not read yet.

    Attributes:
      name: last part of its path, or the name of the corpus.
      files: (name, path) of each file in it, sorted.
      problems: entries that are not readable files.
      size: bytes of all files.
      corpus: its terms if it is a named corpus, else None.
    """

    name: str
    files: tuple[tuple[str, str], ...]
    problems: tuple[Entry, ...]
    size: int
    corpus: Corpus | None = None


def open_sources(
    inputs: Iterable[str], corpora: Iterable[str] = (), cache_dir: str | None = None
) -> list[Source]:
    """List the files of every input and corpus; download a corpus that is not in the cache.

    Args:
      inputs: folders, archives and files.
      corpora: keys of `CORPORA`.
      cache_dir: where downloaded corpora are kept; None for the user's cache folder.

    Raises:
      InputError: there is no input, one does not exist, or a corpus is unknown, not installed
        or cannot be downloaded.
    """
    sources = [_open_path(path) for path in inputs] + [
        _open_corpus(name, cache_dir) for name in corpora
    ]
    if not sources:
        raise InputError("input: nothing to read, give --input=PATH or --corpus=folk")
    return sources


def entries(source: Source) -> Iterator[Entry]:
    """Yield every file of a source with its bytes, or the reason why it is skipped.

    Archives are streamed. `position` counts the bytes of the source read so far.
    """
    yield from source.problems
    done = 0
    for name, path in source.files:
        for entry in _file_entries(name, path):
            yield dataclasses.replace(entry, position=done + entry.position)
        done += _size(path)


def units(entry: Entry) -> list[Entry]:
    """Split a file into units of music: the tunes of an ABC file, otherwise the file itself.

    Empty lines separate the sections of a tunebook. Sections with an "X:" line are tunes. If the
    first has none, it is a header, which is put before every tune; others are free text.
    """
    if entry.data is None or not entry.name.lower().endswith(".abc"):
        return [entry]
    sections: list[list[bytes]] = [[]]
    for line in entry.data.removeprefix(b"\xef\xbb\xbf").splitlines():
        if line.strip():
            sections[-1].append(line.strip())
        elif sections[-1]:
            sections.append([])
    sections = [lines for lines in sections if lines]
    tunes = [lines for lines in sections if any(line.startswith(b"X:") for line in lines)]
    header = sections[0] if sections and sections[0] not in tunes[:1] else []
    if not tunes:
        return [dataclasses.replace(entry, data=None, reason=NO_TUNE)]
    if len(sections) == 1:
        return [entry]
    return [
        dataclasses.replace(
            entry, name=f"{entry.name}#{number}", data=b"\n".join(header + lines) + b"\n"
        )
        for number, lines in enumerate(tunes, start=1)
    ]


def md5(data: bytes) -> str:
    """Return the hexadecimal MD5 of a file's bytes: its identity in splits and manifests."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _open_path(path: str) -> Source:
    name = printable(os.path.basename(os.path.abspath(path)))
    if os.path.isdir(path):
        files, problems = _walk(path, name)
    elif os.path.exists(path):
        files, problems = [(name, path)], []
    else:
        raise InputError(f"input: there is no file or folder {path}")
    return Source(name, tuple(files), tuple(problems), sum(_size(path) for _, path in files))


def _open_corpus(name: str, cache_dir: str | None) -> Source:
    if name not in CORPORA:
        raise InputError(f"corpus: {name!r} is not one of {', '.join(CORPORA)}")
    corpus = CORPORA[name]
    if corpus.remote is None:
        return _open_package(corpus)
    print(f"{name}: licence {corpus.licence}; cite {corpus.citation}", file=sys.stderr)
    path = fetch(corpus.remote, pathlib.Path(cache_dir) if cache_dir else default_cache())
    return Source(name, ((name, str(path)),), (), _size(str(path)), corpus)


def _open_package(corpus: Corpus) -> Source:
    """List the files of a corpus that a package ships."""
    name = corpus.name
    # find_spec does not import the package, which takes seconds.
    spec = importlib.util.find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"corpus: {name!r} comes with the package {corpus.package}, which is not installed: "
            f"pip install {corpus.package}, or this project with its extra {corpus.extra!r}"
        )
    root = os.path.join(spec.submodule_search_locations[0], "corpus")
    files: list[tuple[str, str]] = []
    for folder in corpus.folders:
        if not os.path.isdir(os.path.join(root, folder)):
            raise InputError(f"corpus: {name!r} needs {folder}, which is not in {root}")
        found, _ = _walk(os.path.join(root, folder), f"{name}/{folder}")
        files += [item for item in found if item[1].endswith(".abc")]
    size = sum(_size(path) for _, path in files)
    return Source(name, tuple(files), (), size, corpus)


def _walk(root: str, name: str) -> tuple[list[tuple[str, str]], list[Entry]]:
    """List the files of a folder, sorted, and the entries that cannot be read."""
    files: list[tuple[str, str]] = []
    problems: list[Entry] = []

    def named(path: str) -> str:
        return f"{name}/{printable(os.path.relpath(path, root))}"

    def note(error: OSError) -> None:
        where = named(str(error.filename))
        problems.append(Entry(where, reason=CANNOT_OPEN, detail=str(error.strerror)))

    for folder, subfolders, names in os.walk(root, onerror=note):
        subfolders.sort()
        for subfolder in subfolders:
            path = os.path.join(folder, subfolder)
            if os.path.islink(path):
                problems.append(Entry(named(path), reason=LINK, detail="to a folder"))
            elif is_music(subfolder):
                problems.append(Entry(named(path), reason=FOLDER))
        files += [(named(path), path) for path in (os.path.join(folder, n) for n in sorted(names))]
    return files, problems


def _file_entries(name: str, path: str) -> Iterator[Entry]:
    """Yield what one file of a folder holds; devices and pipes are never opened."""
    if not is_music(path) and not is_archive(path):
        yield Entry(name, reason=NOT_MUSIC)
        return
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            yield Entry(name, reason=NOT_REGULAR)
        elif is_archive(path):
            yield from archive_entries(path, name)
        elif status.st_size > MAX_FILE_BYTES:
            yield Entry(name, reason=TOO_LARGE, position=status.st_size)
        else:
            with open(path, "rb") as stream:
                yield read_limited(stream, name, status.st_size)
    except OSError as error:
        yield Entry(name, reason=CANNOT_OPEN, detail=str(error.strerror))


def _size(path: str) -> int:
    """Return the size of a file in bytes, 0 if it is unknown."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0

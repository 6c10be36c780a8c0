"""Rebuild the stores of the packaged models from their sources, and compare them to the byte.

Example:
  python -m experiments.release.rebuild --sources=sources --output=data

--sources has a folder or an archive for each source that the cards name: `pop909`, a clone of its
repository, or `groove.zip`. What a source had in earlier commits (`freedoom_history`) is read from
the history of the clone (`freedoom`). Files that the published split does not name are left out;
tunes come with the package music21 (extra `demo`). Prints how many files of each source were found,
the report of `prepare`, and whether the rows are those that the models were trained on.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_pipeline import cli, prepare
from data_pipeline.cli import option
from data_pipeline.inputs.archives import ARCHIVE_ENDINGS, is_music
from data_pipeline.inputs.sources import entries, md5, open_sources
from data_pipeline.options import Options as PrepareOptions
from data_pipeline.options import read_split_file
from data_pipeline.selection.store import META
from experiments.release.sources import source_of
from musicvae_jax.config import InputError
from musicvae_jax.interop import safetensors_file
from musicvae_jax.pretrained import packaged

HISTORY = "_history"


class Found(NamedTuple):
    """What was found of a source.

    Attributes:
      name: of the source.
      files: MD5 to content, of the files that the split names.
      wanted: number of files that the models' store was made from.
    """

    name: str
    files: dict[str, bytes]
    wanted: int


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the sources are, and where the stores go."""

    sources: str = option(help="Folder with a folder, clone or archive for each source.")
    output: str = option(help="New folder of the stores, one folder for each task.")


def packaged_data() -> dict[str, dict[str, Any]]:
    """Return for each packaged model, by its task, what its file says about its rows."""
    abouts = (safetensors_file.read(packaged.path_of(name)).about for name in packaged.names())
    return {about["task"]: about["data"] for about in abouts}


def rebuild(options: Options, models: dict[str, dict[str, Any]], split_file: pathlib.Path) -> str:
    """Rebuild the store of each task and compare its rows with those of the model.

    Args:
      options: where to read and write.
      models: task to the data of its model: "sources", "options" and "sha256".
      split_file: the split of every file.

    Returns:
      a line for each task.

    Raises:
      InputError: a source is missing, or the rows of a task differ.
    """
    data = next(iter(models.values()))
    packs = [entry for entry in data["sources"] if "licence" not in entry]
    corpora = [entry["name"] for entry in data["sources"] if "licence" in entry]
    found = find_sources(
        pathlib.Path(options.sources), packs, set(read_split_file(str(split_file)))
    )
    for source in found:
        print(f"{source.name}: {len(source.files):,} of {source.wanted:,} files", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "sources"
        folder.mkdir()
        for source in found:
            for digest, content in source.files.items():
                (folder / f"{digest}.mid").write_bytes(content)
        prepare.prepare(
            PrepareOptions(
                inputs=(str(folder),),
                corpora=tuple(corpora),
                tasks=tuple(data["options"]["task"]),
                output=options.output,
                meter=data["options"]["meter"],
                programs=data["options"]["programs"],
                split_file=str(split_file),
            )
        )
    return compare(pathlib.Path(options.output), models)


def find_sources(folder: pathlib.Path, packs: list[dict[str, Any]], split: set[str]) -> list[Found]:
    """Read the files of every source that the split names.

    Raises:
      InputError: a source is neither a folder nor an archive below `folder`.
    """
    known: set[str] = set()
    found, missing = [], []
    for pack in packs:
        contents = _contents(folder, pack["name"])
        if contents is None:
            missing.append(f"{pack['name']} ({source_of(pack).place})")
            continue
        named = ((md5(content), content) for content in contents)
        files = {digest: data for digest, data in named if digest in split - known}
        known |= set(files)
        found.append(Found(pack["name"], files, pack["files"]))
    if missing:
        raise InputError(f"sources: {folder} has no folder or archive {', '.join(missing)}")
    return found


def _contents(folder: pathlib.Path, name: str) -> Iterator[bytes] | None:
    """Return the music files of a source, None if there is no such source."""
    places = [folder / name, *(folder / f"{name}{ending}" for ending in ARCHIVE_ENDINGS)]
    for place in places:
        if place.exists():
            (source,) = open_sources([str(place)])
            return (entry.data for entry in entries(source) if entry.data is not None)
    clone = folder / name.removesuffix(HISTORY)
    if name.endswith(HISTORY) and (clone / ".git").exists():
        return _history(clone)
    return None


def _history(clone: pathlib.Path) -> Iterator[bytes]:
    """Yield every music file of every commit of a clone."""
    git = ["git", "-C", str(clone)]
    listed = subprocess.run(
        [*git, "rev-list", "--all", "--objects"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise InputError(f"sources: git cannot read {clone}: {listed.stderr.strip()}")
    for line in listed.stdout.splitlines():
        blob, _, path = line.partition(" ")
        if is_music(path):
            yield subprocess.run([*git, "cat-file", "blob", blob], capture_output=True).stdout


def compare(output: pathlib.Path, models: dict[str, dict[str, Any]]) -> str:
    """Say of each task whether its arrays are those of the model.

    Raises:
      InputError: they differ.
    """
    lines, differing = [], []
    for task, data in models.items():
        folder = output / task if (output / task).is_dir() else output
        written = json.loads((folder / META).read_text(encoding="ascii"))["sha256"]
        different = [name for name, digest in data["sha256"].items() if written[name] != digest]
        differing += [f"{task}/{name}" for name in different]
        lines.append(
            f"{task}: {len(data['sha256']) - len(different)} of {len(data['sha256'])} equal"
        )
    if differing:
        raise InputError(
            f"output: {', '.join(differing)} differ from the rows of the packaged models"
        )
    return "\n".join(lines)


def main(options: Options) -> None:
    """Rebuild and print what is equal."""
    print(rebuild(options, packaged_data(), packaged.SONGS))


if __name__ == "__main__":
    cli.run(main, Options)

"""Turn folders of sound files into a store of rows of samples.

Example:
  python -m data_pipeline.prepare_audio --input=clips --output=data/clips --rate=3000 --seconds=30

Files (WAV, FLAC, OGG, MP3, AIFF) are mixed to one channel, resampled, and cut into rows of
--seconds. A last part of at least half a row is padded with silence, a shorter one is left
out. The label of a file is the folder below --input that holds it, so that a folder per
genre or source labels its files. All rows of a file go to the same split. What is left out is
counted with its reason. The store appears when it is complete.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.inputs.sound_files import SoundFileError, find_files, read_rows
from data_pipeline.progress_bar import progress_bar
from data_pipeline.selection import splits, store
from musicvae_jax.config import InputError
from musicvae_jax.tasks import SoundTask, sound_task

LABELS = ".labels.npy"
_RAW = "rows.raw"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to read, and what a row is."""

    input: str = option(help="Folder with sound files; its folders are the labels.")
    output: str = option(help="Folder of the store to write.")
    rate: int = option(3000, help="Samples per second, from 100 to 192000.")
    seconds: int = option(30, help="Length of a row, from 1 to 3600.")
    split: tuple[float, ...] = option(
        (80.0, 10.0, 10.0),
        comma=True,
        help="Percentages of the files for train, validation and test.",
    )
    seed: int = option(0, help="Random seed of the splits.")
    overwrite: bool = option(False, help="Replace a store in the output folder.")

    def __post_init__(self) -> None:
        """Check every field that needs no files."""
        cli.check_ranges(self, rate=(100, 192_000), seconds=(1, 3600))
        shares = self.split
        if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or abs(sum(shares) - 100) > 1e-9:
            raise InputError(
                f"split: {shares} must be percentages for train (above 0), validation and test "
                "that sum to 100, for example --split=80,10,10"
            )

    @property
    def task(self) -> SoundTask:
        """What a row is."""
        return sound_task(self.rate, self.seconds)


@dataclasses.dataclass
class File:
    """A sound file and what became of it.

    Attributes:
      name: its path below the input folder.
      label: first folder of the name; the input folder's own name for a file directly in it.
      md5: of its bytes.
      rows: indices of its rows.
      reason: why the file has no rows, or "".
      split: index in `SPLITS`.
    """

    name: str
    label: str
    md5: str = ""
    rows: list[int] = dataclasses.field(default_factory=list)
    reason: str = ""
    split: int = 0


class Read(NamedTuple):
    """All files read.

    Attributes:
      files: in order of their names.
      left_out: number of rows or files left out, by reason.
    """

    files: list[File]
    left_out: collections.Counter[str]


def prepare(options: Options) -> str:
    """Write the store and return a summary.

    Raises:
      InputError: there is no such folder, nothing in it gives a row, or the output holds something.
    """
    folder, output = pathlib.Path(options.input), pathlib.Path(options.output)
    names, others = find_files(folder)
    if not names:
        raise InputError(f"input: {folder} holds no sound files (WAV, FLAC, OGG, MP3, AIFF)")
    if store.held(output) and not options.overwrite:
        raise InputError(f"output: {output} holds a store; give --overwrite, or another --output")
    if options.overwrite:
        store.check_replaceable(output)
    with store.work_folder(output, options.overwrite) as work:
        found = read_all(folder, names, options.task, work / _RAW)
        found.left_out.update({"files of another type": others} if others else {})
        if not any(file.rows for file in found.files):
            raise InputError(f"input: {folder} gives no rows: {_counted(found.left_out)}")
        assign_splits(found.files, options)
        written = write_store(work / store.STORE, work / _RAW, found, options)
        (work / _RAW).unlink()
    return _summary(options, found, written)


def read_all(
    folder: pathlib.Path, names: Sequence[str], task: SoundTask, raw: pathlib.Path
) -> Read:
    """Read all files and write their different rows one after the other to `raw`."""
    files, left_out = [], collections.Counter[str]()
    known_files, known_rows = set[str](), set[bytes]()
    with raw.open("wb") as stream:
        for name in progress_bar(names, unit="file"):
            parts = pathlib.PurePath(name).parts
            file = File(name, parts[0] if len(parts) > 1 else folder.resolve().name)
            files.append(file)
            try:
                content = (folder / name).read_bytes()
                file.md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
                if file.md5 in known_files:
                    raise SoundFileError("copies of another file")
                known_files.add(file.md5)
                for row in read_rows(content, task):
                    digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
                    reason = "silent rows" if not row.any() else ""
                    reason = "repeated rows" if digest in known_rows else reason
                    left_out.update([reason] if reason else [])
                    if not reason:
                        file.rows.append(len(known_rows))
                        known_rows.add(digest)
                        stream.write(row.astype("<i2").data)
                if not file.rows:
                    raise SoundFileError("files with no rows of their own")
            except (SoundFileError, OSError) as error:
                file.reason = (
                    str(error) if isinstance(error, SoundFileError) else "unreadable files"
                )
                left_out.update([file.reason])
    return Read(files, left_out)


def assign_splits(files: Sequence[File], options: Options) -> None:
    """Draw the split of each file from its bytes, so that each split has a file if there are 3."""
    shares = (options.split[0], options.split[1], options.split[2])
    used = [file for file in files if file.rows]
    drawn = {file.md5: splits.split_of(file.md5, shares, options.seed) for file in used}
    drawn = splits.fill_empty_splits(drawn, [list(drawn)], shares, options.seed)
    for file in used:
        file.split = drawn[file.md5]


def write_store(
    folder: pathlib.Path, raw: pathlib.Path, found: Read, options: Options
) -> dict[str, Any]:
    """Write arrays, labels, manifest and meta.json; return the content of meta.json."""
    task = options.task
    names = sorted({file.label for file in found.files if file.rows})
    counts, sha256 = {}, {}
    samples = np.memmap(raw, "<i2", "r").reshape(-1, task.num_steps)
    for number, split in enumerate(splits.SPLITS):
        chosen = [file for file in found.files if file.rows and file.split == number]
        rows = [row for file in chosen for row in file.rows]
        labels = [names.index(file.label) for file in chosen for _ in file.rows]
        chosen_rows = np.array(rows, np.int64)
        written = store.write_rows(folder / f"{split}.npy", samples, chosen_rows, task)
        counts[split], sha256[f"{split}.npy"] = written.num_rows, written.sha256
        np.save(folder / (split + LABELS), np.array(labels, np.int32))
        with (folder / (split + LABELS)).open("rb") as stream:
            sha256[split + LABELS] = hashlib.file_digest(stream, "sha256").hexdigest()
    with (folder / store.MANIFEST).open("w", encoding="utf-8") as stream:
        for file in found.files:
            line = {"file": file.name, "label": file.label, "md5": file.md5, "rows": len(file.rows)}
            line |= {"split": splits.SPLITS[file.split]} if file.rows else {"reason": file.reason}
            stream.write(json.dumps(line) + "\n")
    about = {
        "format": store.FORMAT,
        "task": task.name,
        "row_shape": list(task.row_shape),
        "counts": counts,
        "sha256": sha256,
        "labels": names,
        "left_out": dict(found.left_out),
        "options": {"split": list(options.split), "seed": options.seed},
        "versions": store.versions(),
    }
    store.write_json(folder / store.META, about)
    return about


def _counted(left_out: collections.Counter[str]) -> str:
    """List reasons with their counts."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))


def _summary(options: Options, found: Read, about: dict[str, Any]) -> str:
    """Describe the store in a few lines."""
    used = [file for file in found.files if file.rows]
    labels = collections.Counter(file.label for file in used for _ in file.rows)
    counts = ", ".join(f"{count:,} {split}" for split, count in about["counts"].items())
    return "\n".join(
        [
            f"{options.output}: {about['task']}, {len(used):,} of {len(found.files):,} files",
            f"rows: {counts}",
            f"labels: {', '.join(f'{name} {count:,}' for name, count in sorted(labels.items()))}",
            f"left out: {_counted(found.left_out) or 'nothing'}",
        ]
    )


def main(options: Options) -> None:
    """Write the store and print what it holds."""
    print(prepare(options))


if __name__ == "__main__":
    cli.run(main, Options)

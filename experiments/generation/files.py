"""What `experiments.generate` writes: music, scores, sound, arrays and a picture."""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

import numpy as np

from data_pipeline.atomic_write import write_arrays
from data_pipeline.render import files
from experiments.cli.outputs import check_writable
from experiments.generation.modes import Music
from experiments.generation.options import Options
from musicvae_jax.config import InputError
from musicvae_jax.tasks import Task

# Format -> the end of its files' names.
_SUFFIXES = {"midi": ".mid", "musicxml": ".musicxml", "svg": ".svg", "wav": ".wav"}
# What follows the mode in names of files.
_PART = r"_(\d+(\.\d+)?|all|after_input|[a-z]\w*_[+-][\d.e+-]+)"
# With more samples there is no file of all of them.
MOST_JOINED = 64


def earlier_files(options: Options) -> list[pathlib.Path]:
    """List what an earlier run of the same mode wrote to the output folder.

    Raises:
      InputError: there is something, and `options.overwrite` is not set.
    """
    folder = pathlib.Path(options.output)
    endings = "|".join(re.escape(end) for end in (*_SUFFIXES.values(), ".npz", ".png"))
    ours = re.compile(rf"{options.mode}({_PART})*({endings})")
    names = os.listdir(folder) if folder.is_dir() else []
    found = [folder / name for name in sorted(names) if ours.fullmatch(name)]
    if found and not options.overwrite:
        raise InputError(
            f"output: {folder} holds music from an earlier --mode={options.mode} ({len(found)} "
            "files); give --overwrite to replace it, or another --output"
        )
    return found


def write(music: Music, task: Task, options: Options) -> list[pathlib.Path]:
    """Write the files and return their paths: each row's, the arrays', the picture's.

    Raises:
      InputError: the output is not a folder or holds earlier music, tempo or program is out of
        range, or what a format needs is not installed.
    """
    folder = check_writable(options.output, "output")
    earlier = earlier_files(options)
    folder.mkdir(parents=True, exist_ok=True)
    # First, because all other files can be made from the arrays.
    arrays = _write_arrays(folder / f"{options.mode}.npz", music)
    written: list[pathlib.Path] = []
    for name, rows in to_hear(music, options.mode):
        for chosen in dict.fromkeys(options.formats):
            if chosen in _SUFFIXES:
                written.append(folder / (name + _SUFFIXES[chosen]))
                _write_music(chosen, written[-1], rows, task, options)
    written.append(arrays)
    if "png" in options.formats:
        written.append(folder / f"{options.mode}.png")
        _draw(written[-1], music, task, options)
    for path in set(earlier) - set(written):
        path.unlink()
    return written


def to_hear(music: Music, mode: str) -> list[tuple[str, np.ndarray]]:
    """Return (name, one row or several [N, steps, ...]) for each file of music."""
    if music.pieces is not None:
        names = music.names if len(music.names) == len(music.pieces) else [mode]
        return list(zip(names, music.pieces, strict=True))
    found: list[tuple[str, np.ndarray]] = []
    for number, (name, row) in enumerate(zip(music.names, music.tokens, strict=True)):
        found.append((name, row))
        if music.inputs is not None:
            found.append((f"{name}_after_input", np.stack([music.inputs[number], row])))
    joined = mode == "sample" and 1 < len(music.tokens) <= MOST_JOINED
    if joined or mode in ("interpolate", "attribute"):
        found.append((f"{mode}_all", music.tokens))
    return found


def _write_music(
    format_name: str, path: pathlib.Path, rows: np.ndarray, task: Task, options: Options
) -> None:
    """Write one row, or several with rests between them, in one format."""
    sound: dict[str, Any] = {"qpm": options.tempo, "program": options.program}
    if format_name == "midi":
        files.write_midi(path, rows, task.name, held=options.note_length == "held", **sound)
    elif format_name == "musicxml":
        files.write_musicxml(path, rows, task.name, **sound)
    elif format_name == "svg":
        files.write_score_svg(path, rows, task.name, **sound)
    else:
        files.write_wav(
            path, rows, task.name, soundfont=options.soundfont, loop=options.loop, **sound
        )


def _write_arrays(path: pathlib.Path, music: Music) -> pathlib.Path:
    """Write tokens, z and inputs to one file, whole or not at all."""
    arrays: dict[str, Any] = {"tokens": music.tokens}
    if music.z.size:
        arrays["z"] = music.z
    if music.inputs is not None:
        arrays["inputs"] = music.inputs
    write_arrays(path, arrays)
    return path


def _draw(path: pathlib.Path, music: Music, task: Task, options: Options) -> None:
    """Draw all rows; each reconstruction beside its input, each input before what is made of it."""
    rows, titles = music.tokens, music.titles
    if music.pieces is not None:
        rows = music.pieces
        titles = titles if len(titles) == len(rows) else [f"{len(titles)} windows"]
    elif music.inputs is not None:
        pairs = np.stack([music.inputs, music.tokens], axis=1)
        rows = pairs.reshape(-1, *task.row_shape)
        titles = [text for n, title in enumerate(titles, 1) for text in (f"input {n}", title)]
    elif music.sources is not None:
        num = len(music.sources)
        names = [f"input {n}" if num > 1 else "input" for n in range(1, num + 1)]
        made = rows.reshape(num, -1, *task.row_shape)
        rows = np.concatenate([music.sources[:, None], made], axis=1).reshape(-1, *task.row_shape)
        each = len(titles) // num
        titles = [t for n in range(num) for t in (names[n], *titles[n * each : (n + 1) * each])]
    files.piano_roll_png(path, rows, task.name, titles, columns=music.columns, qpm=options.tempo)

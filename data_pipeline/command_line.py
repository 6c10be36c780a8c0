"""How a user types our commands, for messages that name the next one."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import sys
from collections.abc import Sequence

PROGRAM = "musicvae"  # the console command


def shell_line(module: str, arguments: Sequence[str] = ()) -> str:
    """Return the line that runs one of our commands here, quoted for a shell.

    It starts as this process was started: with `musicvae NAME`, or with `PYTHON -m MODULE`.

    Args:
      module: module of the command, for example "experiments.train".
      arguments: its flags, unquoted.
    """
    return shlex.join([*program(module), *arguments])


def program(module: str) -> list[str]:
    """Return the words that start one of our commands, as a user would type them here."""
    script = sys.orig_argv[1] if len(sys.orig_argv) > 1 else ""
    if pathlib.Path(script).name == PROGRAM:
        return [_as_typed(script), module.rpartition(".")[2]]
    return [_as_typed(sys.executable), "-m", module]


def _as_typed(path: str) -> str:
    """Shorten an executable's path to its name if that is found, or relative to this folder."""
    absolute = os.path.abspath(path)
    names = (os.path.basename(path), *(("python", "python3") if path == sys.executable else ()))
    for name in sorted(names, key=len):
        found = shutil.which(name)
        if found and os.path.abspath(found) == absolute:
            return name
    if pathlib.Path(absolute).is_relative_to(pathlib.Path.cwd()):
        return os.path.relpath(absolute)
    return absolute

"""MusicVAE: music files to tokens, training, evaluation and music from the latent space.

Usage:
  musicvae COMMAND --flag=value ...
  musicvae COMMAND --help

`musicvae train ...` equals `python -m experiments.train ...`, and so on, but also works in a
folder that contains a folder `experiments` of its own.
"""

from __future__ import annotations

import ast
import difflib
import os
import pathlib
import runpy
import sys

from data_pipeline.command_line import PROGRAM

ROOT = pathlib.Path(__file__).resolve().parents[2]


def commands() -> dict[str, str]:
    """Return the module of every sub-command by its name."""
    folder = ROOT / "experiments"
    packages = [path.parent.name for path in folder.glob("*/__main__.py")]
    names = sorted([path.stem for path in folder.glob("[!_]*.py")] + packages)
    pipeline = {name: f"data_pipeline.{name}" for name in ("prepare", "prepare_audio")}
    return pipeline | {name: f"experiments.{name}" for name in names}


def usage() -> str:
    """Return what `musicvae --help` prints: each command with the first line of its docstring."""
    found = commands()
    width = max(map(len, found))
    lines = []
    for name, module in found.items():
        path = ROOT / module.replace(".", "/")
        file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        source = file.read_text(encoding="utf-8")
        first_line = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
        lines.append(f"  {name:{width}}  {first_line}")
    return "\n".join([(__doc__ or "").strip(), "", "Commands:", *lines])


def main() -> None:
    """Run the command that the first argument names, as `python -m` would."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "-help", "help"):
        print(usage())
        return
    found = commands()
    if name not in found:
        close = difflib.get_close_matches(name, found, n=1)
        hint = f"did you mean {close[0]}?" if close else f"`{PROGRAM} --help` lists the commands"
        print(f"error: there is no command {name!r}: {hint}", file=sys.stderr)
        sys.exit(2)
    # Commands start further processes with `python -m`, which would search this folder first.
    os.environ["PYTHONSAFEPATH"] = "1"
    del sys.argv[1]
    runpy.run_module(found[name], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

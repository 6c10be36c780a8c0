"""Training presets: the flagfiles that come with the package, and what their headers say."""

from __future__ import annotations

import difflib
import pathlib
import re

from musicvae_jax.config import InputError
from musicvae_jax.tasks import get_task

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "flagfiles"
# What a header says in a line "# NAME: text".
FIELDS = ("Size", "Memory", "Two CPU cores", "GPU")


def names() -> list[str]:
    """List the presets: the demo's first, then by name."""
    return sorted((path.stem for path in FOLDER.glob("*.flags")), key=lambda n: (n != "demo", n))


def path_of(name: str) -> pathlib.Path:
    """Return the flagfile of a preset.

    Raises:
      InputError: there is no such preset.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"it must be one of {', '.join(names())}"
        raise InputError(f"preset: there is no {name!r}; {hint}")
    return FOLDER / f"{name}.flags"


def header(name: str) -> dict[str, str]:
    """Return the `FIELDS` of a preset's header.

    Raises:
      InputError: there is no such preset.
    """
    lines = path_of(name).read_text(encoding="utf-8").split("\n\n")[0]
    text = lines.replace("\n#   ", " ")
    found = dict(re.findall(r"^# ([\w ]+): (.*?)\.?$", text, re.MULTILINE))
    return {field: found[field] for field in FIELDS}


def quick_preset(task_name: str) -> str | None:
    """Return a preset whose header gives two CPU cores minutes, None if there is none.

    It has the task and the task's own architecture.
    """
    wanted = [
        f"--task={task_name}",
        f"--architecture={get_task(task_name).config.model.architecture}",
    ]
    for name in names():
        lines = path_of(name).read_text(encoding="utf-8").splitlines()
        if set(wanted) <= set(lines) and "minutes" in header(name)["Two CPU cores"]:
            return name
    return None

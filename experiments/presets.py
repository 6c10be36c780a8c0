"""List the training presets: task, size, and the time that training takes.

Example:
  python -m experiments.presets --task=mel_2bar

Each is a flagfile of this package; `experiments.train --preset=NAME` trains with it, and flags on
the command line replace its settings.
"""

from __future__ import annotations

import dataclasses

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.cli import config_flags, presets
from musicvae_jax.tasks import get_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which presets to list."""

    task: str | None = option(None, help="Only the presets of this task.")


def table(task_name: str | None = None) -> str:
    """Return a line for each preset, of one task or of all, from the headers of the flagfiles."""
    heads = (field if field.isupper() else field[0].lower() + field[1:] for field in presets.FIELDS)
    rows = [("preset", "task", *heads)]
    for name in presets.names():
        task = config_flags.config_from_flagfile(presets.path_of(name)).task
        if task_name in (None, task):
            # What is in parentheses says how it is known.
            about = (text.split(" (")[0] for text in presets.header(name).values())
            rows.append((name, task, *about))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def main(options: Options) -> None:
    """Print the presets."""
    if options.task is not None:
        get_task(options.task)
    print(table(options.task))
    print(f"The headers of the files in {presets.FOLDER} say what was measured or estimated.")


if __name__ == "__main__":
    cli.run(main, Options)

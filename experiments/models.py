"""List the trained models of this package: task, size and test scores.

Example:
  python -m experiments.models

`--model=NAME` uses one in place of a run folder, and `MusicVAE.from_pretrained` loads it in Python.
The card of a model, NAME.md beside its file, has its data, licences and all scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_pipeline import cli
from musicvae_jax.interop import safetensors_file
from musicvae_jax.pretrained import packaged

COLUMNS = ("model", "task", "parameters", "MB", "teacher forced", "greedy", "sampled")


def table() -> str:
    """Return a line for each model, from the headers of the files."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for name in packaged.names():
        path = packaged.path_of(name)
        about = safetensors_file.read(path).about
        rows.append(
            (
                name,
                about["task"],
                f"{about['parameters']:,}",
                f"{path.stat().st_size / 1e6:.1f}",
                *(
                    f"{about['accuracy'][kind]:.3f}"
                    for kind in ("teacher_forced", "greedy", "sampled")
                ),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Print the models."""
    del argv
    print(table())
    print(f"Accuracy on the test songs. Cards: {packaged.FOLDER}/NAME.md")


if __name__ == "__main__":
    cli.run(main)

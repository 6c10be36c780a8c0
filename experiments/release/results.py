"""Write the table of all models of the package, docs/results.md, from the headers of their files.

python -m experiments.release.results
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.release import card
from musicvae_jax.interop import safetensors_file
from musicvae_jax.pretrained import packaged
from musicvae_jax.storage import run_folder

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "results.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Where to write."""

    output: str = option(str(DOCUMENT), help="File to write.")


def document() -> str:
    """Return the page."""
    found = {name: safetensors_file.read(packaged.path_of(name)).about for name in packaged.names()}
    parts = [
        "# Results of the packaged models",
        card.paragraph(
            "Made by `python -m experiments.release.results` from the headers of the models'",
            "files; `experiments.release.publish` computed the scores with the functions of",
            "`evaluate`, `analyze` and `attributes`. One training run each. The cards have data,",
            "licences, attribute matrices and samples.",
        ),
        "## Models",
        card.table(
            ("model", "architecture", "parameters", "minutes of training", "train rows"),
            [_model(name, about) for name, about in found.items()],
        ),
        "## Reconstruction",
        card.table(
            ("model", *card.HEADER),
            [[name, *line] for name, about in found.items() for line in _lines(about)],
        ),
        card.paragraph(
            "Scores over all tracks. `test`: test songs of the model's own data; other rows are of",
            "songs that it was not trained on, too. `nearest training row`: the training row with",
            "the most equal tokens, taken as the reconstruction of a test row. `no event` and",
            "`unigram` are the accuracies of these baselines.",
        ),
        "## Samples",
        card.table(
            ("model", "family", "samples with real", "real with real", "ratio"),
            [line for name, about in found.items() for line in _overlap(name, about)],
        ),
        card.paragraph(
            "Mean overlap of the distributions of each family of measures: samples of the fitted",
            "prior, and test rows.",
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _model(name: str, about: dict[str, Any]) -> list[str]:
    return [
        f"[{name}](../musicvae_jax/pretrained/{name}.md)",
        about["architecture"],
        f"{about['parameters']:,}",
        f"{about['minutes']}",
        f"{about['data']['counts']['train']:,}",
    ]


def _lines(about: dict[str, Any]) -> list[list[str]]:
    """Return the lines of a model: each set of rows, then the nearest training row."""
    lines = [card.table_line(name, scores) for name, scores in about["splits"].items()]
    return [*lines, card.nearest_line(about["splits"]["test"])]


def _overlap(name: str, about: dict[str, Any]) -> list[list[str]]:
    """Return a line for each family of measures."""
    return [
        [name, family, *(f"{one[key]:.3f}" for key in ("samples", "real", "ratio"))]
        for family, one in about["quality"]["overlap"].items()
    ]


def main(options: Options) -> None:
    """Write the page and name it."""
    run_folder.write_text(pathlib.Path(options.output), document())
    print(options.output)


if __name__ == "__main__":
    cli.run(main, Options)

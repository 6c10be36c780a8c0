"""Write docs/results.md: the models of the package, decoders and initialisations for 16 bars.

python -m experiments.release.results

The models' numbers come from the headers of their files, the others from two results files of
`experiments.benchmarks.hierarchy`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import hierarchy_tables
from experiments.benchmarks.support.tables import as_markdown
from experiments.release import card
from musicvae_jax.interop import safetensors_file
from musicvae_jax.pretrained import packaged
from musicvae_jax.storage import run_folder

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "results.md"
BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
HIERARCHY, STARTS = BENCHMARKS / "hierarchy.json", BENCHMARKS / "starts.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Where to write."""

    output: str = option(str(DOCUMENT), help="File to write.")


def document() -> str:
    """Return the page."""
    found = {name: safetensors_file.read(packaged.path_of(name)).about for name in packaged.names()}
    parts = [
        "# Results",
        card.paragraph(
            "Made by `python -m experiments.release.results`. The numbers of the packaged models",
            "come from the headers of their files; `experiments.release.publish` computed them",
            "with the functions of `evaluate`, `analyze` and `attributes`. One training run each.",
            "The cards have data, licences, attribute matrices and samples.",
        ),
        "## Packaged models",
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
            ("model", "temperature", "family", "samples with real", "real with real", "ratio"),
            [line for name, about in found.items() for line in _overlap(name, about)],
        ),
        card.paragraph(
            "Mean overlap of the distributions of each family of measures: samples of the fitted",
            "prior, and test rows.",
        ),
    ]
    parts += sixteen_bars(json.loads(HIERARCHY.read_text()))
    parts += both_starts(json.loads(STARTS.read_text()))
    return "\n\n".join(parts) + "\n"


def sixteen_bars(found: dict[str, Any]) -> list[str]:
    """Return the section on flat and hierarchical decoders, from a results file of `hierarchy`."""
    groups = hierarchy_tables.by_series(found["trainings"])
    return [
        "## Sixteen bars: flat and hierarchical decoders",
        card.paragraph(
            "Trained by `python -m experiments.benchmarks.hierarchy` with equal numbers of",
            "parameters (3% at most), and scored on test rows twice, after equal minutes of",
            "processor time and after equal numbers of examples. `hierdec` and `flat` start with",
            "the default initialisation; `reference start` is that of the original",
            "implementation. Sampled: z is drawn from the posterior of the test row and every step",
            "at temperature 1. Where there are several seeds, the range follows the mean, and the",
            "band in the first picture is as wide as the range.",
            "Trainings of this length are far from converged.",
            "[hierarchy.txt](../experiments/benchmarks/hierarchy.txt) has every training.",
        ),
        _settings(found),
        as_markdown(hierarchy_tables.paper_table(groups)),
        "![Sampled accuracy of each bar](pictures/hierarchy_by_bar.svg)",
        as_markdown(hierarchy_tables.by_bar_table(groups), 3),
        as_markdown(hierarchy_tables.overlap_table(groups), 3),
        card.paragraph(
            "Overlap: test rows with samples of a prior that was fitted to up to",
            f"{hierarchy_tables.PRIOR_ROWS:,} training rows, by family of measures.",
        ),
        "![Validation loss over minutes](pictures/hierarchy_curves.svg)",
    ]


def both_starts(found: dict[str, Any]) -> list[str]:
    """Return the section on the default and the reference's start, from a file of `hierarchy`."""
    groups = hierarchy_tables.by_series(found["trainings"])
    return [
        "## Sixteen bars: the default start and the reference's",
        card.paragraph(
            "Hierarchical models, trained and scored as above, with Muon, the default optimiser of",
            "these tasks. They differ in the initial parameters alone. Means over seeds after",
            "equal minutes of processor time, with their range.",
            "[starts.txt](../experiments/benchmarks/starts.txt) has every training.",
        ),
        _settings(found),
        as_markdown(hierarchy_tables.series_table(groups)),
        "![Validation loss over minutes, from both starts](pictures/starts_curves.svg)",
    ]


def _settings(found: dict[str, Any]) -> str:
    """List what all trainings of each task have in common."""
    lines = hierarchy_tables.settings(found).items()
    return "\n".join(f"- `{task}`: {line}" for task, line in lines)


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
    quality = about["quality"]
    return [
        [
            name,
            f"{quality['temperature']:g}",
            family,
            *(f"{one[key]:.3f}" for key in ("samples", "real", "ratio")),
        ]
        for family, one in quality["overlap"].items()
    ]


def main(options: Options) -> None:
    """Write the page and name it."""
    run_folder.write_text(pathlib.Path(options.output), document())
    print(options.output)


if __name__ == "__main__":
    cli.run(main, Options)

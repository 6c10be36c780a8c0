"""The card of a model: what it is, what it was trained on, and all its scores, as Markdown."""

from __future__ import annotations

import hashlib
import math
import pathlib
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.release.scores import KINDS
from experiments.release.sources import Source, source_of
from musicvae_jax.tasks import get_task

HEADER = (
    "rows", "examples", "teacher forced", "greedy", "sampled", "note starts, greedy",
    "onset F1, greedy", "ELBO, nats", "KL, bits", "no event", "unigram",
)  # fmt: skip


def text(name: str, about: dict[str, Any], path: pathlib.Path) -> str:
    """Write the card of the model in a file, from the facts in its header."""
    parts = [
        f"# {name}",
        introduction(name, about),
        "## Reconstruction",
        reconstruction(about),
        "## Samples",
        samples(name, about),
        "## Attributes",
        attributes(about),
        "## What it is bad at",
        weaknesses(about),
        "## Data and licences",
        data_and_licences(about),
        "## Training",
        training(about, path),
    ]
    return "\n\n".join(parts) + "\n"


def introduction(name: str, about: dict[str, Any]) -> str:
    """Say what the model is and how to use it."""
    task = get_task(about["task"])
    tracks = ", ".join(track.name for track in task.tracks)
    what = paragraph(
        f"{task.num_bars} bars of {tracks}: a `{about['architecture']}` MusicVAE of",
        f"{about['parameters'] / 1e6:.2f} million parameters, stored as float16 with the prior",
        "fitted to its training rows and its attribute vectors.",
    )
    same = paragraph(
        f'In Python: `MusicVAE.from_pretrained("{name}")`. Greedy reconstructions of test rows',
        f"agree with those of the float32 weights in {about['float16_equal_steps']:.2%} of steps.",
    )
    command = f"musicvae generate --model={name} --mode=sample --format=midi,wav,png --output=music"
    return f"{what}\n\n```\n{command}\n```\n\n{same}"


def reconstruction(about: dict[str, Any]) -> str:
    """Tabulate the scores of each set of rows, and of the nearest training row."""
    lines = [table_line(name, scores) for name, scores in about["splits"].items()]
    lines.append(nearest_line(about["splits"]["test"]))
    note = paragraph(
        "Accuracy is the share of equal tokens, over all tracks. Teacher forced and greedy decode",
        "the posterior's mean; sampled, ELBO and KL use a draw from the posterior. `musicvae",
        "evaluate` prints the same. `test`: the test songs of its own data; other rows are of",
        "songs that it was not trained on, too. The nearest training row is the one with the most",
        "equal tokens, taken as the reconstruction.",
    )
    return f"{table(HEADER, lines)}\n\n{note}"


def table_line(name: str, scores: dict[str, Any]) -> list[str]:
    """Write the scores of one set of rows in the columns of `HEADER`."""
    accuracy = scores["accuracy"]
    return [
        name,
        f"{scores['examples']:,}",
        *(f"{accuracy[kind]:.3f}" for kind in ("teacher_forced", "greedy", "sampled")),
        f"{scores['onset_accuracy']['greedy']:.3f}",
        f"{scores['f1']['greedy']:.3f}",
        f"{scores['elbo_nats']:.1f}",
        f"{scores['kl_bits']:.1f}",
        f"{scores['no_event']:.3f}",
        f"{scores['unigram']:.3f}",
    ]


def nearest_line(scores: dict[str, Any]) -> list[str]:
    """Write the scores of the nearest training row in the columns of `HEADER`."""
    near = scores["nearest_row"]
    values = [f"{near[name]:.3f}" for name in ("accuracy", "onset_accuracy", "f1")]
    return [
        "nearest training row",
        f"{near['examples']:,}",
        "",
        values[0],
        "",
        *values[1:],
        *[""] * 4,
    ]


def samples(name: str, about: dict[str, Any]) -> str:
    """Tabulate how close samples are to held-out rows, and show five."""
    found = about["quality"]
    overlap = [
        [family, f"{one['samples']:.3f}", f"{one['real']:.3f}", f"{one['ratio']:.3f}"]
        for family, one in found["overlap"].items()
    ]
    originality = [
        [measure, number(means["samples"]), number(means["real"])]
        for measure, means in found["originality"].items()
    ]
    what = paragraph(
        f"{found['samples']:,} samples from the fitted prior at temperature",
        f"{found['temperature']:g} against test rows (`musicvae analyze`): mean overlap of the",
        "distributions of each family of measures, 1 for equal ones.",
    )
    pieces = [f"[MIDI {seed}](../../docs/samples/{name}_{seed}.mid)" for seed in range(5)]
    five = paragraph(
        "Five samples, of the seeds 0 to 4, as `--mode=sample --num=1 --seed=SEED` makes them:",
        ", ".join(pieces) + ".",
    )
    return "\n\n".join(
        [
            what,
            table(("family", "samples with real", "real with real", "ratio"), overlap),
            "How much of them is in the training rows:",
            table(("originality", "samples", "test rows"), originality),
            five,
            f"![Five samples](../../docs/samples/{name}.png)",
        ]
    )


def attributes(about: dict[str, Any]) -> str:
    """Tabulate what each attribute vector changes when it is added."""
    found = about["changes"]
    names, percent = found["names"], found["percent"]["added"]
    lines = [
        [f"+ {name}", *(f"{value:+.0f}" if math.isfinite(value) else "-" for value in row)]
        for name, row in zip(names, percent, strict=True)
    ]
    hits = [
        f"{sum(largest)} of {len(names)} rows when {sign}"
        for sign, largest in found["largest_on_diagonal"].items()
    ]
    what = paragraph(
        f"Change of each attribute, in per cent, when a vector is added to {found['samples']}",
        "samples (`musicvae attributes`). The vector's own attribute changes most in",
        " and ".join(hits) + ".",
    )
    return f"{what}\n\n{table(('vector', *names), lines)}"


def weaknesses(about: dict[str, Any]) -> str:
    """List what the scores say against the model."""
    accuracy = about["splits"]["test"]["accuracy"]
    forced, greedy, sampled = (accuracy[kind] for kind in KINDS)
    family, worst = min(about["quality"]["overlap"].items(), key=lambda pair: pair[1]["ratio"])
    found = [
        f"Without the true tokens before each step, accuracy falls by {forced - greedy:.3f} "
        f"(greedy) and {forced - sampled:.3f} (sampled).",
        f"Samples differ from real rows most in {family}: {worst['ratio']:.3f} of the overlap of "
        "real rows with each other.",
    ]
    for name, scores in about["splits"].items():
        if name != "test":
            found.append(
                f"On the rows of {name}, greedy accuracy is "
                f"{scores['accuracy']['greedy']:.3f} (test songs {greedy:.3f})."
            )
    matrix = about["changes"]
    for sign, hits in matrix["largest_on_diagonal"].items():
        missed = [name for name, hit in zip(matrix["names"], hits, strict=True) if not hit]
        if missed:
            found.append(f"Vectors that change another attribute more when {sign}: "
                         f"{', '.join(missed)}.")  # fmt: skip
    return "\n".join(f"- {line}" for line in found)


def data_and_licences(about: dict[str, Any]) -> str:
    """Tabulate the sources, and say how to make the store again."""
    lines = [
        [entry["name"], f"{entry['files']:,}", *source_of(entry)]
        for entry in about["data"]["sources"]
    ]
    counts = [f"{count:,} {split}" for split, count in about["data"]["counts"].items()]
    note = paragraph(
        f"Rows: {', '.join(counts)}; split by song, duplicates removed. Not every file has rows of",
        "this task. docs/data.md says how to make the store again with the published split.",
    )
    return f"{table(('source', 'files', *Source._fields), lines)}\n\n{note}"


def training(about: dict[str, Any], path: pathlib.Path) -> str:
    """Say how the model was trained, how long it took, and give the hashes."""
    hashes = [f"{digest}  {name}" for name, digest in about["data"]["sha256"].items()]
    hashes.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    commit = f" (commit {about['commit'][:12]})" if about["commit"] else ""
    return (
        f"{about['minutes']} minutes of training steps on {about['cores']} shared CPU cores, seed "
        f"{about['seed']}; step {about['step']:,} of the last command{commit}:\n\n"
        f"```\n{about['command']}\n```\n\nSHA-256:\n\n```\n" + "\n".join(hashes) + "\n```"
    )


def paragraph(*parts: str) -> str:
    """Join the parts of a paragraph and wrap its lines."""
    return textwrap.fill(" ".join(parts), 100, break_long_words=False, break_on_hyphens=False)


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; all columns but the first are aligned to the right."""
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def number(value: float) -> str:
    """Write a number; "-" if it is not finite."""
    return f"{value:.3f}" if math.isfinite(value) else "-"

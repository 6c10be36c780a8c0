"""An analysis as one self-contained page, `analysis.html`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from data_pipeline.reporting import markup, plots
from data_pipeline.reporting.charts import bars, piano_roll
from experiments.analysis.material import PROBE_AMOUNT, SAMPLES, Latents, Material
from musicvae_jax.analysis import comparison, structure
from musicvae_jax.analysis.comparison import Interval
from musicvae_jax.analysis.sets import REAL, Analysis, Finding

_SHOWN_ROWS = 6
_SHOWN_LONG_ROWS = 3
_NEAREST = 2
_ABOUT = """
Each measure is a distribution over all rows of a set. Two distributions have an overlap: 1 when
they are equal, 0 when they share nothing. Finite sets never reach 1, so every distance is taken
between sets of {size:,} rows, and the grey band is what two such sets of real rows have among
themselves (95% of {draws} draws of two halves, drawn in blocks of neighbouring rows). A set whose
value lies in the band is as close to real rows as real rows are. Values are medians of the draws.
""".strip()
_TITLES = {
    "rhythm": "Rhythm",
    "melody": "Melody",
    "structure": "Structure: which bars are alike",
    "originality": "Originality: what is in the training rows, up to transposition",
}


def html(
    about: dict[str, Any], material: Material, analysis: Analysis, latents: Latents, summary: str
) -> str:
    """Write the page: equal numbers give equal text."""
    head = [
        f"<h1>How good is what it makes: {about['task']}</h1>",
        f"<p>{_ABOUT.format(size=analysis.rows_per_side, draws=about['draws'])}</p>",
        f"<pre>{markup.escaped(summary)}</pre>",
        plots.legend([REAL, *analysis.weights]),
    ]
    parts = [*head, _rolls(material)]
    for family, title in _TITLES.items():
        findings = [one for one in analysis.findings if one.family == family]
        if findings:
            parts += [f"<h2>{title}</h2>", _family(findings)]
        if family == structure.FAMILY and findings:
            parts.append(_similarities(material))
        if family == "originality":
            parts.append(_nearest(material, analysis))
    parts.append(_latent(latents))
    return markup.document(f"Analysis: {about['task']}", "\n".join(parts))


def _rolls(material: Material) -> str:
    """Draw some rows of each set; reconstructions are of the held-out rows above them."""
    num_bars = material.task.num_bars
    shown, width = (_SHOWN_LONG_ROWS, 1000.0) if num_bars > 4 else (_SHOWN_ROWS, 350.0)
    rows = {REAL: material.real, **material.others}
    parts = ["<h2>Some rows</h2>"]
    for name, some in rows.items():
        places = np.linspace(0, len(some.tokens) - 1, shown).round().astype(int)
        rolls = [
            f"<figure>{piano_roll(some.tokens[i], material.task, width=width)}</figure>"
            for i in places
        ]
        parts.append(f'<h3>{name}</h3><div class="grid">{"".join(rolls)}</div>')
    return "\n".join(parts)


def _family(findings: list[Finding]) -> str:
    """Draw the overlaps of a family, then each distribution with its numbers."""
    tracks = {one.track for one in findings}
    overlaps = {
        _title(one, tracks): {
            REAL: one.compared.real["overlap"],
            **{name: found["overlap"] for name, found in one.compared.others.items()},
        }
        for one in findings
    }
    values = [low for sets in overlaps.values() for _, low, _ in sets.values()]
    least = min([value for value in values if math.isfinite(value)], default=0.0)
    drawn = plots.intervals(overlaps, "overlap with real rows", low=math.floor(10 * least) / 10)
    parts = [markup.figure(drawn, "overlap with real rows, by measure; grey: real with real")]
    parts.append('<div class="grid">')
    for one in findings:
        title = _title(one, tracks)
        picture = _distribution(one, title)
        means = ", ".join(f"{name} {value:.3g}" for name, value in one.means.items())
        caption = f"{title}{'; mean: ' + means if means else ''}"
        parts.append(
            f'<figure style="max-width:350px">{picture}<figcaption>'
            f"{markup.escaped(caption)}<br>{_verdict(one)}"
            "</figcaption></figure>"
        )
    return "\n".join([*parts, "</div>"])


def _distribution(finding: Finding, title: str) -> str:
    """Draw the distributions of a measure, without the empty bins at its end."""
    held = np.flatnonzero(np.sum(list(finding.shares.values()), axis=0))
    end = max(int(held.max(initial=0)) + 1, min(4, len(finding.labels)))
    shares = {name: values[:end] for name, values in finding.shares.items()}
    return plots.distributions(shares, title, finding.labels[:end])


def _title(finding: Finding, tracks: set[str]) -> str:
    """Name a measure; with its track where there are several."""
    return f"{finding.track}: {finding.name}" if len(tracks) > 1 else finding.name


def _verdict(finding: Finding) -> str:
    """Say of each set whether it is as close as real rows are, with the numbers."""
    parts = []
    for name, found in finding.compared.others.items():
        close = comparison.is_as_close(finding.compared, name)
        style, word = {
            True: ("good", "as close as real"),
            False: ("far", "further than real"),
            None: ("muted", "too rare to say"),
        }[close]
        numbers = f"overlap {_number(found['overlap'])}, KL {_number(found['kl_nats'])} nats"
        parts.append(f'{name}: <span class="{style}">{word}</span>, {numbers}')
    real = finding.compared.real
    parts.append(f"real: overlap {_number(real['overlap'])}, KL {_number(real['kl_nats'])} nats")
    return "<br>".join(parts)


def _number(value: Interval) -> str:
    """Write a value with its interval."""
    if not math.isfinite(value.value):
        return "-"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _similarities(material: Material) -> str:
    """Draw the mean bar self-similarity of each set on one scale."""
    rows = {REAL: material.real, **material.others}
    found = {
        name: structure.mean_similarity(some.tokens, material.task) for name, some in rows.items()
    }
    apart = ~np.eye(material.task.num_bars, dtype=bool)
    low = min(float(values[apart].min()) for values in found.values())
    high = max(float(values[apart].max()) for values in found.values())
    drawn = [
        markup.figure(plots.matrix(values, name, low=low, high=high), name)
        for name, values in found.items()
    ]
    words = f"mean similarity of bars, from {low:.2f} (pale) to {high:.2f} (dark)"
    return f'<h3>{words}</h3><div class="grid">{"".join(drawn)}</div>'


def _nearest(material: Material, analysis: Analysis) -> str:
    """Draw the samples that are nearest to the training rows, beside those."""
    near = analysis.nearest.get(SAMPLES)
    if near is None:
        return ""
    width = 1000.0 if material.task.num_bars > 4 else 350.0
    samples = material.others[SAMPLES].tokens
    # What has nothing in it is near to anything that has little.
    events = (samples.reshape(len(samples), -1) != 0).sum(axis=1)
    order = np.lexsort((-events, near.distance.round(6)))[:_NEAREST]
    parts = ["<h3>the samples nearest to a training row, and that row</h3>"]
    for i in order.tolist():
        pair = (samples[i], material.train[near.row[i]])
        words = (f"sample {i + 1}, {near.distance[i]:.1%} of its steps differ", "training row")
        drawn = [
            markup.figure(piano_roll(row, material.task, width=width), caption)
            for row, caption in zip(pair, words, strict=True)
        ]
        parts.append(f'<div class="grid">{"".join(drawn)}</div>')
    return "\n".join(parts)


def _latent(latents: Latents) -> str:
    """Draw units, what they change, the map, and the tables of distances."""
    bits = np.sort(latents.units.kl_nats)[::-1] / math.log(2)
    order = np.argsort(-latents.effects, kind="stable")
    effects = {
        f"unit {latents.probed[i]}": round(float(1000 * latents.effects[i])) for i in order[:16]
    }
    many = plots.lines(
        np.arange(1, len(bits) + 1),
        {"bits per row": plots.Line(bits)},
        "KL by unit",
        ("units, by what they carry", ""),
    )
    density = plots.points(latents.places, latents.density, "map", "onsets per bar")
    share = ", ".join(f"{part:.1%}" for part in latents.variance_share)
    ends = f"between -{PROBE_AMOUNT:g} and {PROBE_AMOUNT:g}"
    pictures = [
        markup.figure(many, f"KL of each unit; {latents.active_units} of {len(bits)} are active"),
        markup.figure(
            bars(effects, "effects of units", width=420),
            f"steps of 1,000 that a unit changes {ends}, the rest drawn from the prior",
        ),
        markup.figure(
            density, f"held-out rows on two principal components ({share} of the variance)"
        ),
    ]
    prior = [
        [f"{distance} from the prior", _number(v["posterior"]), _number(v["prior"])]
        for distance, v in latents.against_prior.items()
    ]
    names = list(latents.compared.others)
    encoded = [
        [distance, _number(real), *(_number(latents.compared.others[n][distance]) for n in names)]
        for distance, real in latents.compared.real.items()
    ]
    return "\n".join(
        [
            "<h2>Latent space</h2>",
            f'<div class="grid">{"".join(pictures)}</div>',
            "<h3>Draws of the posteriors of held-out rows, beside draws of the prior</h3>",
            markup.table(["", "aggregate posterior", "as many draws of the prior"], prior),
            "<h3>Encoded rows beside encoded held-out rows</h3>",
            markup.table(["", "real with real", *names], encoded),
        ]
    )

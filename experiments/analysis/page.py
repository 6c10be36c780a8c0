"""An analysis as one self-contained page, `analysis.html`."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np

from data_pipeline.render.pictures import piano_roll_svg
from data_pipeline.render.style import COLOURS
from data_pipeline.reporting import charts, html_pages
from experiments.analysis.inputs import PROBE_AMOUNT, SAMPLES, Latents, Material
from experiments.analysis.report import cell
from musicvae_jax.analysis import comparison, structure
from musicvae_jax.analysis.comparison import Interval
from musicvae_jax.analysis.sets import REAL, Analysis, Finding, Rows

_TEMPLATE = pathlib.Path(__file__).with_name("analysis.html")
_SHOWN_ROWS = 6
_SHOWN_LONG_ROWS = 3
_NEAREST = 2
_TITLES = {
    "rhythm": "Rhythm",
    "melody": "Melody",
    "structure": "Structure: which bars are alike",
    "originality": "Originality: what is in the training rows, up to transposition",
}
# The same for rows that are lists of note starts.
_OF_LISTS = {"originality": "Originality: how near the training rows are, at the same pitches"}
_VERDICTS = {
    True: ("good", "as close as real"),
    False: ("far", "further than real"),
    None: ("muted", "too rare to say"),
}
_DISTANCES = {"frechet": "Fréchet distance", "mmd": "maximum mean discrepancy"}


def html(
    about: dict[str, Any], material: Material, analysis: Analysis, latents: Latents, summary: str
) -> str:
    """Write the page: equal numbers give equal text."""
    families = {
        family: [one for one in analysis.findings if one.family == family] for family in _TITLES
    }
    sets = {REAL: material.real, **material.others}
    return html_pages.fill(
        _TEMPLATE,
        title=f"Analysis of generated rows: {about['task']}",
        about=about,
        summary=summary,
        colours=dict(zip(sets, COLOURS, strict=False)),
        rolls={name: _rolls(rows, material) for name, rows in sets.items()},
        titles=_TITLES if material.task.has_steps else _TITLES | _OF_LISTS,
        families={family: _family(found) for family, found in families.items() if found},
        similarities=_similarities(sets, material) if families[structure.FAMILY] else None,
        nearest=_nearest(material, analysis),
        latent=_latent(latents),
    )


def _roll(row: np.ndarray, material: Material) -> str:
    """Draw one row, long ones over the whole width."""
    width = 1100 if material.task.num_bars > 4 else 350
    return piano_roll_svg(row, material.task, width=width)


def _rolls(rows: Rows, material: Material) -> list[str]:
    """Draw some rows of a set, spread over it: reconstructions are of the real rows drawn."""
    shown = _SHOWN_LONG_ROWS if material.task.num_bars > 4 else _SHOWN_ROWS
    places = np.linspace(0, len(rows.tokens) - 1, shown).round().astype(int)
    return [_roll(rows.tokens[i], material) for i in places]


def _family(findings: list[Finding]) -> dict[str, Any]:
    """Draw the overlaps of a family, then each distribution with its numbers."""
    has_tracks = len({one.track for one in findings}) > 1
    titles = [f"{one.track}: {one.name}" if has_tracks else one.name for one in findings]
    overlaps = {
        title: {
            REAL: one.compared.real["overlap"],
            **{name: found["overlap"] for name, found in one.compared.others.items()},
        }
        for title, one in zip(titles, findings, strict=True)
    }
    values = [low for sets in overlaps.values() for _, low, _ in sets.values()]
    least = min([value for value in values if math.isfinite(value)], default=0.0)
    return {
        "overlaps": charts.intervals(
            overlaps, "overlap with real rows", math.floor(10 * least) / 10
        ),
        "findings": [
            {
                "title": title,
                "chart": _distribution(one, title),
                "means": ", ".join(f"{name} {value:.3g}" for name, value in one.means.items()),
                "verdicts": [
                    (name, *_VERDICTS[comparison.is_as_close(one.compared, name)], _numbers(found))
                    for name, found in one.compared.others.items()
                ],
                "real": _numbers(one.compared.real),
            }
            for title, one in zip(titles, findings, strict=True)
        ],
    }


def _distribution(finding: Finding, title: str) -> str:
    """Draw the distributions of a measure, without the empty bins at its end."""
    used = np.flatnonzero(np.sum(list(finding.shares.values()), axis=0))
    end = max(int(used.max(initial=0)) + 1, min(4, len(finding.labels)))
    shares = {name: values[:end] for name, values in finding.shares.items()}
    return charts.distributions(shares, title, finding.labels[:end])


def _numbers(found: dict[str, Interval]) -> str:
    """Write overlap and divergence."""
    return f"overlap {cell(found['overlap'])}, KL {cell(found['kl_nats'])} nats"


def _similarities(sets: dict[str, Rows], material: Material) -> dict[str, Any]:
    """Draw the mean bar self-similarity of each set on one scale."""
    found = {
        name: structure.mean_similarity(rows.tokens, material.task) for name, rows in sets.items()
    }
    apart = ~np.eye(material.task.num_bars, dtype=bool)
    low = min(float(values[apart].min()) for values in found.values())
    high = max(float(values[apart].max()) for values in found.values())
    drawn = {name: charts.matrix(values, name, low, high) for name, values in found.items()}
    return {"low": f"{low:.2f}", "high": f"{high:.2f}", "charts": drawn}


def _nearest(material: Material, analysis: Analysis) -> list[list[tuple[str, str]]]:
    """Draw the samples that are nearest to the training rows, beside those."""
    near = analysis.nearest.get(SAMPLES)
    if near is None:
        return []
    samples = material.others[SAMPLES].tokens
    # Of equally near ones those with most events: an empty row is near to every sparse one.
    events = (samples.reshape(len(samples), -1) != 0).sum(axis=1)
    order = np.lexsort((-events, near.distance.round(6)))[:_NEAREST]
    lists = not material.task.has_steps
    what = "the note starts of both are in one only" if lists else "its steps differ"
    return [
        [
            (
                _roll(samples[i], material),
                f"sample {i + 1}: {near.distance[i]:.1%} of {what}",
            ),
            (_roll(material.train[near.row[i]], material), "the training row"),
        ]
        for i in order.tolist()
    ]


def _latent(latents: Latents) -> dict[str, Any]:
    """Draw units, what they change, the map, and the tables of distances."""
    bits = np.sort(latents.units.kl_nats)[::-1] / math.log(2)
    order = np.argsort(-latents.effects, kind="stable")
    effects = {
        f"unit {latents.probed[i]}": round(float(1000 * latents.effects[i])) for i in order[:16]
    }
    line = charts.Line(np.arange(1, len(bits) + 1), bits)
    units = charts.Panel({"KL": line}, "units, the most informative first", "KL, bits per row")
    names = list(latents.compared.others)
    return {
        "units": charts.curves("KL by unit", units, width=380),
        "active": f"{latents.active_units} of {len(bits)}",
        "effects": charts.bars(effects, "effects of units", width=340),
        "amount": f"{PROBE_AMOUNT:g}",
        "map": charts.points(latents.places, latents.density, "map", "onsets per bar"),
        "variance": " and ".join(f"{part:.1%}" for part in latents.variance_share),
        "prior": [
            [_DISTANCES[distance], cell(found["posterior"]), cell(found["prior"])]
            for distance, found in latents.against_prior.items()
        ],
        "sets": names,
        "encoded": [
            [
                _DISTANCES[distance],
                cell(real),
                *(cell(latents.compared.others[name][distance]) for name in names),
            ]
            for distance, real in latents.compared.real.items()
        ],
    }

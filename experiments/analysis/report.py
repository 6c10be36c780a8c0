"""An analysis as JSON and as a short table."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from experiments.analysis.inputs import Latents
from experiments.cli.json_files import without_nan
from experiments.cli.run_options import name_prior
from musicvae_jax.analysis import comparison, sets
from musicvae_jax.analysis.sets import Analysis


def as_json(about: dict[str, Any], analysis: Analysis, latents: Latents) -> str:
    """Write all numbers."""
    findings = [
        {
            "name": finding.name,
            "family": finding.family,
            "track": finding.track,
            "bins": list(finding.labels),
            "shares": {name: share.round(6).tolist() for name, share in finding.shares.items()},
            "means": finding.means,
            "distances": _compared(finding.compared),
        }
        for finding in analysis.findings
    ]
    families = {name: _compared(compared) for name, compared in analysis.families.items()}
    space = {
        "units": len(latents.units.variance),
        "active_units": latents.active_units,
        "variance_of_mean": latents.units.variance.round(6).tolist(),
        "kl_nats": latents.units.kl_nats.round(6).tolist(),
        "probed_units": latents.probed.tolist(),
        "share_of_steps_changed": latents.effects.round(6).tolist(),
        "against_prior": {
            distance: {name: value._asdict() for name, value in values.items()}
            for distance, values in latents.against_prior.items()
        },
        "distances_of_encoded_rows": _compared(latents.compared),
        "variance_share_of_map": latents.variance_share.round(6).tolist(),
    }
    whole = about | {"families": families, "measures": findings, "latent": space}
    return json.dumps(without_nan(whole), indent=1) + "\n"


def _compared(compared: comparison.Compared) -> dict[str, Any]:
    """Write distances: {distance: {set: value and interval, and whether it holds the real one}}."""
    found: dict[str, Any] = {}
    for distance, real in compared.real.items():
        found[distance] = {sets.REAL: real._asdict()}
        for name, values in compared.others.items():
            value = values[distance]
            known = np.isfinite(value.value) and np.isfinite(real.value)
            holds = value.holds(real.value) if known else None
            found[distance][name] = {**value._asdict(), "holds_real_value": holds}
    return found


def table(about: dict[str, Any], analysis: Analysis, latents: Latents) -> str:
    """Summarise: the families of measures in two tables, then the latent space.

    No line is wider than 100 columns.
    """
    names = list(analysis.weights)
    lines = [
        f"{about['task']}, checkpoint {about['checkpoint']}, {about['samples']:,} samples from "
        f"{name_prior(about['prior'])} at temperature {about['temperature']:g}",
        f"{about['held_out_rows']:,} {about['split']} rows, {about['train_rows']:,} train rows; "
        f"distances between {analysis.rows_per_side:,} rows and {analysis.rows_per_side:,}",
        "",
        _line("mean overlap (1: equal)", "real, real", *(f"{name}, real" for name in names)),
    ]
    for family, compared in analysis.families.items():
        others = [cell(compared.others[name]["overlap"]) for name in names]
        lines.append(_line(family, cell(compared.real["overlap"]), *others))
    lines += ["", _line("measures as close as real", "", *names)]
    for family in analysis.families:
        inside = [f.compared for f in analysis.findings if f.family == family]
        close = [[comparison.is_as_close(one, name) for one in inside] for name in names]
        counts = [f"{sum(c is True for c in found)} of {sum(c is not None for c in found)}"
                  for found in close]  # fmt: skip
        lines.append(_line(family, "", *counts))
    lines += ["", _line("mean distance (0: alike)", *next(iter(about["variety"].values())))]
    for label, values in about["variety"].items():
        lines.append(_line(label, *(f"{value:.3f}" for value in values.values())))
    lines += ["", _latent_lines(latents)]
    return "\n".join(lines)


def _line(label: str, *cells: str) -> str:
    """Write a line of a table."""
    return f"{label:28}" + "".join(f" {text:>23}" for text in cells)


def _latent_lines(latents: Latents) -> str:
    """Summarise the latent space: its active units, and how far it is from the prior."""
    bits = latents.units.kl_nats.sum() / math.log(2)
    lines = [
        f"active units {latents.active_units} of {len(latents.units.variance)}, "
        f"KL {bits:.1f} bits per row",
        "",
        _line("distance from the prior", "aggregate posterior", "as many draws of it"),
    ]
    for name, values in latents.against_prior.items():
        lines.append(_line(name, cell(values["posterior"], 4), cell(values["prior"], 4)))
    return "\n".join(lines)


def cell(value: comparison.Interval, digits: int = 3) -> str:
    """Write a value and its interval; "-" if it is not finite."""
    if not math.isfinite(value.value):
        return "-"
    middle, low, high = (round(number, digits) + 0.0 for number in value)  # no minus zero
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

"""An analysis as JSON and as a short table."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from experiments.analysis.material import Latents
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
    """Summarise: a line for each family, and how many measures are as close as real rows."""
    names = list(analysis.weights)
    lines = [
        f"{about['task']}, {about['samples']:,} samples from "
        f"{name_prior(about['prior'])} at temperature {about['temperature']:g}, "
        f"{about['held_out_rows']:,} {about['split']} rows, {about['train_rows']:,} train rows, "
        f"checkpoint {about['checkpoint']}",
        f"distances between {analysis.rows_per_side:,} rows and {analysis.rows_per_side:,}",
        "",
        f"{'mean overlap (1: equal)':24}{'real, real':>22}"
        + "".join(f"{name + ', real':>30}" for name in names)
        + f"{'measures as close as real':>{10 + 16 * len(names)}}",
    ]
    for family, compared in analysis.families.items():
        cells = [cell(compared.real["overlap"])]
        cells += [f"{cell(compared.others[name]['overlap']):>30}" for name in names]
        inside = [f.compared for f in analysis.findings if f.family == family]
        close = [[comparison.is_as_close(one, name) for one in inside] for name in names]
        counts = [f"{name} {sum(c is True for c in found)} of {sum(c is not None for c in found)}"
                  for name, found in zip(names, close, strict=True)]  # fmt: skip
        lines.append(f"{family:24}{cells[0]:>22}{''.join(cells[1:])}   {', '.join(counts)}")
    lines += ["", _latent_lines(latents)]
    return "\n".join(lines)


def _latent_lines(latents: Latents) -> str:
    """Summarise the latent space in three lines."""
    prior = latents.against_prior
    return "\n".join(
        [
            f"active units            {latents.active_units} of {len(latents.units.variance)}, "
            f"KL {latents.units.kl_nats.sum() / math.log(2):.1f} bits per row",
            *(
                f"{name + ' from the prior':24}{cell(values['posterior'], 4)} for the aggregate "
                f"posterior, {cell(values['prior'], 4)} for as many draws of the prior"
                for name, values in prior.items()
            ),
        ]
    )


def cell(value: comparison.Interval, digits: int = 3) -> str:
    """Write a value and its interval; "-" if it is not finite."""
    if not math.isfinite(value.value):
        return "-"
    middle, low, high = (round(number, digits) + 0.0 for number in value)  # no minus zero
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

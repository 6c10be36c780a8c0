"""JSON files of results: written whole, with null for numbers that JSON cannot hold."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

from musicvae_jax.storage import run_folder


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all; nan and infinities become null."""
    run_folder.write_text(path, json.dumps(without_nan(value), indent=1) + "\n")


def without_nan(value: Any) -> Any:
    """Replace nan and infinities by None in dictionaries and lists of any depth."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

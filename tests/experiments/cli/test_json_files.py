from __future__ import annotations

import math
import pathlib

from experiments.cli.json_files import without_nan, write_json


def test_what_json_cannot_hold_becomes_null(tmp_path: pathlib.Path) -> None:
    value = {"a": {"b": math.nan}, "c": 1.5, "d": [(math.inf, 2)]}
    assert without_nan(value) == {"a": {"b": None}, "c": 1.5, "d": [[None, 2]]}
    write_json(tmp_path / "a.json", [math.nan])
    assert (tmp_path / "a.json").read_text() == "[\n null\n]\n"

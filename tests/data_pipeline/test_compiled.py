from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipeline.compiled import compiled


def _without_source(text: str, name: str) -> Callable[..., Any]:
    """A function that no file holds, so that there is no place for its compiled form."""
    names: dict[str, Any] = {}
    exec(text, names)
    return names[name]


def test_a_function_without_a_cache_folder_is_compiled_all_the_same() -> None:
    double = compiled(_without_source("def double(x):\n    return 2 * x", "double"))
    assert double(21) == 42
    assert len(vars(double)["overloads"]) == 1


def test_sums_are_not_reordered_and_products_not_fused() -> None:
    text = "def run(x):\n    s = 0.0\n    for v in x:\n        s = s * 1.1 + v\n    return s"
    plain = _without_source(text, "run")
    x = np.linspace(0.1, 7.3, 1001)
    assert compiled(plain)(x) == plain(x.tolist())

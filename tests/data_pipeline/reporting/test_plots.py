from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np

from data_pipeline.reporting import charts, plots
from data_pipeline.reporting.plots import COLOURS, Line
from musicvae_jax.tasks import TASKS


def shapes(drawn: str, name: str) -> list[dict[str, str]]:
    """Attributes of all elements of a kind; the picture must be well formed."""
    return [element.attrib for element in ElementTree.fromstring(drawn).iter(name)]


def test_distributions_share_one_scale() -> None:
    shares = {"real": np.array([0.2, 0.4]), "new": np.array([0.8, 0.2])}
    drawn = plots.distributions(shares, "x", ["a", "b"], height=126)
    columns = [s for s in shapes(drawn, "rect") if s["fill"] == COLOURS[0]]
    assert [float(s["height"]) for s in columns] == [26, 52]  # of 104 for 0.8
    (line,) = shapes(drawn, "polyline")
    tops = [float(corner.split(",")[1]) for corner in line["points"].split()]
    assert tops == [6, 6, 84, 84]
    assert "80%" in drawn


def test_intervals_stand_where_their_values_are() -> None:
    rows = {"m": {"real": (0.5, 0.25, 0.75), "new": (0.1, 0.0, 0.2)}}
    drawn = plots.intervals(rows, "x", width=434)  # 100 pixels from 0 to 1
    band, middle, line, dot = shapes(drawn, "rect")[6:]
    assert (float(band["x"]), float(band["width"])) == (345, 50)
    assert float(middle["x"]) == 369.2  # of four digits
    assert (float(line["x"]), float(line["width"])) == (320, 20)
    assert float(dot["x"]) == 327.5
    nothing = {"m": {"real": (float("nan"),) * 3}}
    assert len(shapes(plots.intervals(nothing, "x"), "rect")) == 6


def test_lines_have_bands_and_names() -> None:
    x = np.linspace(0, 1, 3)
    series = {"up": Line(x, np.full(3, 0.1)), "down": Line(1 - x)}
    drawn = plots.lines(x, series, "x", ("way", "cost"))
    assert len(shapes(drawn, "polyline")) == 2
    assert len(shapes(drawn, "polygon")) == 1
    first, last = re.findall(r'points="([^"]+)"', drawn)[1].split()[::2]
    assert float(first.split(",")[1]) > float(last.split(",")[1])  # down the page is less
    assert {">up<", ">down<", ">way<", ">cost<"} <= set(re.findall(r">[a-z]+<", drawn))


def test_points_and_matrices_are_shaded_by_their_values() -> None:
    drawn = plots.points(np.array([[0, 0], [1, 1]]), np.array([2.0, 4.0]), "x", "notes")
    low, high = shapes(drawn, "circle")
    assert (low["cx"], low["cy"], high["cx"], high["cy"]) == ("8", "372", "372", "8")
    assert low["fill"] == plots._shade(0.0) != high["fill"] == plots._shade(1.0)
    cells = shapes(plots.matrix(np.array([[1.0, 0.0], [0.0, 1.0]]), "x"), "rect")
    assert [c["fill"] for c in cells] == [plots._shade(v) for v in (1.0, 0.0, 0.0, 1.0)]


def test_a_roll_names_pitches_drums_bars_and_tempo() -> None:
    task = TASKS["trio_16bar"]
    row = np.zeros(task.row_shape, int)
    row[0] = (41, 17, 1)  # C4, C2 and a kick
    drawn = charts.piano_roll(row, task, qpm=96)
    words = re.findall(r">([^<>]+)<", drawn)
    assert {"C4", "C2", "kick", "ride", "16", "96 quarters per minute"} <= set(words)
    assert "quarters" not in charts.piano_roll(row, task)

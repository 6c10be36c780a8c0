"""Charts put values where they belong: the shapes of the figures are read, not their bytes."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from data_pipeline.render import style
from data_pipeline.reporting import charts
from data_pipeline.reporting.charts import Line, Panel


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Draw a chart and return the axes of its figure."""
    figures: list[Any] = []

    def svg(figure: Any, label: str) -> str:
        figures.append(figure)
        return label

    monkeypatch.setattr(style, "svg", svg)

    def drawn(draw: Callable[..., str], *given: Any, **more: Any) -> list[Any]:
        draw(*given, **more)
        return list(figures[-1].axes)

    return drawn


def test_bars_are_as_long_as_their_counts(axes: Callable[..., list[Any]]) -> None:
    counts = {"a" * 50: 1000, "b": 500, "c": 0}
    (one,) = axes(charts.bars, counts, "x")
    assert [bar.get_width() for bar in one.patches] == [1000, 500, 0]
    assert [text.get_text() for text in one.texts] == ["1,000", "500", "0"]
    names = [label.get_text() for label in one.get_yticklabels()]
    assert names == ["a" * 39 + "…", "b", "c"]
    assert one.get_ylim() == (2.5, -0.5)  # the first on top
    (none,) = axes(charts.bars, {}, "x")
    assert not none.patches


def test_columns_are_shares_of_the_counts(axes: Callable[..., list[Any]]) -> None:
    (one,) = axes(charts.histogram, np.array([4, 2, 0]), "x", {0: "low"})
    (columns,) = one.patches
    np.testing.assert_array_equal(columns.get_data().values[::2], [4 / 6, 2 / 6, 0])
    np.testing.assert_allclose(columns.get_data().edges, [-0.46, 0.46, 0.54, 1.46, 1.54, 2.46])
    assert [label.get_text() for label in one.get_xticklabels()] == ["low"]
    assert one.yaxis.get_major_formatter()(0.125) == "12.5%"


def test_distributions_share_one_scale(axes: Callable[..., list[Any]]) -> None:
    shares = {"real": np.array([0.2, 0.4]), "new": np.array([0.8, 0.2])}
    (one,) = axes(charts.distributions, shares, "x", ["a", "b"])
    columns, outline = one.patches
    np.testing.assert_array_equal(columns.get_data().values, [0.2, 0.0, 0.4])
    np.testing.assert_array_equal(outline.get_data().values, [0.8, 0.2])
    assert one.get_ylim()[0] == 0
    assert one.get_ylim()[1] >= 0.8
    many = np.full(33, 1 / 33)
    (one,) = axes(charts.distributions, {"real": many}, "x", [str(n) for n in range(33)])
    assert len(one.get_xticks()) == 9


def test_intervals_stand_where_their_values_are(axes: Callable[..., list[Any]]) -> None:
    nothing = (float("nan"),) * 3
    rows = {"m": {"real": (0.5, 0.25, 0.75), "new": (0.1, 0.0, 0.2)}, "n": {"real": nothing}}
    (one,) = axes(charts.intervals, rows, "x", 0.0)
    (band,) = one.patches
    assert (band.get_x(), band.get_width()) == (0.25, 0.5)
    middle, line, dot = (list(drawn.get_xdata()) for drawn in one.lines)
    assert (middle, line, dot) == ([0.5, 0.5], [0.0, 0.2], [0.1])
    assert [label.get_text() for label in one.get_yticklabels()] == ["m", "n"]


def test_curves_have_bands_names_and_a_legend(axes: Callable[..., list[Any]]) -> None:
    x = np.linspace(0, 1, 3)
    lines = {"up": Line(x, x, np.full(3, 0.1)), "down": Line(x, 1 - x)}
    many = {str(n): Line([0, 1], [n, n]) for n in range(9)}
    first, second = axes(charts.curves, "x", Panel(lines, "way", "cost"), Panel(many, "x", "y"))
    assert [list(line.get_ydata()) for line in first.lines] == [[0, 0.5, 1], [1, 0.5, 0]]
    assert len(first.collections) == 1
    assert (first.get_xlabel(), first.get_ylabel()) == ("way", "cost")
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["up", "down"]
    looks = {(line.get_color(), line.get_linestyle()) for line in second.lines}
    assert len(looks) == 9


def test_a_legend_of_long_names_is_inside_the_picture(axes: Callable[..., list[Any]]) -> None:
    names = [f"{space} space, to {end}" for space in ("latent", "data") for end in "AB"]
    lines = {name: Line([0, 1], [0, 1]) for name in names}
    panel = Panel(lines, "from A to B", "share of tokens that differ")
    drawn = axes(charts.curves, "x", panel, panel)
    figure = drawn[0].figure
    with style.applied():
        figure.draw_without_rendering()
    for one in drawn:
        box = one.get_legend().get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_points_are_joined_in_the_order_of_x(axes: Callable[..., list[Any]]) -> None:
    groups = {"g": {"p": (3.0, 1.0), "q": (1.0, 2.0)}}
    (one,) = axes(charts.scatter, groups, ("rate", "distortion"))
    assert [list(part) for part in one.lines[0].get_data()] == [[1, 3], [2, 1]]
    assert {text.get_text(): text.xy for text in one.texts} == groups["g"]


def test_places_and_matrices_are_coloured_by_their_values(axes: Callable[..., list[Any]]) -> None:
    one, _ = axes(charts.points, np.array([[0, 0], [1, 1]]), np.array([2.0, 4.0]), "x", "notes")
    np.testing.assert_array_equal(one.collections[0].get_array(), [2, 4])
    values = np.array([[1.0, 0.0], [0.5, 1.0]])
    (one,) = axes(charts.matrix, values, "x", 0.0, 1.0)
    np.testing.assert_array_equal(one.collections[0].get_array(), values)
    assert one.yaxis_inverted()


def test_heat_maps_write_their_numbers(axes: Callable[..., list[Any]]) -> None:
    values = np.array([[0.0, 1.0], [np.nan, 0.5]])
    (one,) = axes(charts.heat_map, values, ["a", "b"], ["c", "d"], "x", ("down", "across"))
    words = {text.get_position(): text.get_text() for text in one.texts}
    assert words == {(0, 0): "0.000", (1, 0): "1.000", (0, 1): "-", (1, 1): "0.500"}
    colours = {text.get_position(): text.get_color() for text in one.texts}
    assert (colours[0, 0], colours[1, 0]) == (style.TEXT, "white")
    assert one.get_ylim() == (1.5, -0.5)
    assert (one.get_ylabel(), one.get_xlabel()) == ("down", "across")
    (one,) = axes(charts.heat_map, np.array([[3.0, 3.0]]), [""], ["c", "d"], "x", ("", "c"))
    assert [text.get_text() for text in one.texts] == ["3", "3"]


def test_changes_in_per_cent_are_signed_and_the_greatest_of_a_row_is_framed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []

    def png(figure: Any) -> bytes:
        figures.append(figure)
        return b""

    monkeypatch.setattr(style, "png", png)
    values = np.array([[-20.0, 10.0], [np.nan, np.nan]])
    charts.percent_heatmaps_png(
        tmp_path / "a.png", {"added": values}, ["r", "s"], ["c", "d"], row_label="", column_label=""
    )
    (one,) = figures[0].axes
    assert [text.get_text() for text in one.texts] == ["-20%", "+10%", "-", "-"]
    (frame,) = one.patches
    assert (frame.get_x(), frame.get_y()) == (-0.47, -0.46)


def test_a_picture_is_small_well_formed_and_the_same_each_time() -> None:
    first, again = (charts.bars({"<a> & b": 1, "$x$": 2}, 'a "label"') for _ in range(2))
    assert first == again
    root = ElementTree.fromstring(first)
    assert root.attrib["aria-label"] == 'a "label"'
    assert {"<a> & b", "$x$"} <= set(root.itertext())
    assert "<g id=" not in first
    assert "<metadata" not in first
    assert "http" not in first.replace("http://www.w3.org/2000/svg", "")

from __future__ import annotations

import configparser
import pathlib

import jinja2
import pytest

from data_pipeline.reporting import html_pages

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_values_are_escaped_and_figures_are_not(tmp_path: pathlib.Path) -> None:
    template = tmp_path / "t.html"
    template.write_text(
        '{% extends "base.html" %}{% from "macros.html" import figure %}'
        "{% block body %}{{ figure(svg, words) }}"
        "{{ 1234|thousands }} {{ 0.5|percent }}{% endblock %}"
    )
    text = html_pages.fill(template, title="a & b", svg="<svg/>", words="<b>")
    assert "<title>a &amp; b</title>" in text
    assert "<figure>\n<svg/>\n<figcaption>&lt;b&gt;</figcaption></figure>\n1,234 50.0%" in text
    with pytest.raises(jinja2.UndefinedError, match="'words' is undefined"):
        html_pages.fill(template, title="", svg="")


@pytest.mark.parametrize("package", ["data_pipeline", "experiments"])
def test_every_template_is_installed_with_the_package(package: str) -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    patterns = parser["options.package_data"][package].split()
    installed = {path for pattern in patterns for path in (ROOT / package).glob(pattern)}
    templates = set((ROOT / package).rglob("*.html"))
    assert templates
    assert templates <= installed

"""What a docstring cites is public: a stranger can look it up."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A file of a public project, a module that pip installs, or a publication with its year.
PUBLIC = re.compile(
    r"\b(magenta|tensorflow)[/-]|\b(mido|note_seq|pretty_midi)/|\b(tf|jax)\.|\b(19|20)\d\d\b"
)


def docstrings(source: str) -> Iterator[str]:
    """List the docstrings of a module and of all in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def private_citations(source: str) -> list[str]:
    """Return the references of a module that name nothing public, and pages that do not exist."""
    found = []
    for text in docstrings(source):
        cited = re.findall(r"References?:(.*?)(?:\n\n|\Z)", text, re.DOTALL)
        found += [reference.strip() for reference in cited if not PUBLIC.search(reference)]
        pages = re.findall(r"[\w/]+\.md\b", text)
        found += [page for page in pages if page != "NAME.md" and not (ROOT / page).is_file()]
    return found


@pytest.mark.parametrize("package", ["musicvae_jax", "data_pipeline", "experiments"])
def test_what_docstrings_cite_is_public(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    found = {
        str(path.relative_to(ROOT)): private_citations(path.read_text(encoding="utf-8"))
        for path in files
    }
    assert {name: cited for name, cited in found.items() if cited} == {}


def test_a_private_citation_is_seen() -> None:
    source = '"""A.\n\nReference: model_math, "Optimiser".\n"""\n\ndef f():\n  """See notes.md."""'
    assert private_citations(source) == ['model_math, "Optimiser".', "notes.md"]
    assert (
        private_citations('"""Reference: Kingma and Ba 2015, algorithm 1; docs/data.md."""') == []
    )

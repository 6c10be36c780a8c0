"""The README's example runs, and what README and docs name exists."""

from __future__ import annotations

import pathlib
import re

import jax
import numpy as np
import pytest

from data_pipeline.reading import notes
from experiments.cli import main
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import TASKS
from tests.support.synthetic_store import write_store

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").glob("*.md"))
# Page -> the most lines it may have.
PAGES = {
    **dict.fromkeys([ROOT / "README.md", *DOCS], 200),
    ROOT / "WORKSPACE.md": 250,
    ROOT / "experiments" / "benchmarks" / "README.md": 200,
    ROOT / "experiments" / "launch" / "README.md": 100,
}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
# Options of programs other than ours.
FOREIGN_OPTIONS = {"worker", "command", "no", "logdir"}


def test_the_python_example_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert example.count("\n") <= 15
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "demo" / "tokens", "mel_2bar")
    sizes = {"z_size": 4, "encoder_sizes": (8,), "decoder_sizes": (8,)}
    config = TASKS["mel_2bar"].config.replace(**sizes)
    params = jax.jit(build_model(config).init)(jax.random.key(0))
    with Checkpoints(tmp_path / "demo" / "run", create=True) as checkpoints:
        checkpoints.save(1, params, {"count": np.zeros(1)}, config)

    found: dict[str, np.ndarray] = {}
    exec(compile(example, "README.md", "exec"), found)
    shapes = {
        "mu": (4, 4),
        "sigma": (4, 4),
        "again": (4, 32),
        "logits": (4, 32, 90),
        "new": (8, 32),
        "path": (9, 32),
        "elbo": (4,),
        "bound": (4,),
    }
    assert {name: found[name].shape for name in shapes} == shapes
    assert capsys.readouterr().out.startswith("share of equal tokens: ")
    (unit,) = notes.read_units("path.mid", (tmp_path / "path.mid").read_bytes())
    assert unit.sequence is not None


def test_the_readme_says_how_to_see_training_curves() -> None:
    assert "`tensorboard --logdir=runs`" in README


def test_the_task_table_is_complete() -> None:
    section = README.split("## Tasks\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if re.match(r"\| `\w+_\d+bar` ", line)]
    assert [line.split("`")[1] for line in rows] == list(TASKS)
    flagfiles = {path.stem for path in (ROOT / "experiments" / "flagfiles").glob("*_*bar_*.flags")}
    named = {name for line in rows for name in re.findall(r"`(\w+_\d+bar_\w+)`", line)}
    assert named == flagfiles


@each_page
def test_pages_are_short(page: pathlib.Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= PAGES[page]


def test_the_readme_links_every_page_of_docs() -> None:
    assert len(DOCS) >= 5
    assert [page.name for page in DOCS if f"](docs/{page.name})" not in README] == []


@each_page
def test_named_commands_exist(page: pathlib.Path) -> None:
    for module in set(re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8"))):
        path = ROOT / module.replace(".", "/")
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert '__name__ == "__main__"' in path.read_text(encoding="utf-8"), module
    named = re.findall(r"\bmusicvae ([a-z_]+) ", page.read_text(encoding="utf-8"))
    assert set(named) - set(main.commands()) == set()


def test_the_readme_names_every_command() -> None:
    table = README.split("## The commands\n")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert named == set(main.commands()) - {"demo"}  # `make demo`, described above the table


def _broken_links(page: pathlib.Path, text: str) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading of the page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    return [
        link
        for link in links
        if not link.startswith("https://")
        and link not in anchors
        and not (page.parent / link).is_file()
    ]


@each_page
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    assert _broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_seen() -> None:
    text = "# One Two\n[a](#one-two) [b](#three) [c](README.md) ![d](docs/none.png)"
    assert _broken_links(ROOT / "README.md", text) == ["#three", "docs/none.png"]


@each_page
def test_named_files_exist(page: pathlib.Path) -> None:
    names = re.findall(
        r"`((?:experiments|musicvae_jax|data_pipeline|tests|docs)/[\w./]+\w)`",
        page.read_text(encoding="utf-8"),
    )
    assert [name for name in names if not (ROOT / name).exists()] == []


@each_page
def test_named_options_exist(page: pathlib.Path) -> None:
    packages = ("musicvae_jax", "data_pipeline", "experiments")
    sources = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    words = set(re.findall(r"\w+", " ".join(path.read_text(encoding="utf-8") for path in sources)))
    options = re.findall(r"(?<![\w-])--([a-z]\w*)", page.read_text(encoding="utf-8"))
    assert set(options) - words - FOREIGN_OPTIONS == set()

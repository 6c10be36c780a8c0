"""Only `models/` chooses by the name of an architecture, and few by the class of a task."""

from __future__ import annotations

import pathlib
import re

import pytest

from musicvae_jax.models.registry import ARCHITECTURES

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Training, evaluation and generation: the library without the models, and the commands.
FILES = sorted(
    path
    for folder in ("training", "sweep", "latent", "analysis", "storage", "devices", "interop", "")
    for path in (ROOT / "musicvae_jax" / folder).glob("*.py")
    # Defaults of the tasks and the meaning of the field.
    if path.name not in ("config.py", "tasks.py")
) + sorted(
    path
    for path in (ROOT / "experiments").rglob("*.py")
    if "benchmarks" not in path.relative_to(ROOT).parts
)


def chosen_names(source: str) -> list[str]:
    """Return the architectures that a source names in quotes."""
    return [name for name in ARCHITECTURES if re.search(rf"[\"']{name}[\"']", source)]


def test_a_choice_is_seen() -> None:
    assert chosen_names('if config.model.architecture == "hier":') == ["hier"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_an_architecture(path: pathlib.Path) -> None:
    assert chosen_names(path.read_text(encoding="utf-8")) == []


# What rows are, how they are cut from notes and written, and made dense on a device.
OF_ROLLS = ("musicvae_jax/tasks.py", "musicvae_jax/tokens.py", "data_pipeline/codecs/piano_roll.py")
ROLL_MODELS = "musicvae_jax/models/dense/"


def test_callers_ask_a_task_what_it_can_do_and_not_its_class() -> None:
    named = {
        str(path.relative_to(ROOT))
        for folder in ("musicvae_jax", "data_pipeline", "experiments")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bRollTask\b", path.read_text(encoding="utf-8"))
    }
    assert {*OF_ROLLS} <= named
    assert {name for name in named - {*OF_ROLLS} if not name.startswith(ROLL_MODELS)} == set()

"""What importing costs: each check in a process of its own."""

from __future__ import annotations

import ast

import pytest

import musicvae_jax
from tests.support.commands import ROOT, run_python

HEAVY = (
    "jax",
    "flax",
    "optax",
    "orbax",
    "safetensors",
    "note_seq",
    "matplotlib",
    "music21",
    "tensorboardX",
)


def _fresh(code: str) -> str:
    """Run code in a new process at the project's root and return what it printed."""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _loaded_by(module: str) -> set[str]:
    """Names in sys.modules after a new process imported a module."""
    return set(_fresh(f"import sys, {module}; print(*sys.modules)").split())


def test_importing_the_library_is_light() -> None:
    assert sorted(set(HEAVY) & _loaded_by("musicvae_jax")) == []


def test_training_needs_no_notes() -> None:
    loaded = _loaded_by("experiments.train")
    optional = {"note_seq", "matplotlib", "music21", "tensorboardX"}
    ours = {name for name in loaded if name.startswith("data_pipeline.")}
    assert sorted(optional & loaded) == []
    commands = {"cli", "command_line", "progress_bar"}
    assert ours <= {f"data_pipeline.{name}" for name in commands}


def test_wrong_checkpoints_are_refused_without_jax() -> None:
    loaded = _loaded_by("experiments.import_checkpoint")
    assert sorted({"jax", "flax", "optax", "orbax", "safetensors"} & loaded) == []


def test_conversion_needs_no_accelerator_stack() -> None:
    loaded = _loaded_by("data_pipeline.prepare")
    assert sorted({"jax", "flax", "optax", "orbax", "matplotlib", "music21"} & loaded) == []


def test_a_public_name_loads_its_module() -> None:
    code = (
        "import musicvae_jax, sys; musicvae_jax.TASKS; print('musicvae_jax.tasks' in sys.modules)"
    )
    assert _fresh(code) == "True"


@pytest.mark.parametrize("name", musicvae_jax.__all__)
def test_every_public_name_exists_and_is_listed(name: str) -> None:
    assert getattr(musicvae_jax, name) is not None
    assert name in dir(musicvae_jax)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="'musicvae_jax' has no attribute 'MusicVae'"):
        _ = musicvae_jax.MusicVae


def test_names_for_the_type_checker_are_the_public_ones() -> None:
    tree = ast.parse((ROOT / "musicvae_jax" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert sorted(a.name for node in imports for a in node.names) == sorted(musicvae_jax.__all__)

"""The cache of compiled programs: what the commands write there, and who may redirect it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from experiments.cli import compile_cache

PROGRAM = """
import jax, jax.numpy as jnp
from experiments.cli import compile_cache
compile_cache.SHORTEST_COMPILATION = 0.0
compile_cache.switch_on()
print(jax.config.jax_compilation_cache_dir)
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((4, 4))).sum())
"""


def run(**variables: str) -> list[str]:
    """Run the program in a process of its own and return its lines."""
    unset = {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "XDG_CACHE_HOME"}
    unset.add(compile_cache.SHORTEST_VARIABLE)
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def entries(folder: pathlib.Path) -> dict[str, int]:
    """Return the compiled programs below a folder and when each was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*-cache")}


def test_cache_is_made_in_the_users_cache_folder_found_again_and_repaired(
    tmp_path: pathlib.Path,
) -> None:
    folder, value = run(XDG_CACHE_HOME=str(tmp_path))
    assert pathlib.Path(folder).is_relative_to(tmp_path / "musicvae_jax")
    written = entries(tmp_path)
    assert written
    assert run(XDG_CACHE_HOME=str(tmp_path)) == [folder, value]
    assert entries(tmp_path) == written
    for path in written:
        pathlib.Path(path).write_bytes(b"cut")
    assert run(XDG_CACHE_HOME=str(tmp_path)) == [folder, value]


def test_the_user_says_how_long_a_compilation_must_be_to_be_kept(tmp_path: pathlib.Path) -> None:
    run(XDG_CACHE_HOME=str(tmp_path), **{compile_cache.SHORTEST_VARIABLE: "1000000"})
    assert not entries(tmp_path)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"JAX_COMPILATION_CACHE_DIR": "{}/other"}, "{}/other"),
        ({"XDG_CACHE_HOME": "/proc/none"}, "None"),
    ],
    ids=["folder of the user's choice", "folder that cannot be made"],
)
def test_cache_folder(tmp_path: pathlib.Path, variables: dict[str, str], folder: str) -> None:
    given = {name: value.format(tmp_path) for name, value in variables.items()}
    assert run(**given)[0] == folder.format(tmp_path)

"""Settings every test runs under, and where the shared vectors are."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import tempfile

# Set before jax reads it; pytest-xdist's workers and child processes inherit it.
# Compiled programs are shared, in a folder that is not in the home of whoever runs the tests. What
# tests write lies beside them, in memory where it has room: these are many small files, and nobody
# needs them later. To keep them, give --basetemp=FOLDER.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    memory = pathlib.Path("/dev/shm")
    has_room = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= 2 << 30
    FOLDER = tempfile.TemporaryDirectory(prefix="musicvae-", dir=memory if has_room else None)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{FOLDER.name}/compiled"
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", FOLDER.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Tests compile many programs and run each a few times, so that compiling is what takes long.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# For CPUs, XLA's earlier emitters of fused loops compile in half the time of its newer ones. A
# program that is not split for several threads compiles in a seventh less processor time, and all
# cores are busy with tests.
if "xla_cpu_use_fusion_emitters" not in os.environ.get("XLA_FLAGS", ""):
    options = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {options}".strip()

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_configure() -> None:
    """Let commands under test be interrupted where the tests' own parent ignores SIGINT.

    A shell starts background jobs so, and children inherit it; a handler they do not.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Folder of golden vectors and real files beside the project.

    Skips the test where the folder is missing, unless MUSICVAE_REQUIRE_SHARED is set.
    """
    if not (SHARED / "golden").is_dir():
        message = f"no golden vectors: {SHARED.name}/golden is not beside the project's folder"
        if os.environ.get("MUSICVAE_REQUIRE_SHARED"):
            pytest.fail(message)
        pytest.skip(message)
    return SHARED


@pytest.fixture
def key() -> jax.Array:
    """A random key, so that no test writes a seed."""
    return jax.random.key(0)

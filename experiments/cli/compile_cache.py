"""Persistent compilation cache, so that a command compiles a program only once.

JAX stores compiled programs in a folder by a hash of program, options and versions. We use a folder
in the user's cache, one per processor model: home folders are shared between machines, and a
program compiled for one processor may use instructions that another lacks. Damaged entries are
compiled again. JAX's environment variables take precedence: JAX_COMPILATION_CACHE_DIR names
another folder, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS the shortest compilation that is kept,
JAX_ENABLE_COMPILATION_CACHE=false disables the cache.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform

import jax

# Programs that compile faster than this are not worth a file, in seconds.
SHORTEST_COMPILATION = 0.3
# JAX reads these variables itself.
VARIABLE = "JAX_COMPILATION_CACHE_DIR"
SHORTEST_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def switch_on() -> None:
    """Cache compiled programs in the user's cache folder, or in the one given to JAX.

    Without a folder that can be created, nothing is cached.
    """
    if not os.environ.get(VARIABLE):
        folder = default_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if not os.environ.get(SHORTEST_VARIABLE):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST_COMPILATION)


def default_folder() -> pathlib.Path:
    """Return the folder for programs compiled on this model of processor."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    kind = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    return pathlib.Path(root) / "musicvae_jax" / f"compiled-{platform.machine()}-{kind}"


def _processor() -> str:
    """Return the processor's model and instruction sets, as far as known."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    kinds = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))

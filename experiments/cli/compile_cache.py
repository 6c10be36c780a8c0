"""The cache of compiled programs, so that a command's second start does not compile again.

JAX keeps compiled programs in a folder and finds them by a hash of the program, the options
and the versions. Here that folder is in the user's cache, one per model of processor: a
program compiled for one may use instructions that another lacks, and home folders are shared
between machines. A damaged entry is compiled anew. JAX's own environment variables have the
last word: JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false
switches the cache off.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform

import jax

# Programs that compile faster than this are not worth a file, in seconds.
SHORTEST_COMPILATION = 0.3
# What JAX itself reads: whoever sets it has chosen the folder.
VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def switch_on() -> None:
    """Keep compiled programs in the user's cache folder, or in the one JAX was told of.

    A folder that cannot be made is no reason to stop: then nothing is kept.
    """
    if not os.environ.get(VARIABLE):
        folder = default_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST_COMPILATION)


def default_folder() -> pathlib.Path:
    """Return the folder for programs compiled on this model of processor."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    kind = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    return pathlib.Path(root) / "musicvae_jax" / f"compiled-{platform.machine()}-{kind}"


def _processor() -> str:
    """Return what tells processors apart: model and instruction sets, as far as is known."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    kinds = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))

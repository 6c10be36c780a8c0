"""Record of a run: one line of `starts.jsonl` in its folder per start."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

import jax

from musicvae_jax import data

STARTS = "starts.jsonl"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "note-seq")
_ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_start(folder: pathlib.Path, store: data.Store, **more: Any) -> None:
    """Add a line: time, command, versions, commit, data and machine.

    Args:
      folder: the run folder.
      store: the token store; its path and hashes are recorded.
      **more: further facts to record.
    """
    with (folder / STARTS).open("a") as lines:
        lines.write(json.dumps(facts(store) | more) + "\n")


def facts(store: data.Store) -> dict[str, Any]:
    """Return the facts about this start."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": git_state(_ROOT),
        "data": {
            "path": str(store.path),
            "fingerprint": store.fingerprint,
            "sha256": store.meta.get("sha256", {}),
        },
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "cores": len(os.sched_getaffinity(0)),
            "devices": [device.device_kind for device in jax.devices()],
        },
    }


def command_line() -> str:
    """Return the command line of this process."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["python", "-m", spec.name] if spec else ["python", sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state(folder: pathlib.Path) -> dict[str, Any] | None:
    """Return a folder's commit and whether tracked files differ from it; None without git."""
    if not (folder / ".git").exists():
        return None
    try:
        commit, changed = (
            subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changed)}


def read_starts(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Read all lines in order; none for folders written before starts were recorded."""
    path = folder / STARTS
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]

"""Python programs and our commands, in processes of their own or in this one."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import runpy
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from unittest import mock

import jax
from absl import flags
from absl.testing import flagsaver

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A guard against processes that hang. No test depends on the speed of the machine.
HANGS_SECONDS = 1800

Ended: TypeAlias = subprocess.CompletedProcess[str]


def run_python(
    *arguments: str,
    cwd: pathlib.Path = ROOT,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
) -> Ended:
    """Run Python to its end, with more environment variables and an input, and keep its output."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(env or {}),
        input=text,
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )


def run_command(module: str, *arguments: str, **env: str) -> Ended:
    """Run a command, such as "experiments.train", to its end."""
    return run_python("-m", module, *arguments, env=env)


def run_here(module: str, *arguments: str) -> Ended:
    """Run a command as `python -m` does, but in this process, which has imported and compiled much.

    For commands that end by themselves, where the process itself is not what is tested: the number
    of devices, signals and variables of the environment are those of this process.
    """
    jax.devices()  # a command that trains would otherwise choose their number for all tests
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    before = set(flags.FLAGS)
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(flagsaver.flagsaver())
        stack.callback(_forget_flags, before)
        stack.enter_context(mock.patch.object(sys, "argv", [spec.origin, *arguments]))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(warnings.catch_warnings())
        warnings.resetwarnings()  # as in a process of its own, where they are no errors
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            runpy.run_path(spec.origin, run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess([module, *arguments], code, out.getvalue(), err.getvalue())


def _forget_flags(before: set[str]) -> None:
    """Delete the flags that a command defined."""
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


# Runs each command line of the standard input in a fork of a process that has imported all these
# commands. What they print goes to files in the folder that is named.
_FORKS = """
import importlib, json, os, pathlib, runpy, sys
folder, codes, commands = pathlib.Path(sys.argv[1]), [], json.load(sys.stdin)
for module, *_ in commands:
    importlib.import_module(module)
for module, *_ in commands:
    sys.modules.pop(module, None)  # a fork runs it anew, as the main module
for number, (module, *arguments) in enumerate(commands):
    if os.fork() == 0:
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / f"{number}.{name}", os.O_CREAT | os.O_WRONLY), descriptor)
        sys.argv, code = [module, *arguments], 0
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
        sys.stdout.flush()
        os._exit(code)  # Python's own end, with all that is imported, takes longer than the command
    codes.append(os.waitstatus_to_exitcode(os.wait()[1]))
print(json.dumps(codes))
"""


def run_forked(commands: Sequence[Sequence[str]], folder: pathlib.Path) -> list[Ended]:
    """Run commands that end at once, [module, *arguments] each, importing libraries only once."""
    forks = run_python("-c", _FORKS, str(folder), text=json.dumps([list(c) for c in commands]))
    assert forks.returncode == 0, forks.stderr
    ended = []
    for number, code in enumerate(json.loads(forks.stdout)):
        texts = [(folder / f"{number}.{name}").read_text("utf-8") for name in ("out", "err")]
        ended.append(subprocess.CompletedProcess(commands[number], code, *texts))
    return ended

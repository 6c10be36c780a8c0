"""Standard error without what native code says when another process of a run has ended.

The runtime of `jax.distributed` then ends a process by itself, with pages of text. A child
process reads this one's standard error and passes it on, but for that text: in its place it
writes one line. This file is that child's program, too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

# How its text begins, and what it says when it ends the process.
_BEGINS = re.compile(r"[EF]\d{4} \S+ +\d+ (coordination_service\w*\.cc|client\.h):\d+\]")
_ENDS = "Terminating process because the JAX distributed service detected fatal errors"
# Said by each process when all is well.
_NOISE = "[Gloo] Rank "


def start(message: str) -> None:
    """Let a child read this process's standard error from now on.

    Args:
      message: the line to write when another process has ended. This process may write it, too:
        what follows it is not passed on.
    """
    # A session of its own: the terminal's Ctrl-C is not for it.
    child = subprocess.Popen(
        [sys.executable, __file__, message], stdin=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin is not None
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()


def filtered(lines: Iterable[str], message: str) -> Iterator[str]:
    """Pass lines on, but for what the runtime says when it ends the process."""
    held: list[str] = []
    for line in lines:
        if message in line:
            yield line
            return
        if line.startswith(_NOISE):
            continue
        if held or _BEGINS.match(line):
            held.append(line)
        else:
            yield line
    # It says such things of a process that goes on, too.
    if any(_ENDS in line for line in held):
        yield message + "\n"
    else:
        yield from held


def main() -> None:
    """Read standard input to its end."""
    with open(0, encoding="utf-8", errors="replace") as lines:
        for line in filtered(lines, sys.argv[1]):
            sys.stderr.write(line)
        sys.stderr.flush()
        for _ in lines:
            pass


if __name__ == "__main__":
    main()

"""How every entry point starts and ends: flags, one-line errors, exit codes.

Exit code 0: done; 2: something the user gave is wrong (one line on standard error says what);
3: training was ended because its steps changed no parameter (likewise); 130: interrupted; 141:
whoever read the output left.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from musicvae_jax.config import InputError


def run(main: Callable[[Sequence[str]], None], *, takes_arguments: bool = False) -> None:
    """Parse the command line, call `main` with what is left of it, and exit.

    An `InputError` from `main`, a misspelt flag or a stray argument prints one line and exits
    with 2. With `takes_arguments` they are handed to `main`, behind the program's name. `--help`
    prints the entry point's docstring and its own flags, exit 0.
    """
    try:
        app.run(_guarded(main), flags_parser=functools.partial(_parse, takes_arguments))
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has had enough (`| head`); nor can what is left be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _parse(takes_arguments: bool, argv: Sequence[str]) -> list[str]:
    """Parse flags; answer --help and wrong flags here, where the exit code is ours."""
    if any(arg in ("--help", "-help", "-h", "--helpshort") for arg in argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)
    try:
        rest = flags.FLAGS(list(argv))
    except (flags.Error, OSError) as error:
        _fail(" ".join(str(error).split()), 2)
    if len(rest) > 1 and not takes_arguments:
        _fail(f"unexpected argument {rest[1]!r}: flags are written --name=value", 2)
    return rest


def _guarded(main: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], None]:
    """Wrap `main` so that an `InputError` becomes one line and exit code 2."""

    def guarded(argv: Sequence[str]) -> None:
        # app.run shows what every library logs as information, orbax pages of it.
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        warnings.showwarning = _warn
        try:
            main(argv)
        except InputError as error:
            _fail(str(error), 2)

    return guarded


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print what our code warns of as one line, and others' warnings with their place."""
    if category is UserWarning:
        print(f"warning: {message}", file=sys.stderr, flush=True)
    else:
        _show_with_place(message, category, *where, **more)


_show_with_place = warnings.showwarning


def _fail(message: str, code: int) -> None:
    """Print one line on standard error and exit."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)

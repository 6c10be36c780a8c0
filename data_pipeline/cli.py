"""How every command starts and ends: flags from a dataclass, one-line errors, exit codes.

A command states each of its options once, as a field of a frozen dataclass:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Options:
        run_dir: str = option(help="Folder of the run.")
        seed: int = option(0, help="Random seed for sampling.")

`run(main, Options)` makes the flags, reads them and calls `main` with the options.

Exit codes: 0 success; 2 wrong input (one line on standard error says what); 3 training ended
because its steps changed no parameter (likewise); 130 interrupted; 141 the reader of the
output closed it.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import os
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from absl import app, flags, logging

from musicvae_jax.config import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _FlagSpec:
    """How a field becomes a flag; see `option`."""

    help: str
    flag: str | None
    choices: tuple[str, ...]
    is_enum: bool
    comma: bool
    low: float | None
    convert: Callable[[Any], Any] | None


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    flag: str | None = None,
    choices: Sequence[str] = (),
    is_enum: bool = False,
    comma: bool = False,
    low: float | None = None,
    convert: Callable[[Any], Any] | None = None,
) -> Any:
    """Declare a field of an options dataclass that is also a flag.

    The field's type decides the flag's: str, int, float, bool, one of them or None, or a tuple
    of one of the first three, which is a flag that may be repeated.

    Args:
      default: of the field and the flag; without one the flag is required.
      help: help text of the flag.
      flag: name of the flag; None takes the field's.
      choices: values that `check_choices` allows; empty allows all.
      is_enum: let --help list the choices, and refuse others as a flag error.
      comma: a tuple is one flag with commas between the values.
      low: smallest number; others are refused as a flag error.
      convert: turns the flag's value into the field's, after its type was applied.
    """
    spec = _FlagSpec(help, flag, tuple(choices), is_enum, comma, low, convert)
    return dataclasses.field(default=default, metadata={"flag": spec})


def define_flags(options: type, values: flags.FlagValues = flags.FLAGS) -> None:
    """Define one flag for each field that `option` declares."""
    # The flags are the caller's, so that its --help lists them.
    flags.disclaim_key_flags()
    for field, spec, element, is_tuple in _flag_fields(options):
        default = None if field.default is dataclasses.MISSING else field.default
        if is_tuple and default is not None:
            default = [_as_text(value) for value in default] if spec.comma else list(default)
        define: Callable[..., Any] = _DEFINE[element][is_tuple]
        arguments: list[Any] = [spec.flag or field.name, default, spec.help]
        if spec.low is not None:
            define = functools.partial(define, lower_bound=spec.low)
        if spec.comma:
            define = flags.DEFINE_list
        elif spec.is_enum:
            define = flags.DEFINE_multi_enum if is_tuple else flags.DEFINE_enum
            arguments.insert(2, spec.choices)
        define(*arguments, flag_values=values)


def options_from_flags(options: type[T], values: flags.FlagValues = flags.FLAGS) -> T:
    """Make the options of a command from its parsed flags.

    Raises:
      InputError: a required flag is missing, or an element of a list is no number.
    """
    fields: dict[str, Any] = {}
    for field, spec, element, is_tuple in _flag_fields(options):
        name = spec.flag or field.name
        value = values[name].value
        if field.default is dataclasses.MISSING and not value:
            choices = f", one of {', '.join(spec.choices)}" if spec.choices else ""
            raise InputError(f"{name}: --{name} is needed{choices}")
        if is_tuple:
            given: list[Any] = value or []
            try:
                value = tuple(element(part) for part in given)
            except ValueError:
                message = f"{name}: {','.join(given)!r} must be numbers separated by commas"
                raise InputError(message) from None
        fields[field.name] = spec.convert(value) if spec.convert else value
    return options(**fields)


def check_choices(options: Any) -> None:
    """Check the fields that have `choices`; for the `__post_init__` of options.

    Raises:
      InputError: a value is not among them.
    """
    for field, spec, _, is_tuple in _flag_fields(type(options)):
        value = getattr(options, field.name)
        for part in value if is_tuple else (value,):
            if spec.choices and part is not None and part not in spec.choices:
                choices = ", ".join(spec.choices)
                raise InputError(f"{spec.flag or field.name}: {part!r} is not one of {choices}")


def check_ranges(options: Any, **limits: tuple[float, float]) -> None:
    """Check that numbers are finite and within their limits, both included.

    Args:
      options: object whose attributes are checked; None is not.
      **limits: attribute to its smallest and largest value; `math.inf` sets no upper limit.

    Raises:
      InputError: one is not.
    """
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            allowed = f"{low} or more" if math.isinf(high) else f"from {low} to {high}"
            raise InputError(f"{name}: {value!r} is out of range, it must be {allowed}")


# Type of a value -> how to define a flag with one value and with several.
_DEFINE: dict[type, tuple[Callable[..., Any], Callable[..., Any]]] = {
    str: (flags.DEFINE_string, flags.DEFINE_multi_string),
    int: (flags.DEFINE_integer, flags.DEFINE_multi_integer),
    float: (flags.DEFINE_float, flags.DEFINE_multi_float),
    bool: (flags.DEFINE_boolean, flags.DEFINE_boolean),
}


def _flag_fields(options: type) -> Iterator[tuple[dataclasses.Field[Any], _FlagSpec, type, bool]]:
    """Yield each field with its declaration, the type of its values and whether it is a tuple."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        if "flag" not in field.metadata:
            continue
        parts = [part for part in typing.get_args(hints[field.name]) if part is not type(None)]
        is_tuple = typing.get_origin(hints[field.name]) is tuple
        yield field, field.metadata["flag"], parts[0] if parts else hints[field.name], is_tuple


def _as_text(value: object) -> str:
    """Write a default as a user would: 90, not 90.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def run(
    main: Callable[..., None], options: type | None = None, *, takes_arguments: bool = False
) -> None:
    """Parse the command line, call `main`, and exit.

    An `InputError` or `OSError` from `main`, a misspelt flag or a stray argument prints one line
    and exits with 2. `--help` prints the entry point's docstring and its own flags, exit 0.

    Args:
      main: called with the options, and with `takes_arguments` also the list of other arguments;
        without `options`, with all of the command line that is no flag.
      options: dataclass of the command's options.
      takes_arguments: allow arguments that are no flags.
    """
    call = main
    if options is not None:
        define_flags(options)

        def call(argv: Sequence[str]) -> None:
            arguments = [argv[1:]] if takes_arguments else []
            main(options_from_flags(options), *arguments)

    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be printable in the terminal's encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app.run(_guarded(call), flags_parser=functools.partial(_parse, takes_arguments))
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`), so the rest cannot be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _parse(takes_arguments: bool, argv: Sequence[str]) -> list[str]:
    """Parse flags; answer --help and wrong flags here, where the exit code is ours."""
    if any(arg in ("--help", "-help", "-h", "--helpshort") for arg in argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True)
        print("  --flagfile: File of flags, one per line; flags after it take precedence.")
        sys.exit(0)
    try:
        rest = flags.FLAGS(list(argv))
    except (flags.Error, OSError) as error:
        _fail(" ".join(str(error).split()), 2)
    if len(rest) > 1 and not takes_arguments:
        _fail(f"unexpected argument {rest[1]!r}: flags are written --name=value", 2)
    return rest


def _guarded(main: Callable[..., None]) -> Callable[[Sequence[str]], None]:
    """Wrap `main` so that an `InputError` or `OSError` becomes one line and exit code 2."""

    def guarded(argv: Sequence[str]) -> None:
        # app.run shows what every library logs as information, orbax pages of it.
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        warnings.showwarning = _warn
        try:
            main(argv)
        except InputError as error:
            _fail(str(error), 2)
        except BrokenPipeError:
            raise
        except OSError as error:  # a full disk, a read-only folder, a file that went away
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}", 2)

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

"""Flags from a dataclass, and how commands end."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
from absl import flags

from data_pipeline.cli import check_choices, define_flags, option, options_from_flags
from musicvae_jax.config import InputError

PROGRAM = """
from data_pipeline import cli

def main(argv):
    for number in range(100_000):
        print(number)

cli.run(main)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """One field of every type that a flag can have."""

    run_dir: str = option(help="Folder of the run.")
    inputs: tuple[str, ...] = option((), flag="input", help="File; may be repeated.")
    bars: tuple[int, ...] = option((), help="First bars; may be repeated.")
    split: tuple[float, float] = option((90.0, 10.0), comma=True, help="Percentages.")
    meter: str = option("4/4", choices=("4/4", "any"), help="Meter.")
    mode: str | None = option(None, choices=("sample", "long"), is_enum=True, help="Mode.")
    num: int | None = option(None, help="Rows.")
    noise: float = option(0.5, convert=lambda value: 2 * value, help="Half of the noise.")
    quiet: bool = option(False, help="Print nothing.")
    seeds: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        """Check the choices."""
        check_choices(self)


def parse(*arguments: str) -> Options:
    values = flags.FlagValues()
    define_flags(Options, values)
    values(["program", *arguments])
    return options_from_flags(Options, values)


def test_flags_have_the_defaults_of_the_fields() -> None:
    assert parse("--run_dir=a") == Options(run_dir="a", noise=1.0)


def test_flags_have_the_types_of_the_fields() -> None:
    given = parse(
        *("--run_dir=a", "--input=b,c", "--input=d", "--bars=1", "--bars=2", "--split=80,20"),
        *("--meter=any", "--mode=long", "--num=3", "--noise=1", "--quiet"),
    )
    assert given == Options(
        run_dir="a",
        inputs=("b,c", "d"),
        bars=(1, 2),
        split=(80.0, 20.0),
        meter="any",
        mode="long",
        num=3,
        noise=2.0,
        quiet=True,
    )
    assert [type(part) for part in given.split] == [float, float]


def test_a_field_that_is_no_option_has_no_flag() -> None:
    with pytest.raises(flags.UnrecognizedFlagError, match="seeds"):
        parse("--run_dir=a", "--seeds=1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "run_dir: --run_dir is needed"),
        (("--run_dir=",), "run_dir: --run_dir is needed"),
        (("--run_dir=a", "--split=1,b"), "split: '1,b' must be numbers separated by commas"),
        (("--run_dir=a", "--meter=3/4"), "meter: '3/4' is not one of 4/4, any"),
    ],
)
def test_wrong_flags_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(*arguments)


def test_an_enum_is_refused_as_a_flag() -> None:
    with pytest.raises(flags.IllegalFlagValueError, match="sample"):
        parse("--run_dir=a", "--mode=other")


def test_a_command_ends_quietly_when_its_output_is_closed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def run_main(body: str, **env: str) -> subprocess.CompletedProcess[str]:
    program = f"from data_pipeline import cli\ncli.run(lambda argv: {body})"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | env
    )


def test_an_error_of_the_file_system_is_one_line() -> None:
    done = run_main("open('/nowhere/file')")
    assert (done.returncode, done.stderr) == (
        2,
        "error: /nowhere/file: No such file or directory\n",
    )
    done = run_main("(_ for _ in ()).throw(OSError(28, 'No space left on device'))")
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_names_that_the_terminal_cannot_show_are_escaped() -> None:
    done = run_main("print('caf\\xe9')", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "caf\\xe9\n")

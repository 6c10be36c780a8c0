"""How commands end when nobody reads what they print."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from data_pipeline import cli as command

def main(argv):
    for number in range(100_000):
        print(number)

command.run(main)
"""


def test_output_that_nobody_reads_any_more_ends_a_command_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141

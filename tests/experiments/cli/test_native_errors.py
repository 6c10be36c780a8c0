from __future__ import annotations

import subprocess
import sys

from experiments.cli import native_errors

# What jaxlib 0.10 wrote when process 0 was killed, shortened.
FATAL = [
    "E1121 08:02:50.777969    5148 coordination_service_agent.cc:289] Polled an error from it.\n",
    "F1121 08:02:50.778121    5148 client.h:80] Terminating process because the JAX distributed "
    "service detected fatal errors. This most likely indicates that another task died.\n",
    ":UNKNOWN:Error received from peer\n",
    "*** Check failure stack trace: ***\n",
    "    @     0x7ff90a918634  absl::lts_20260107::log_internal::LogMessage::SendToLog()\n",
]
MESSAGE = "error: another one has ended"


def test_the_end_of_another_process_is_one_line() -> None:
    lines = ["before\n", "[Gloo] Rank 0 is connected to 1 peer ranks.\n", *FATAL]
    assert list(native_errors.filtered(lines, MESSAGE)) == ["before\n", MESSAGE + "\n"]
    lines = [*FATAL[:1], MESSAGE + "\n", *FATAL[1:]]
    assert list(native_errors.filtered(lines, MESSAGE)) == [MESSAGE + "\n"]


def test_what_did_not_end_the_process_is_passed_on() -> None:
    lines = ["before\n", *FATAL[:1], "after\n"]
    assert list(native_errors.filtered(lines, MESSAGE)) == lines


def test_a_process_that_aborts_says_its_last_line() -> None:
    program = (
        "import os, sys; from experiments.cli import native_errors; "
        f"native_errors.start({MESSAGE!r}); print('hello', file=sys.stderr, flush=True); "
        f"os.write(2, {''.join(FATAL)!r}.encode()); os.abort()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -6
    assert done.stderr == f"hello\n{MESSAGE}\n"

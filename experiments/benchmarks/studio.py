"""How fast the studio answers, from its start on.

    python -m experiments.benchmarks.studio --run_dir=RUN [--clients=20 --seconds=60]

Starts the studio in a process of its own, measures the time to the first sound (a sample and its
WAV) and until all programs are compiled, then asks 50 times for each request and prints the median
and the slowest. With --clients, so many clients ask at once for --seconds; all their replies must
be those that a single client got, and the memory of the server is printed before and after.
"""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import machine

NUM_CALLS = 50
CORNERS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    run_dir: str = option(help="Run folder of a model of two bars.")
    clients: int = option(0, help="Clients that ask at once; 0 for none.")
    seconds: float = option(60.0, help="Duration of the load.")


class Client:
    """One connection to the server."""

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port)

    def post(self, path: str, fields: dict[str, Any]) -> bytes:
        """Send a request that must succeed."""
        content, headers = json.dumps(fields), {"Content-Type": "application/json"}
        self._connection.request("POST", f"/api/{path}", content, headers)
        reply = self._connection.getresponse()
        made = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status} {made.decode()}")
        return made

    def models(self) -> list[dict[str, Any]]:
        """Ask for the models."""
        self._connection.request("GET", "/api/models")
        return json.loads(self._connection.getresponse().read())["models"]


def requests_of(name: str, rows: list[dict[str, Any]], seed: int) -> Iterator[tuple[str, str, Any]]:
    """Yield a title, a path and the fields of each request that is timed."""
    own = {"model": name, "seed": seed}
    row = {"tokens": rows[seed % len(rows)]["tokens"]}
    yield "sample of 4", "sample", {**own, "num": 4, "temperature": 0.5}
    grid = {**own, "corners": rows, "rows": 9, "columns": 9}
    yield "palette, 9 x 9, temperature 0", "palette", {**grid, "temperature": 0}
    yield "palette, 9 x 9, temperature 0.5", "palette", {**grid, "temperature": 0.5}
    slider = {**own, "row": rows[0], "attributes": {}, "similar": (seed % 50 + 1) / 100}
    yield "slider (shape)", "shape", {**slider, "temperature": 0}
    yield "reconstruction of 1", "reconstruct", {**own, "rows": [row], "temperature": 0}
    length = {"bars": 16, "drift": 0.3, "num": 4, "temperature": 0.5}
    yield "4 continuations of 16 bars", "continue", {**own, "row": row, **length}
    yield (
        "4 variations",
        "variations",
        {**own, "row": row, "amount": 0.3, "num": 4, "temperature": 0},
    )
    yield "MIDI file of a row", "midi", {"model": name, "rows": [row], "tempo": 120}


def start(arguments: list[str]) -> tuple[subprocess.Popen[str], str]:
    """Start the studio; return its process and address."""
    line = [sys.executable, "-m", "experiments.studio", "--port=0", *arguments]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    if process.stdout is None:
        raise RuntimeError("the studio has no output")
    for text in process.stdout:
        if text.startswith("studio: "):
            return process, text.split()[1]
    raise RuntimeError("the studio did not start")


def memory_mb(process: subprocess.Popen[str]) -> float:
    """Return the resident memory of a process."""
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def latencies(client: Client, name: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each kind of request."""
    times: dict[str, list[float]] = {}
    for seed in range(NUM_CALLS):
        for title, path, fields in requests_of(name, rows, seed):
            begun = time.perf_counter()
            client.post(path, fields)
            times.setdefault(title, []).append(1000 * (time.perf_counter() - begun))
    for title, found in times.items():
        yield f"{title:34} {statistics.median(found):9.0f} {max(found):9.0f}"


def load(address: str, name: str, rows: list[dict[str, Any]], clients: int, seconds: float) -> str:
    """Let many clients ask at once; compare their replies with those of one client."""
    asked = [
        (path, fields) for seed in range(5) for _, path, fields in requests_of(name, rows, seed)
    ]
    single = Client(address)
    expected = [single.post(*request) for request in asked]
    counts, wrong = [0] * clients, [0] * clients
    end = time.monotonic() + seconds

    def ask(number: int) -> None:
        client = Client(address)
        for turn in itertools.count(number):
            if time.monotonic() > end:
                return
            index = turn % len(asked)
            wrong[number] += client.post(*asked[index]) != expected[index]
            counts[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return f"{sum(counts)} replies to {clients} clients in {seconds:g} s, {sum(wrong)} wrong"


def measure(options: Options) -> None:
    """Start the studio, measure and print."""
    print(machine.describe("starlette", "uvicorn"))
    begun = time.perf_counter()
    process, address = start([f"--run_dir={options.run_dir}"])
    try:
        client = Client(address)
        print(f"{'address printed':34} {time.perf_counter() - begun:9.1f} s")
        name = client.models()[0]["name"]
        sample = {"model": name, "num": CORNERS, "temperature": 0.5, "seed": 0}
        rows = json.loads(client.post("sample", sample))["rows"]
        client.post("wav", {"model": name, "rows": rows[:1], "tempo": 120, "loop": True})
        print(f"{'first sound':34} {time.perf_counter() - begun:9.1f} s")
        while (ready := client.models()[0]["ready"])["done"] < ready["total"]:
            time.sleep(0.2)
        print(f"{'all programs compiled':34} {time.perf_counter() - begun:9.1f} s")
        print(f"\n{'median and slowest of ' + str(NUM_CALLS):34} {'ms':>9} {'ms':>9}")
        print(*latencies(client, name, rows), sep="\n")
        if options.clients:
            before = memory_mb(process)
            print("\n" + load(address, name, rows, options.clients, options.seconds))
            print(
                f"memory of the server: {before:.0f} MB before, {memory_mb(process):.0f} MB after"
            )
    finally:
        process.terminate()
        process.wait()


def main(argv: Sequence[str]) -> None:
    """Measure and print."""
    del argv
    measure(cli.options_from_flags(Options))


if __name__ == "__main__":
    cli.define_flags(Options)
    cli.run(main)

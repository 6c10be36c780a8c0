"""How fast the studio answers, from its start on.

    python -m experiments.benchmarks.studio [--model=NAME | --run_dir=RUN] [--cold]
        [--clients=20 --seconds=60] [--folder=FOLDER] [--damaged=FOLDER]

Starts the studio in a process of its own, measures the time to the first sound (a sample and its
WAV) and until all programs are compiled, then asks 50 times for each request and prints the median
and the slowest.

* --cold: with empty caches in a temporary folder, as after an installation: jax, numba and the
  LSTM kernel compile all they need.
* --clients: so many clients ask at once for --seconds. All their replies must be those that a
  single client got. Prints the memory of the server before, halfway and after.
* --folder: a map of up to 1,000 files below the folder, from the upload to the projection.
* --damaged: sends the files of the folder one by one, and prints how many were refused and how long
  the slowest took.
"""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import math
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.benchmarks.support import machine
from experiments.cli import compile_cache

NUM_CALLS = 50
CORNERS = 4
MOST_FILES, FILES_AT_ONCE, MOST_POINTS = 1000, 100, 10_000
ENDINGS = {".abc", ".kar", ".mid", ".midi", ".musicxml", ".mxl", ".xml"}
TIMEOUT_SECONDS = 900.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    model: str = option("drums_2bar", help="Model of this package, of two bars.")
    run_dir: str = option("", help="Run folder of a model of two bars, instead.")
    cold: bool = option(False, help="Start with empty caches.")
    clients: int = option(0, help="Clients that ask at once; 0 for none.")
    seconds: float = option(60.0, help="Duration of the load.")
    folder: str = option("", help="Folder of music files for a map.")
    damaged: str = option("", help="Folder of damaged files to send one by one.")


class Client:
    """One connection to the server."""

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        host = parts.hostname or ""
        self._connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_SECONDS)

    def post(self, path: str, fields: dict[str, Any]) -> bytes:
        """Send a request that must succeed."""
        return self._sent(path, json.dumps(fields).encode(), "application/json", (200,))

    def upload(self, path: str, content: bytes, **query: str) -> dict[str, Any]:
        """Send files; the reply may be that they hold nothing."""
        where = f"{path}?{urllib.parse.urlencode(query)}"
        return json.loads(self._sent(where, content, "application/octet-stream", (200, 422)))

    def _sent(self, path: str, content: bytes, kind: str, expected: tuple[int, ...]) -> bytes:
        self._connection.request("POST", f"/api/{path}", content, {"Content-Type": kind})
        reply = self._connection.getresponse()
        made = reply.read()
        if reply.status not in expected:
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


def start(arguments: list[str], caches: str | None) -> tuple[subprocess.Popen[str], str]:
    """Start the studio, with its caches in a folder if one is given; return process and address."""
    line = [sys.executable, "-m", "experiments.studio", "--port=0", *arguments]
    surroundings = dict(os.environ)
    if caches is not None:
        surroundings.pop(compile_cache.VARIABLE, None)
        surroundings |= {"XDG_CACHE_HOME": caches, "NUMBA_CACHE_DIR": f"{caches}/numba"}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=surroundings)
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


def load(
    server: tuple[subprocess.Popen[str], str],
    name: str,
    rows: list[dict[str, Any]],
    clients: int,
    seconds: float,
) -> Iterator[str]:
    """Let many clients ask at once; compare their replies with those of one client."""
    asked = [
        (path, fields) for seed in range(5) for _, path, fields in requests_of(name, rows, seed)
    ]
    process, address = server
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

    memory = [memory_mb(process)]
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    memory.append(memory_mb(process))
    for thread in threads:
        thread.join()
    memory.append(memory_mb(process))
    yield f"{sum(counts)} replies to {clients} clients in {seconds:g} s, {sum(wrong)} wrong"
    before, halfway, after = memory
    yield f"memory in MB: {before:.0f} before, {halfway:.0f} halfway, {after:.0f} after"


def make_map(client: Client, name: str, folder: pathlib.Path) -> str:
    """Make a map of the files below a folder, as the page does."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    files = [(path.name.encode(), path.read_bytes()) for path in found[:MOST_FILES]]
    begun = time.perf_counter()
    rows: list[Any] = []
    for first in range(0, len(files), FILES_AT_ONCE):
        parts = [part for file in files[first : first + FILES_AT_ONCE] for part in file]
        body = b"".join(struct.pack(">I", len(part)) + part for part in parts)
        rows += [
            window["tokens"] for window in client.upload("windows", body, model=name)["windows"]
        ]
    read = time.perf_counter() - begun
    rows = rows[:: math.ceil(len(rows) / MOST_POINTS)]
    points = len(json.loads(client.post("map", {"model": name, "rows": rows}))["x"])
    whole = time.perf_counter() - begun
    return f"map of {len(files)} files, {points} points: {whole:.1f} s, {read:.1f} s of it reading"


def send_damaged(client: Client, name: str, folder: pathlib.Path) -> str:
    """Send files one by one."""
    times: dict[str, float] = {}
    refused = 0
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        begun = time.perf_counter()
        refused += "error" in client.upload("read", path.read_bytes(), model=name, name="file.mid")
        times[path.name] = time.perf_counter() - begun
    slowest = max(times, key=times.__getitem__)
    return (
        f"{len(times)} damaged files, {refused} refused with a reason; "
        f"the slowest took {times[slowest]:.1f} s ({slowest})"
    )


def measure(options: Options, caches: str | None) -> None:
    """Start the studio, measure and print."""
    own = f"--run_dir={options.run_dir}" if options.run_dir else f"--model={options.model}"
    begun = time.perf_counter()
    process, address = start([own], caches)
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
        if options.folder:
            print("\n" + make_map(client, name, pathlib.Path(options.folder)))
        if options.damaged:
            print("\n" + send_damaged(client, name, pathlib.Path(options.damaged)))
        if options.clients:
            server = (process, address)
            found = load(server, name, rows, options.clients, options.seconds)
            print(*found, sep="\n")
    finally:
        process.terminate()
        process.wait()


def main(options: Options) -> None:
    """Measure and print."""
    print(machine.describe("starlette", "uvicorn") + ("; empty caches" if options.cold else ""))
    with tempfile.TemporaryDirectory() as folder:
        measure(options, folder if options.cold else None)


if __name__ == "__main__":
    cli.run(main, Options)

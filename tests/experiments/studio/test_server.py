"""Starting the studio, many clients at once, the worker, and the compilation of programs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from experiments.studio import __main__ as command
from experiments.studio import rows
from experiments.studio.__main__ import Options, access_of, address, listen
from experiments.studio.models import warm_up
from experiments.studio.models.loading import load
from experiments.studio.models.worker import Worker
from musicvae_jax.config import InputError
from tests.support.studio_client import models, post, tokens_of
from tests.support.untrained_run import make_run

# Against waiting for ever; no machine is so slow.
GUARD_SECONDS = 900.0
ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAMS = ("encode", "generate", "greedy", "chain_windows")


def test_requests_come_before_the_background() -> None:
    worker, order = Worker(), list[str]()
    begun, hold = threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        hold.wait(GUARD_SECONDS)

    worker.later(first)
    assert begun.wait(GUARD_SECONDS)
    worker.later(lambda: order.append("first program"))
    last = worker.later(lambda: order.append("second program"))
    worker.soon(lambda: order.append("request"))
    hold.set()
    last.result(GUARD_SECONDS)
    assert order == ["request", "first program", "second program"]


def test_what_a_function_raises_reaches_who_asked() -> None:
    def fail() -> None:
        raise InputError("z: wrong")

    worker = Worker()
    with pytest.raises(InputError, match="z: wrong"):
        worker.run(fail)
    assert worker.run(lambda: 3) == 3


@pytest.mark.slow
def test_the_usual_requests_need_no_program_that_was_not_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = models()["drums_2bar"]
    for step in warm_up.programs(model):
        step()
    programs = model.vae._programs
    compiled = {name: getattr(programs, name)._cache_size() for name in PROGRAMS}
    row = {"tokens": [1, 0, 4, 0, 2, 0, 4, 0]}
    settings: dict[str, Any] = {"model": model.name, "seed": 1}
    for temperature in (0, 0.5, 1):
        settings["temperature"] = temperature
        post("sample", **settings, num=1)
        post("sample", **settings, num=4)
        post("reconstruct", **settings, rows=[row])
        post("palette", **settings, corners=[row] * 4, rows=5, columns=9)
        post("palette", **settings, corners=[row] * 2, rows=1, columns=11)
        post("shape", **settings, row=row, attributes={}, similar=0.5)
        post("variations", **settings, row=row, amount=0.5, num=8)
        post("continue", **settings, row=row, bars=16, drift=0.3, num=4)
    assert {name: getattr(programs, name)._cache_size() for name in PROGRAMS} == compiled


def test_twenty_clients_at_once_get_right_answers() -> None:
    model = models()["mel_2bar"]
    expected = [rows.tidy(model.vae.sample(4, seed, 0.7), model.task) for seed in range(20)]

    def ask(seed: int) -> bool:
        own = {"model": model.name, "num": 4, "temperature": 0.7, "seed": seed}
        first = post("sample", **own)["rows"]
        points = [{"z": row["z"]} for row in first]
        again = post("reconstruct", model=model.name, rows=points, temperature=0.7, seed=seed)
        z = np.stack([rows.z_from_text("z", row["z"], 4) for row in first])
        decoded = rows.tidy(model.worker.run(lambda: model.vae.decode(z, seed, 0.7)), model.task)
        is_right = np.array_equal(tokens_of(first), expected[seed])
        return is_right and np.array_equal(tokens_of(again["rows"]), decoded)

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(ask, [n % 20 for n in range(100)]))


def test_a_taken_port_is_named_with_one_that_is_free() -> None:
    with listen("127.0.0.1", 0) as first:
        taken = first.getsockname()[1]
        with pytest.raises(InputError, match=f"^port: {taken} is in use; try --port=") as found:
            listen("127.0.0.1", taken)
    free = int(str(found.value).split("=")[1])
    listen("127.0.0.1", free).close()


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "2001:db8::1", "a" * 70])
def test_a_foreign_address_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(InputError, match=f"^host: '{host}' is not an address of this machine$"):
        listen(host, 0)


def test_a_token_is_needed_beyond_loopback_only() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        access = access_of(host, 8765)
        assert (access.token, access.any_address) == (None, False)
        assert host in access.names
    access = access_of("0.0.0.0", 8765)
    assert access.any_address
    assert access.token is not None
    assert len(access.token) >= 32
    assert address("0.0.0.0", 80, "abc") == f"http://{socket.gethostname()}:80/?token=abc"
    assert address("::1", 80, None) == "http://[::1]:80/"


def test_runs_of_one_name_are_numbered(tmp_path: pathlib.Path) -> None:
    runs = [make_run(tmp_path / name, "drums_2bar") for name in ("a", "b")]
    found = list(load((), runs, Worker()))
    assert [model.name for model in found] == ["run", "run-2"]
    assert found[0].describe()["task"] == "drums_2bar"


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.packaged, "names", lambda: [])
    with pytest.raises(InputError, match="run_dir: --run_dir is needed"):
        Options()
    monkeypatch.setattr(command.packaged, "names", lambda: ["a", "b"])
    assert Options().names == ("a", "b")
    assert Options(run_dirs=("run",)).names == ()
    assert Options(run_dirs=("run",), models=("a",)).names == ("a",)
    with pytest.raises(InputError, match="model: there is no 'none' in this package"):
        list(load(("none",), (), Worker()))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'musicvae-jax\[studio\]'"):
        command.check_extra()


@contextlib.contextmanager
def studio(run: str, log: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command; it is killed if it has not ended after `GUARD_SECONDS`.

    Its errors go to a file: the end of a pipe would come only when the last child has ended.
    """
    line = [sys.executable, "-m", "experiments.studio", f"--run_dir={run}", "--port=0"]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            line, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        guard = threading.Timer(GUARD_SECONDS, process.kill)
        guard.daemon = True
        guard.start()
        try:
            yield process
        finally:
            guard.cancel()
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal_ends_it(number: int, tmp_path: pathlib.Path) -> None:
    run, log = make_run(tmp_path, "drums_2bar"), tmp_path / "log"
    with studio(run, log) as process:
        assert process.stdout is not None
        about = process.stdout.readline()
        assert about.startswith("run: 2 bars of drums, 0.0"), log.read_text()
        where = process.stdout.readline().split()[1]
        with urllib.request.urlopen(f"{where}api/models", timeout=GUARD_SECONDS) as reply:
            (model,) = json.load(reply)["models"]
        process.send_signal(number)
        assert process.wait(GUARD_SECONDS) == 128 + number
    assert log.read_text() == "studio: stopped\n"
    assert model["name"] == "run"


def test_a_reply_does_not_wait_for_the_receipt_of_its_headers() -> None:
    with (
        listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname(), GUARD_SECONDS),
        listening.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_process_ends_even_if_it_cannot_say_so() -> None:
    program = "import os; from experiments.studio import ending; os.close(2); ending.end(15)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=GUARD_SECONDS)
    assert done.returncode == 128 + signal.SIGTERM

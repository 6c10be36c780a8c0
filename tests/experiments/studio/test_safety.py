"""What the studio refuses: foreign origins, wrong values, sizes, paths. Nothing ends the server."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import pathlib
import random
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from experiments.studio import app, static_files
from experiments.studio.actions import ACTIONS
from experiments.studio.downloads import DOWNLOADS
from experiments.studio.errors import RefusedError
from experiments.studio.fields import Fields
from experiments.studio.safety import Access, host_name
from tests.support.studio_client import JSON, TIMEOUT_SECONDS, get, port, request, start

NUM_MALFORMED = 2000
SAMPLE = {"model": "mel_2bar", "num": 1, "temperature": 0, "seed": 0}
ROW = {"tokens": [30, 0, 0, 0, 1]}
SETTINGS = {"model": "mel_2bar", "temperature": 0, "seed": 0}
# A request of each kind that would be answered.
VALID: dict[str, dict[str, Any]] = {
    "rows": {"model": "mel_2bar", "rows": [ROW]},
    "sample": SAMPLE,
    "reconstruct": {**SETTINGS, "rows": [ROW]},
    "palette": {**SETTINGS, "corners": [ROW, ROW], "rows": 1, "columns": 2},
    "shape": {**SETTINGS, "row": ROW, "attributes": {"note_density": 1}, "similar": 0.1},
    "continue": {**SETTINGS, "row": ROW, "bars": 2, "drift": 0.1, "num": 1},
    "variations": {**SETTINGS, "row": ROW, "amount": 0.1, "num": 1},
    "map": {"model": "mel_2bar", "rows": [ROW["tokens"]] * 3},
    "midi": {"model": "mel_2bar", "rows": [ROW], "tempo": 120},
    "wav": {"model": "mel_2bar", "rows": [ROW], "tempo": 120, "loop": True},
    "musicxml": {"model": "mel_2bar", "rows": [ROW], "tempo": 120},
    "zip": {"model": "mel_2bar", "rows": [ROW], "tempo": 120},
}
# No field takes any of these, but for `RIGHT_VALUES`.
WRONG_VALUES: list[Any] = [
    None,
    True,
    "",
    "\x00",
    "a" * 3000,
    -1,
    1e300,
    -5.5,
    10**400,
    2**63,
    [],
    [[]],
    [None],
    {},
    {"tokens": []},
    {"tokens": [0.5]},
    {"tokens": [True]},
    {"tokens": [0, 90]},
    {"tokens": [-1]},
    {"tokens": [[0]]},
    {"tokens": [0] * 1025},
    {"tokens": "0"},
    {"z": ""},
    {"z": "AAAA"},
    {"z": "////" * 5 + "/w=="},
    {"z": 5},
    {"row": 1},
    [{"tokens": [0]}] * 2000,
]

RIGHT_VALUES: list[tuple[str, Any]] = [("loop", True), ("attributes", {})]


def send(path: str, content: bytes, **headers: str) -> tuple[int, str]:
    """Send a request; return its status and its error, which must be one line with an id."""
    reply = request("POST", path, content, JSON | headers)
    error = reply.json()
    assert set(error) == {"error", "id"}, error
    assert "\n" not in error["error"]
    assert 0 < len(error["error"]) <= 400
    return reply.status, error["error"]


def malformed(rng: random.Random) -> tuple[str, bytes]:
    """Draw a request in which one thing is wrong."""
    name = rng.choice(list(VALID))
    fields = dict(VALID[name])
    field = rng.choice(list(fields))
    choice = rng.randrange(8)
    if choice == 0:
        del fields[field]
    elif choice == 1:
        fields[rng.choice(["x", "__proto__", "model ", "Model", "é" * 40])] = 1
    elif choice == 2:
        return name, rng.choice([b"[" * 100_000, b'{"a":' * 50_000, b"", b"null", b"\xff\xfe"])
    elif choice == 3:
        text = json.dumps(fields)
        return name, text[: rng.randrange(len(text))].encode()
    elif choice == 4:
        text = json.dumps({**fields, field: "HERE"})
        number = rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
        return name, text.replace('"HERE"', number).encode()
    elif choice == 5:
        fields["model"] = rng.choice(["", "../../etc/passwd", "mel_2bar\n", "trio", {}, 0, "%00"])
    else:
        # A list of rows that are right but for one.
        wrong = rng.choice([v for v in WRONG_VALUES if (field, v) not in RIGHT_VALUES])
        is_list = isinstance(fields[field], list) and rng.random() < 0.5
        fields[field] = [*fields[field], wrong] if is_list else wrong
    return name, json.dumps(fields).encode()


# Operations on files as Python's audit hooks name them; `open` only if it may write.
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_changes: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what changes files; a hook cannot be removed, only told to note nothing."""
    if _changes is not None and (event in CHANGES or (event == "open" and arguments[2] & WRITING)):
        _changes.append(f"{event} {arguments}")


@functools.cache
def _add_hook() -> None:
    sys.addaudithook(_audit)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Note all that changes files in this process, in any thread."""
    global _changes
    _add_hook()
    _changes = []
    try:
        yield _changes
    finally:
        _changes = None


def test_a_change_of_a_file_is_seen(tmp_path: pathlib.Path) -> None:
    with watched() as changes:
        (tmp_path / "a").write_text("b")
        (tmp_path / "a").read_text()
        (tmp_path / "a").unlink()
    assert [change.split()[0] for change in changes] == ["open", "os.remove"]


def test_the_valid_requests_are_answered_and_change_no_file() -> None:
    assert set(VALID) == {*ACTIONS, *DOWNLOADS}

    def ask() -> None:
        for name, fields in VALID.items():
            content = json.dumps(fields).encode()
            assert request("POST", f"/api/{name}", content, JSON).status == 200

    ask()  # programs are compiled and modules are loaded
    with watched() as changes:
        ask()
    assert changes == []


def test_malformed_requests_are_refused_in_one_line() -> None:
    rng = random.Random(0)
    connection = http.client.HTTPConnection("127.0.0.1", port(), timeout=TIMEOUT_SECONDS)
    with contextlib.closing(connection), watched() as changes:
        for _ in range(NUM_MALFORMED):
            name, content = malformed(rng)
            connection.request("POST", f"/api/{name}", content, JSON)
            reply = connection.getresponse()
            text = reply.read().decode()
            assert reply.status in (400, 404), (name, content[:300], reply.status, text)
            error = json.loads(text)
            assert set(error) == {"error", "id"}
            assert "\n" not in error["error"]
            assert 0 < len(error["error"]) <= 400
    assert changes == []
    assert get("/api/models").status == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: it must be JSON"),
        (b"[]", "body: it must be a JSON object, not a list"),
        (b"[" * 100_000, "body: it is nested too deeply"),
        (b'{"num": NaN}', "body: it must be JSON: NaN is not a number"),
        (b"\xff", "body: it must be JSON: 'utf-8'"),
        (b'{"num": ' + b"9" * 5000 + b"}", "body: it must be JSON: Exceeds the limit"),
        (b"{}", "num: it is missing"),
        (b'{"num": 1.0}', "num: it must be a whole number, not a number"),
        (b'{"num": true}', "num: it must be a whole number, not true or false"),
        (b'{"num": 17}', "num: it is out of range, it must be from 1 to 16"),
        (b'{"num": 3, "more": 1}', "more: there is no such field"),
    ],
)
def test_a_wrong_field_is_named(body: bytes, message: str) -> None:
    def parse() -> None:
        fields = Fields.parse(body)
        fields.integer("num", 1, 16)
        fields.finish()

    with pytest.raises(RefusedError, match=f"^{message}"):
        parse()


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8765"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost@evil.example"},
    {"Host": "192.168.0.1"},
    {"Host": "127.0.0.1:port"},
    {"Host": "[::1"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "https://127.0.0.1:{port}"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_other_sites_are_refused(headers: dict[str, str]) -> None:
    filled = {name: value.replace("{port}", str(port())) for name, value in headers.items()}
    status, error = send("/api/sample", json.dumps(SAMPLE).encode(), **filled)
    assert status == 403
    assert error.startswith(next(iter(headers)))


def test_the_page_itself_is_answered() -> None:
    for name in ("127.0.0.1", "localhost", "[::1]"):
        host = f"{name}:{port()}"
        own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert request("POST", "/api/sample", json.dumps(SAMPLE).encode(), JSON | own).status == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:80", "localhost"),
        ("LOCALHOST", "localhost"),
        ("[::1]:80", "::1"),
        ("a@localhost", ""),
        ("localhost/", ""),
        ("localhost:x", ""),
        ("", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name


PATHS = [
    "/../../etc/passwd",
    "/static/../app.py",
    "/static/%2e%2e/app.py",
    "/static/..%2f..%2fsetup.cfg",
    "/static//etc/passwd",
    "//etc/passwd",
    "/app.py",
    "/api",
    "/api/",
    "/api/../api/models",
    "/api/models/",
    "/static/index.html%00.js",
    "/static/" + "a" * 5000,
    "/%ff%fe",
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_paths_lead_nowhere(path: str) -> None:
    reply = get(path)
    assert reply.status == 404
    assert set(reply.json()) == {"error", "id"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(method: str) -> None:
    reply = request(method, "/api/models" if method == "POST" else "/api/sample")
    assert reply.status in (404, 405)
    assert set(reply.json()) == {"error", "id"}


def test_another_type_of_content_is_refused() -> None:
    status, error = send("/api/sample", b"{}", **{"Content-Type": "text/plain"})
    assert (status, error) == (415, "Content-Type: it must be application/json")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_100_mb_is_refused_and_not_kept(is_chunked: bool) -> None:
    part = b" " * 2**20

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield part

    connection = http.client.HTTPConnection("127.0.0.1", port(), timeout=1800)
    headers = dict(JSON) if is_chunked else {**JSON, "Content-Length": str(100 * 2**20)}
    connection.request("POST", "/api/sample", parts(), headers, encode_chunked=is_chunked)
    reply = connection.getresponse()
    assert reply.status == 413
    assert json.loads(reply.read())["error"] == "body: it is larger than 2 MB"
    connection.close()


def test_a_client_that_goes_away_is_no_fault(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", port())) as client:
        client.sendall(
            b"POST /api/sample HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
    assert get("/api/models").status == 200
    assert "Traceback" not in capfd.readouterr().err


def test_replies_forbid_what_the_page_does_not_need() -> None:
    for reply in (get("/"), get("/api/models"), get("/none"), get("/", Host="evil.example")):
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "http" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "server" not in reply.headers


def test_the_page_is_sent_compressed_or_not() -> None:
    assert get("/").content == b"page"
    reply = get("/", **{"Accept-Encoding": "gzip, br"})
    assert (reply.content, reply.headers["content-encoding"]) == (b"compressed", "gzip")
    assert get("/", **{"If-None-Match": '"1"'}).status == 304


def test_static_files_are_those_of_two_folders(tmp_path: pathlib.Path) -> None:
    for name in ("static/index.html", "static/a/b.js", "vendor/c.js", "vendor/LICENSE", "d.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = static_files.load(tmp_path)
    assert set(found) == {"/", "/static/index.html", "/static/a/b.js", "/vendor/c.js"}
    assert found["/"].content == b"static/index.html"
    assert static_files.load(tmp_path / "none") == {}


def test_a_soundfont_has_one_path_and_is_not_compressed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.sf2").write_bytes(b"samples")
    found = static_files.load(tmp_path, tmp_path / "a.sf2")
    assert set(found) == {static_files.SOUNDFONT}
    assert found[static_files.SOUNDFONT].content == b"samples"
    assert found[static_files.SOUNDFONT].compressed is None
    assert get(static_files.SOUNDFONT).status == 404
    assert get("/api/models").json()["soundfont"] is None


def test_a_token_is_asked_for_beyond_loopback() -> None:
    access = Access(names=("localhost", "studio.local"), any_address=True, token="secret")
    to = start(access)

    def status(path: str, **headers: str) -> int:
        return request("GET", path, headers=headers, to=to).status

    assert status("/") == status("/api/models") == 403
    assert status("/?token=wrong") == status("/?token=") == status("/?token=%C3%A9") == 403
    assert status("/api/models?token=secret") == 403
    assert status("/", Cookie="studio=wrong") == status("/", Cookie="=;;=") == 403
    first = request("GET", "/?token=secret", to=to)
    assert (first.status, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"]
    assert cookie == "studio=secret; Path=/; HttpOnly; SameSite=Strict"
    assert status("/api/models", Cookie="studio=secret") == 200
    assert status("/api/models", Cookie="studio=secret", Host="192.168.0.7:1") == 200
    assert status("/api/models", Cookie="studio=secret", Host="studio.local") == 200
    assert status("/api/models", Cookie="studio=secret", Host="evil.example") == 403
    assert status("/?token=secret", Host="evil.example") == 403


def test_a_fault_of_the_server_is_logged_under_its_id(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a secret of the server")

    monkeypatch.setattr(app, "find", fail)
    status, _ = send("/api/sample", json.dumps(SAMPLE).encode())
    assert status == 500
    reply = request("POST", "/api/sample", json.dumps(SAMPLE).encode(), JSON)
    assert b"secret" not in reply.content
    assert f"error {reply.json()['id']}:\nTraceback" in capfd.readouterr().err

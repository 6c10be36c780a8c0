"""The studio's server with tiny random models, in a thread, and a client of it."""

from __future__ import annotations

import functools
import http.client
import json
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.studio import app
from experiments.studio.__main__ import listen
from experiments.studio.models.latent import StudioModel
from experiments.studio.models.worker import Worker
from experiments.studio.safety import Access
from experiments.studio.static_files import StaticFile
from musicvae_jax.latent import attributes, fitted_prior
from musicvae_jax.latent.musicvae import MusicVAE
from tests.support import model_cases

MODELS = ("mel_2bar", "drums_2bar", "trio_16bar")
PAGE = {"/": StaticFile(b"page", b"compressed", "text/html; charset=utf-8", '"1"')}
# Many minutes: the first upload on a new machine waits until the MIDI reader is compiled.
TIMEOUT_SECONDS = 900
JSON, BYTES = {"Content-Type": "application/json"}, {"Content-Type": "application/octet-stream"}


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@functools.cache
def models() -> dict[str, StudioModel]:
    """Return a model of each kind; that of melodies has attribute vectors, of drums a prior."""
    worker = Worker()
    return {name: _model(name, worker) for name in MODELS}


def _model(name: str, worker: Worker) -> StudioModel:
    case = model_cases.case(name, "flat")
    rng = np.random.default_rng(1)
    vectors = None
    if name == "mel_2bar":
        names = attributes.names(case.task)[:2]
        vectors = {n: rng.normal(size=4).astype(np.float32) for n in names}
    prior = None
    if name == "drums_2bar":
        prior = fitted_prior.standard(4)._replace(means=np.full((1, 4), 2.0, np.float32))
    vae = MusicVAE(case.config, case.params, prior=prior, attributes=vectors)
    return StudioModel(name, vae, worker)


def start(access: Access | None = None) -> int:
    """Serve in a thread that ends with the process; return the port."""
    listening = listen("127.0.0.1", 0)
    application = app.make_app(models(), PAGE, access or Access())
    threading.Thread(target=app.serve, args=(application, listening), daemon=True).start()
    return listening.getsockname()[1]


@functools.cache
def port() -> int:
    """Return the port of the one server for all tests."""
    return start()


def request(
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    to: int | None = None,
) -> Reply:
    """Send one request, with the headers given and no others that a browser would add."""
    connection = http.client.HTTPConnection("127.0.0.1", to or port(), timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body, dict(headers or {}))
        reply = connection.getresponse()
        lowered = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(reply.status, lowered, reply.read())
    finally:
        connection.close()


def get(path: str, **headers: str) -> Reply:
    return request("GET", path, headers=headers)


def download(path: str, **fields: Any) -> bytes:
    """Send a request that must succeed, and return the bytes of its reply."""
    reply = request("POST", f"/api/{path}", json.dumps(fields).encode(), JSON)
    assert reply.status == 200, reply.content
    return reply.content


def post(path: str, **fields: Any) -> Any:
    """Send a request that must succeed, and return its reply."""
    return json.loads(download(path, **fields))


def tokens_of(rows: list[dict[str, Any]]) -> np.ndarray:
    """Stack the tokens of rows of a reply."""
    return np.array([row["tokens"] for row in rows])

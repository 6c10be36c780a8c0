"""The web application: paths, bodies and replies. Only this module knows starlette and uvicorn.

Imported inside a function of `__main__`, because both come with the extra `studio`.
"""

from __future__ import annotations

import json
import socket
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from experiments.studio import ending, examples, rows, uploads
from experiments.studio.actions import ACTIONS
from experiments.studio.downloads import DOWNLOADS, Download
from experiments.studio.errors import TOO_LARGE, WRONG_TYPE, WRONG_VALUE, RefusedError
from experiments.studio.fields import Fields
from experiments.studio.models.loading import find
from experiments.studio.models.played import PlayedModel
from experiments.studio.safety import Access, Guard, error_json, new_id
from experiments.studio.static_files import SOUNDFONT, StaticFile
from musicvae_jax.config import InputError

JSON, BYTES = "application/json", "application/octet-stream"
MAX_JSON_BYTES, MAX_MAP_BYTES = 2 * 2**20, 10 * 2**20
# Bodies that are too large are read and discarded up to this size: a browser that cannot finish
# sending its request shows no reply.
MAX_DISCARDED_BYTES = 256 * 2**20
MAX_REQUESTS = 100  # at once; beyond it the reply is 503

Models = Mapping[str, PlayedModel]
Handler = Callable[[Request, bytes], dict[str, Any] | Download]


def make_app(models: Models, files: dict[str, StaticFile], access: Access) -> Guard:
    """Build the application.

    Args:
      models: by name, the first is the page's default.
      files: the page's files by path.
      access: who may ask.
    """

    def of_model(action: Callable[[PlayedModel, Fields], dict[str, Any]]) -> Handler:
        def handle(request: Request, body: bytes) -> dict[str, Any]:
            fields = Fields.parse(body)
            return action(find(models, fields.text("model")), fields)

        return handle

    def of_task(download: Callable[..., Download]) -> Handler:
        def handle(request: Request, body: bytes) -> Download:
            fields = Fields.parse(body)
            return download(find(models, fields.text("model")).task, fields)

        return handle

    def of_files(read: Callable[..., dict[str, Any]]) -> Handler:
        def handle(request: Request, body: bytes) -> dict[str, Any]:
            query = request.query_params
            return read(find(models, query.get("model", "")), query, body)

        return handle

    routes = [
        _get("models", lambda request: _models(models, files)),
        _get("examples", lambda request: _examples(models, request)),
        _post("read", of_files(uploads.read), BYTES, uploads.MAX_FILE_BYTES),
        _post("windows", of_files(uploads.windows), BYTES, uploads.MAX_FOLDER_BYTES),
    ]
    for name, action in ACTIONS.items():
        limit = MAX_MAP_BYTES if name in ("map", "rows") else MAX_JSON_BYTES
        routes.append(_post(name, of_model(action), JSON, limit))
    routes += [_post(name, of_task(make), JSON, MAX_JSON_BYTES) for name, make in DOWNLOADS.items()]
    routes.append(Route("/{path:path}", _static(files), methods=["GET"]))
    handlers: dict[Any, Any] = {HTTPException: _http_error}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), access)


def _models(models: Models, files: dict[str, StaticFile]) -> dict[str, Any]:
    described = [model.describe() for model in models.values()]
    return {"models": described, "soundfont": SOUNDFONT if SOUNDFONT in files else None}


def _examples(models: Models, request: Request) -> dict[str, Any]:
    task = find(models, request.query_params.get("model", "")).task
    named = examples.rows_of(task)
    return {
        "examples": [
            {"name": name, "row": rows.to_json(row[None], task)[0]} for name, row in named.items()
        ]
    }


def _get(name: str, make: Callable[[Request], dict[str, Any]]) -> Route:
    """Return the route of a request without a body."""

    async def endpoint(request: Request) -> Response:
        return await _answered(lambda: make(request))

    return Route(f"/api/{name}", endpoint, methods=["GET"])


def _post(name: str, handle: Handler, media_type: str, limit: int) -> Route:
    """Return the route of a request with a body of a media type and at most `limit` bytes."""

    async def endpoint(request: Request) -> Response:
        given = request.headers.get("content-type", "").split(";")[0].strip().lower()
        try:
            body = await read_body(request, limit)
        except RefusedError as error:
            return _refusal(error.status, error.message)
        except ClientDisconnect:
            return Response(status_code=WRONG_VALUE)
        if given != media_type:
            return _refusal(WRONG_TYPE, f"Content-Type: it must be {media_type}")
        return await _answered(lambda: handle(request, body))

    return Route(f"/api/{name}", endpoint, methods=["POST"])


async def read_body(request: Request, limit: int) -> bytes:
    """Receive a body.

    Raises:
      RefusedError: it is larger than `limit` bytes.
    """
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            body += chunk
        else:
            body.clear()
        if size > MAX_DISCARDED_BYTES:
            break
    if size > limit:
        raise RefusedError(TOO_LARGE, f"body: it is larger than {limit / 2**20:g} MB")
    return bytes(body)


async def _answered(make: Callable[[], dict[str, Any] | Download]) -> Response:
    """Run a handler in a thread, and turn what it returns or raises into a reply."""
    return await run_in_threadpool(_reply, make)


def _reply(make: Callable[[], dict[str, Any] | Download]) -> Response:
    try:
        made = make()
    except RefusedError as error:
        return _refusal(error.status, error.message)
    except InputError as error:
        return _refusal(WRONG_VALUE, RefusedError(WRONG_VALUE, str(error)).message)
    except Exception:
        number = new_id()
        print(f"error {number}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        message = "the server failed; its log says more under this id"
        return Response(error_json(message, number), 500, media_type=JSON)
    headers = {"cache-control": "no-store"}
    if isinstance(made, Download):
        return Response(made.content, headers=headers, media_type=made.media_type)
    content = json.dumps(made, separators=(",", ":"), allow_nan=False)
    return Response(content, headers=headers, media_type=JSON)


def _refusal(status: int, message: str) -> Response:
    return Response(error_json(message), status, media_type=JSON)


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Answer unknown paths and methods."""
    return Response(error_json(str(error.detail)), error.status_code, error.headers, JSON)


def _static(files: dict[str, StaticFile]) -> Callable[..., Any]:
    """Return the endpoint of the page's files."""

    async def endpoint(request: Request) -> Response:
        file = files.get(request.scope["path"])
        if file is None:
            return _refusal(404, "there is no such page")
        headers = {"etag": file.etag, "cache-control": "no-cache", "vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        if file.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(file.compressed, headers=headers, media_type=file.media_type)
        return Response(file.content, headers=headers, media_type=file.media_type)

    return endpoint


class _Server(uvicorn.Server):
    """A server that does not wait for its connections."""

    def handle_exit(self, sig: int, frame: types.FrameType | None) -> None:
        """End the process."""
        ending.end(sig, frame)


def serve(app: Guard, listening: socket.socket) -> None:
    """Answer requests until the process ends."""
    config = uvicorn.Config(
        app,
        access_log=False,
        http="h11",
        lifespan="off",
        limit_concurrency=MAX_REQUESTS,
        log_level="warning",
        loop="asyncio",
        proxy_headers=False,
        server_header=False,
        ws="none",
    )
    _Server(config).run(sockets=[listening])

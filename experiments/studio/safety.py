"""Which requests are answered at all, and the headers of every reply. Plain ASGI.

A page of another origin can make a browser send requests to 127.0.0.1. Therefore:

* `Host` must be this machine's: a foreign name that resolves to 127.0.0.1 (DNS rebinding) is not.
* `Origin`, which browsers send with every POST, must equal `Host`; `Sec-Fetch-Site` must not say
  that another site is asking.
* When the server listens beyond loopback, requests need the token of the printed address. It is
  kept in a cookie that is never sent along from another site.
"""

from __future__ import annotations

import dataclasses
import hmac
import http.cookies
import ipaddress
import json
import secrets
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from experiments.studio.errors import FORBIDDEN, RefusedError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
# What the page may load and connect to. Beyond its own files:
# blob: and data: images are the drag image and the icons of the style sheet; blob: media is sound
# that the page made; styles in attributes are written by the score renderer. The SoundFont player
# needs WebAssembly for the samples of .sf3 files.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "style-src 'self' 'unsafe-inline'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
      names: values of `Host`, without a port, that are answered.
      any_address: answer to every IP address, too; for a server that listens beyond loopback.
      token: what requests must know; None on loopback.
      cookie: name of the cookie that holds the token.
    """

    names: tuple[str, ...] = LOOPBACK_NAMES
    any_address: bool = False
    token: str | None = None
    cookie: str = "studio"


class Guard:
    """Middleware that refuses what `Access` does not allow and adds `HEADERS` to all replies."""

    def __init__(self, app: App, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        sending = _with_headers(send)
        headers = _headers(scope)
        try:
            check_origin(headers, self._access)
            visit = first_visit(scope, self._access)
            if visit is None:
                check_token(headers, self._access)
        except RefusedError as error:
            await _reply(sending, error.status, error_json(error.message))
            return
        if visit is not None:
            await _reply(sending, 303, b"", location="/", **{"set-cookie": visit})
            return
        await self._app(scope, receive, sending)


def error_json(message: str, number: str | None = None) -> bytes:
    """Write an error: one line, and an id to find it in the log."""
    return json.dumps({"error": message, "id": number or new_id()}).encode()


def new_id() -> str:
    """Make the id of an error."""
    return secrets.token_hex(4)


def check_origin(headers: dict[str, str], access: Access) -> None:
    """Check `Host`, `Origin` and `Sec-Fetch-Site`.

    Raises:
      RefusedError: one of them is foreign.
    """
    host = headers.get("host", "")
    if not _is_known(host_name(host), access):
        raise RefusedError(FORBIDDEN, "Host: this server answers to its own address only")
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        raise RefusedError(FORBIDDEN, "Origin: another site cannot use this server")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise RefusedError(FORBIDDEN, "Sec-Fetch-Site: another site cannot use this server")


def host_name(host: str) -> str:
    """Return the name or address of a `Host` header without its port; "" if it is malformed."""
    try:
        parts = urllib.parse.urlsplit(f"//{host}")
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return ""
    is_plain = parts.netloc == host and "@" not in host
    return (parts.hostname or "") if is_plain else ""


def first_visit(scope: Scope, access: Access) -> str | None:
    """Return the cookie to set for the address that was printed, with its token; else None."""
    if access.token is None or scope["method"] != "GET" or scope["path"] != "/":
        return None
    query = urllib.parse.parse_qs(scope["query_string"].decode("latin-1"))
    given = query.get("token", [""])[0]
    if not _equal(given, access.token):
        return None
    return f"{access.cookie}={access.token}; Path=/; HttpOnly; SameSite=Strict"


def check_token(headers: dict[str, str], access: Access) -> None:
    """Check the token in the cookie, where one is needed.

    Raises:
      RefusedError: it is missing or wrong.
    """
    if access.token is None:
        return
    try:
        cookies = http.cookies.SimpleCookie(headers.get("cookie", ""))
    except http.cookies.CookieError:
        cookies = http.cookies.SimpleCookie()
    given = cookies[access.cookie].value if access.cookie in cookies else ""
    if not _equal(given, access.token):
        raise RefusedError(FORBIDDEN, "token: open the address that the studio printed")


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _is_known(name: str, access: Access) -> bool:
    """Tell whether a name or address is this machine's."""
    if name in access.names:
        return True
    if not access.any_address:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers of a request; of one that is repeated, all values."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name, text = raw.decode("latin-1"), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _with_headers(send: Send) -> Send:
    """Wrap `send` so that every reply has `HEADERS`."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *own]
        await send(message)

    return sending


async def _reply(send: Send, status: int, content: bytes, **headers: str) -> None:
    """Send a whole reply."""
    sent = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    encoded = [(name.encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": content})

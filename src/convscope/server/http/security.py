"""Access control: an ASGI middleware that checks every request before anything else sees it.

docs/explanation/security.md gives the reasons. Uses headers, methods and bytes; no routes, and nothing of convscope
but limits.
"""

import asyncio
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from secrets import token_urlsafe

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convscope.server.session import uploads

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Headers of every response, including refusals."""
MAX_JSON = 4_000_000
"""Maximum bytes of a JSON body: a painted image has up to 2 million (`message.PAINTED`), kernel edits take the rest."""
BODY_SECONDS = 30.0
"""Time limit for a client to send the body."""
MAX_WAITING = 256
"""Maximum number of concurrent requests; further ones get status 503."""
READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Access:
    """Who has access: clients that know the token and use one of the server's host names.

    >>> Access(new_token(), hosts=frozenset({"lab.example"})).knows("lab.example:8000")
    True
    """

    token: str = field(repr=False)
    hosts: frozenset[str] = frozenset()
    """Host names that are accepted in addition to loopback names."""

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server: a loopback name or one of `hosts`, with any port."""
        name = _name(host)
        return name is not None and (
            is_loopback(name) or name in {allowed.lower().strip("[]") for allowed in self.hosts}
        )


def new_token() -> str:
    """A random URL-safe secret of 256 bits."""
    return token_urlsafe(32)


def is_loopback(name: str) -> bool:
    """Whether a name or address is a loopback one.

    >>> [is_loopback(name) for name in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "localhost.example")]
    [True, True, True, False, False]
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_host(name: str) -> bool:
    """Whether this is a valid host name or address, without a port.

    >>> [is_host(name) for name in ("lab.example", "10.0.0.7", "::1", "lab.example:80", "http://lab.example")]
    [True, True, True, False, False]
    """
    return _name(name) == name.lower() or _name(f"[{name}]") == name.lower()


_HOST = re.compile(r"(?P<name>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


def _name(host: str) -> str | None:
    match = _HOST.fullmatch(host.lower())
    return match["name"].strip("[]") if match else None


class Refusal(Exception):
    """A rejected request: the response's status and message."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


class Guard:
    """The outermost middleware: rejects requests not meant for this server, limits bodies, adds headers."""

    def __init__(self, app: ASGIApp, access: Access, *, body_seconds: float = BODY_SECONDS) -> None:
        self.app, self.access, self.body_seconds = app, access, body_seconds
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the server has no WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return
        secured = _with_headers(send, private=scope["path"].startswith("/api"))
        try:
            limit = self._admit(scope)
        except Refusal as refusal:
            await _answer(secured, refusal)
            return
        self.active += 1
        try:
            await self.app(scope, _limited(receive, limit, self.body_seconds), secured)
        finally:
            self.active -= 1

    def _admit(self, scope: Scope) -> int:
        """Check the head of a request; returns the maximum number of bytes of its body."""
        headers = Head(scope)
        _check_origin(scope, headers, self.access)
        if scope["path"].startswith("/api"):
            _check_token(headers, self.access)
        elif scope["method"] not in READING:
            raise Refusal(405, "pages are read with GET; changes go to paths under /api.")
        if self.active >= MAX_WAITING:
            raise Refusal(503, f"{MAX_WAITING} requests are being answered; try again in a moment.")
        return _check_body(scope, headers)


class Head:
    """The headers of a request; a header that is looked up must not be repeated."""

    def __init__(self, scope: Scope) -> None:
        self.pairs: list[tuple[bytes, bytes]] = scope["headers"]

    def one(self, name: str) -> str | None:
        """The header's value, or None if it is absent."""
        values = [value for key, value in self.pairs if key.lower() == name.encode()]
        if len(values) > 1:
            raise Refusal(400, f"the request has {len(values)} {name} headers; only one is allowed.")
        return values[0].decode("latin-1").strip() if values else None


def _check_origin(scope: Scope, headers: Head, access: Access) -> None:
    """Check that Host names this server, Origin is the page's own, and no other site caused the request."""
    host = headers.one("host") or ""
    if not access.knows(host):
        raise Refusal(
            403, f"unknown host {host[:100]!r}: this server answers to localhost and to names given by --allow-host."
        )
    origin = headers.one("origin")
    if origin is not None and origin.lower() not in {f"http://{host.lower()}", f"https://{host.lower()}"}:
        raise Refusal(
            403, f"a page of {origin[:100]!r} may not send requests here; open the address that convscope printed."
        )
    site = headers.one("sec-fetch-site")
    if site in {None, "same-origin", "none"}:
        return
    # following a link from another site to the page itself is harmless; every other request from there is rejected
    is_link = headers.one("sec-fetch-mode") == "navigate" and headers.one("sec-fetch-dest") == "document"
    if not (is_link and scope["method"] in READING and scope["path"] == "/"):
        raise Refusal(403, "pages of other sites have no access; open the address that convscope printed.")


def _check_token(headers: Head, access: Access) -> None:
    scheme, _, token = (headers.one("authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(
        token.strip().encode("latin-1"), access.token.encode("latin-1")
    ):
        raise Refusal(401, "the token is missing or wrong; open the address that convscope printed.")


def _check_body(scope: Scope, headers: Head) -> int:
    """Check method, content type and declared length; returns the maximum number of bytes of the body."""
    if scope["method"] in READING:
        return 0
    if scope["method"] != "POST":
        raise Refusal(405, "only GET and POST are supported.")
    kind = (headers.one("content-type") or "").partition(";")[0].strip().lower()
    upload = scope["path"] == "/api/inputs"
    if kind not in (uploads.TYPES if upload else ("application/json",)):
        supported = ", ".join(uploads.TYPES) if upload else "application/json"
        raise Refusal(415, f"unsupported content type {kind[:100]!r}; use {supported}.")
    if headers.one("content-encoding") not in {None, "identity"}:
        raise Refusal(415, "compressed bodies are not supported; send the body uncompressed.")
    limit = uploads.MAX_BYTES if upload else MAX_JSON
    length = headers.one("content-length")
    if length is not None and (not length.isdecimal() or int(length[:20]) > limit):
        raise _too_large(limit)
    return limit


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the body is larger than the limit of {limit:,} bytes; send less.")


def _limited(receive: Receive, limit: int, seconds: float) -> Receive:
    """Wrap `receive` to limit the size and the duration of the body.

    Raises Starlette's own HTTPException, as its body readers let no other exception through.
    """
    received, complete, deadline = 0, False, None

    async def counted() -> Message:
        nonlocal received, complete, deadline
        if complete:  # the next message reports that the client disconnected
            return await receive()
        loop = asyncio.get_running_loop()
        deadline = deadline or loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            late = f"the body did not arrive within {seconds:g} seconds; send it again."
            raise HTTPException(408, late, {"Connection": "close"}) from None
        received += len(message.get("body", b""))
        complete = message["type"] != "http.request" or not message.get("more_body", False)
        if received > limit:
            refusal = _too_large(limit)
            raise HTTPException(refusal.status, refusal.message, {"Connection": "close"})
        return message

    return counted


def _with_headers(send: Send, *, private: bool) -> Send:
    """Wrap `send` to add the security headers; responses under /api must not be cached (`private`)."""
    extra = {**HEADERS, "Cache-Control": "no-store"} if private else HEADERS
    names = {name.lower().encode() for name in extra}

    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [(key, value) for key, value in message.get("headers", []) if key.lower() not in names]
            added = [(name.lower().encode(), value.encode()) for name, value in extra.items()]
            message = {**message, "headers": [*others, *added]}
        await send(message)

    return secured


async def _answer(send: Send, refusal: Refusal) -> None:
    """Send a refusal without reading the body, and close the connection."""
    body = json.dumps({"message": refusal.message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Around every request: the one error shape, the log line, the metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import msgspec
import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from media_gallery import metrics
from media_gallery.errors import BadRequest, GalleryError, MethodNotAllowed, NotFound, Unauthorized

log = structlog.get_logger()
METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Robots-Tag": "noindex",
}
"""Headers of every answer, so that nothing runs on this host and nobody indexes it."""
PRIVATE = {**ALWAYS, "Cache-Control": "no-store"}
"""Those of the API, whose answers are one account's."""

LINGER, UNSENT = 30.0, 64 * 1024 * 1024
"""Seconds for which the rest of a refused body is still read, and how many bytes of it."""
PAUSE = 5.0
"""Seconds without a byte after which it is not."""


def error_response(error: GalleryError, headers: Mapping[str, str] | None = None) -> Response:
    """The contract's error body with the headers that belong to it."""
    body = error.body()
    given = {**PRIVATE, **(headers or {}), **body.pop("headers", {})}
    if error.retry_after is not None:
        given["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        given["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body), error.status, given, "application/json")


class _Lingering(Response):
    """An answer before its request's end. What the client is still sending is read, or its system would tell it, and a
    proxy in between, of a broken connection instead of the answer. The server closes behind the answer's last byte, so
    that one is kept until then.
    """

    def __init__(self, given: Response) -> None:
        super().__init__(given.body, given.status_code)
        self.raw_headers = given.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[:-1], "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self._read(receive)
        await send({"type": "http.response.body", "body": self.body[-1:], "more_body": False})

    async def _read(self, receive: Receive) -> None:
        rest, more = UNSENT, True
        while more and rest >= 0:
            async with asyncio.timeout(PAUSE):
                message = await receive()
            rest -= len(message.get("body", b""))
            more = message.get("more_body", False)


class Cors(CORSMiddleware):
    """Starlette's, with refusals in their one shape."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return error_response(BadRequest(bytes(answer.body).decode()), kept)


class Errors:
    """Refusals in their one shape; what nobody foresaw is logged whole and answered with a neutral 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            pass
        except Exception as error:
            answer, begun = _answer(error), "status" in scope["state"]
            if begun and isinstance(error, GalleryError):  # the server closes what has no end, so the client knows
                log.warning("answer cut short", route=route_of(scope), reason=str(error))
            elif begun or answer.status_code == 500:
                log.exception("unforeseen error", method=scope["method"], route=route_of(scope))
            if not begun:
                waits = _unread(scope) and answer.status_code != 408  # who was too slow has been waited for
                await (_Lingering(answer) if waits else answer)(scope, receive, send)
        return None


def _unread(scope: Scope) -> bool:
    """Whether the request has a body that nobody has read to its end."""
    names = {name for name, _ in scope["headers"]}
    return bool({b"content-length", b"transfer-encoding"} & names) and not scope["state"].get("read")


def _answer(error: Exception) -> Response:
    if isinstance(error, GalleryError):
        return error_response(error)
    if isinstance(error, HTTPException):  # Starlette's own: an unknown path, a method that a path does not take
        if error.status_code == 405:
            return error_response(MethodNotAllowed(), error.headers)
        return error_response(NotFound("There is no such address"))
    return error_response(GalleryError())


def route_of(scope: Scope) -> str:
    """The route's pattern: unlike the path it names no file and no slot."""
    route: Any = scope.get("route")
    return route.path if route is not None else "-"


@cache
def _meters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return metrics.requests.labels(method, route, status), metrics.seconds.labels(route)


class Observe:
    """One log line and one count a request; a path may end in a slash or not, but for a file's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path: str = scope["path"]
        if path.endswith("/") and not path.startswith("/media/"):
            scope["path"] = path.rstrip("/") or "/"
        state, begun = scope.setdefault("state", {}), time.perf_counter()

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            self._note(scope, state.get("status", 499), time.perf_counter() - begun)
        return None

    @staticmethod
    def _note(scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        method = (
            scope["method"] if route != "-" and scope["method"] in METHODS else "-"
        )  # else anybody names new labels
        count, duration = _meters(method, route, status)
        count.inc()
        duration.observe(seconds)
        log.info(
            "request",
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            account=scope["state"].get("account"),
        )

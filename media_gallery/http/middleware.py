"""Around every request: the one error shape, the log line, the metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from media_gallery import metrics
from media_gallery.errors import GalleryError, MethodNotAllowed, NotFound, Unauthorized

log = structlog.get_logger()
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Robots-Tag": "noindex",
}
"""Headers of media and of every refusal, so that nothing runs on this host and nobody indexes it."""


def error_response(error: GalleryError, headers: Mapping[str, str] | None = None) -> Response:
    """The contract's error body with the headers that belong to it."""
    body = error.body()
    given = {**ALWAYS, **(headers or {}), **body.pop("headers", {})}
    if error.retry_after is not None:
        given["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        given["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body), error.status, given, "application/json")


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, GalleryError)
    return error_response(error)


async def unrouted(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: an unknown path, a method that a path does not take."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return error_response(MethodNotAllowed(), error.headers)
    return error_response(NotFound("There is no such address"))


class Errors:
    """What nobody foresaw is logged whole and answered with a neutral 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientDisconnect:
            scope["state"]["gone"] = True
        except Exception:
            log.exception("unforeseen error", method=scope["method"], route=route_of(scope))
            if not started:
                await error_response(GalleryError())(scope, receive, send)
        return None


def route_of(scope: Scope) -> str:
    """The route's pattern: unlike the path it names no file and no slot."""
    route: Any = scope.get("route")
    return route.path if route is not None else "-"


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
        scope.setdefault("state", {})
        begun, status = time.perf_counter(), 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            self._note(scope, status or 499, time.perf_counter() - begun)
        return None

    @staticmethod
    def _note(scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        metrics.requests.labels(scope["method"] if route != "-" else "-", route, status).inc()
        metrics.seconds.labels(route).observe(seconds)
        log.info(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            account=scope["state"].get("account"),
        )

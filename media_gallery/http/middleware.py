"""What is done for every request: errors in one form, the log line, the metrics."""

from __future__ import annotations

import asyncio
import logging
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
from media_gallery.errors import BadRequest, ClientTimeout, GalleryError, MethodNotAllowed, NotFound, Unauthorized
from media_gallery.http.proxies import address_of, shortened
from media_gallery.settings import Settings

log = structlog.get_logger()
GONE = 499
"""The status that is logged if the client went away before its answer."""
METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
OTHER = "other"
"""The label of any other method, since each label of a metric stays in memory for ever."""
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Robots-Tag": "noindex",
}
"""Headers of every answer, so that no script runs under this host and no search engine indexes it."""
PRIVATE = {**ALWAYS, "Cache-Control": "no-store"}
"""Headers of the API, whose answers are for one account."""

UNASKED = 1.0
"""Seconds between an answer and the reading of a body that the client has not sent yet (`Expect: 100-continue`): if it
is read sooner, the server may send `100` before the answer.
"""


def error_response(error: GalleryError, headers: Mapping[str, str] | None = None) -> Response:
    """The contract's error body with the headers that belong to it."""
    given = {**PRIVATE, **(headers or {}), **error.headers}
    if error.retry_after is not None:
        given["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        given["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(error.body()), error.status, given, "application/json")


class Linger:
    """Reads and throws away the rest of a request that is answered already (contract, "Errors").

    If nobody reads what a client sends, the client, or a proxy in front, gets a broken connection instead of the
    answer. Granian itself reads the rest after an answer that was sent whole, but not after one sent in pieces.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        coming = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        if not coming:
            return await self.app(scope, receive, send)
        unasked, late = headers.get(b"expect", b"").lower() == b"100-continue", False

        async def read() -> Message:
            nonlocal coming, unasked
            unasked = False
            message = await receive()
            coming = message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal late
            if message["type"] == "http.response.start" and coming:
                late = message["status"] == ClientTimeout.status
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self.app(scope, read, answer)
        if coming and not late:  # a client that was too slow is not waited for again
            if unasked:
                await asyncio.sleep(UNASKED)
            await self._throw_away(read)
        return None

    async def _throw_away(self, read: Receive) -> None:
        rest, coming = self.settings.linger_size, True
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.linger_time):
                while coming and rest > 0:
                    async with asyncio.timeout(self.settings.idle_timeout):
                        message = await read()
                    rest -= len(message.get("body", b""))
                    coming = message.get("more_body", False)


class Cors(CORSMiddleware):
    """Starlette's, with refusals in our form."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return error_response(BadRequest(bytes(answer.body).decode()), kept)


class Errors:
    """Answers refusals in one form; any other error is logged with its traceback and answered with a neutral 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            await self._break_off(scope, receive, send)
        except Exception as error:
            answer, begun = _answer(error), "status" in scope["state"]
            if begun and isinstance(error, GalleryError):  # the server closes the connection, so the client notices
                log.warning("answer cut short", route=route_of(scope), reason=str(error))
            elif begun or answer.status_code == 500:
                log.exception("unforeseen error", method=scope["method"], route=route_of(scope))
            if not begun:
                await answer(scope, receive, send)
        return None

    @staticmethod
    async def _break_off(scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, since a client with malformed chunks looks to us like one that has gone."""
        if "status" not in scope["state"]:
            await error_response(BadRequest("The body ends too early, or is malformed"))(scope, receive, send)
            if b"transfer-encoding" not in dict(scope["headers"]):
                scope["state"]["status"] = GONE


def _answer(error: Exception) -> Response:
    if isinstance(error, GalleryError):
        return error_response(error)
    if isinstance(error, HTTPException):  # Starlette's own: an unknown path, or a method that the path does not have
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
    """Writes one log line for each request, and counts it."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        state, begun = scope.setdefault("state", {}), time.perf_counter()

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            self._note(scope, state.get("status", GONE), time.perf_counter() - begun)
        return None

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        count, duration = _meters(method, route, status)
        count.inc()
        duration.observe(seconds)
        if not log.is_enabled_for(logging.INFO):
            return
        log.info(
            "request",
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            account=scope["state"].get("account"),
            **self._address(scope),
        )

    def _address(self, scope: Scope) -> dict[str, str]:
        """What the log line tells of the client's address."""
        if self.settings.log_address == "none":
            return {}
        address = address_of(scope, self.settings.trusted_proxies)
        return {"address": address if self.settings.log_address == "full" else shortened(address)}

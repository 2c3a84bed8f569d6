"""The route table: the whole API on one screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from media_gallery.errors import NotFound
from media_gallery.http import (
    account,
    files,
    media,
    multipart,
    pages,
    parameters,
    put,
    reference,
    shapes,
    slots,
    status,
)
from media_gallery.http.middleware import PRIVATE, Cors, Errors, Linger, Observe
from media_gallery.http.operations import Need, Operation
from media_gallery.http.request import Call, Services, read_parameters

BASE = "/api/v1"
DOCUMENT, DOCUMENT_PAGE, DOCUMENT_FILES = f"{BASE}/openapi.json", "/api/docs", "/api/docs/{file}"
"""Paths of the description of the table, for programs and for people, and of the files of the latter."""
PAGE, PAGE_FILES = "/", "/web/{version}/{file:path}"
"""Paths of the page for people, and of the files that it is made of."""

Files, Tokens, Infos = (
    shapes.PageOf[shapes.FileObject],
    shapes.PageOf[shapes.TokenInfo],
    shapes.PageOf[shapes.AccountInfo],
)
_UPLOAD: dict[str, Any] = {
    "params": parameters.Nothing,
    "answers": {201: shapes.FileObject},
    "refusals": (400, 403, 408, 413, 415, 429, 503, 507),
    "form": multipart.UploadParams,
}

API = (
    Operation("GET", "", status.about, parameters.Nothing, {200: shapes.Service}, needs="nothing"),
    Operation("POST", "/account/xmpp_code_request", account.request_code, parameters.CodeRequest,
              {201: shapes.CodeSent}, (400, 403, 429, 503), needs="nothing"),
    Operation("POST", "/account/xmpp_auth", account.sign_in, parameters.SignIn, {201: shapes.TokenIssued},
              (400, 403, 404, 429), needs="nothing"),
    Operation("GET", "/account/tokens", account.list_tokens, parameters.Paging, {200: Tokens}, (400,)),
    Operation("DELETE", "/account/tokens", account.revoke_token, parameters.TokenParams, {204: None}, (400, 404)),
    Operation("GET", "/account", account.get_account, parameters.Nothing, {200: shapes.OwnAccount}),
    Operation("DELETE", "/account", account.delete_account, parameters.AccountDelete, {204: None}, (400, 403, 404, 429),
              needs="token or code"),
    Operation("GET", "/account/quota", account.get_quota, parameters.JidParams, {200: shapes.Quota}, (400, 403, 404)),
    Operation("PUT", "/account/quota", account.set_quota, parameters.QuotaParams, {200: shapes.AccountQuota},
              (400, 403, 404), needs="admin"),
    Operation("GET", "/account/list", account.list_accounts, parameters.AccountListParams, {200: Infos}, (400, 403),
              needs="admin"),
    Operation("DELETE", "/account/list", account.remove_account, parameters.AccountRemove, {204: None}, (400, 403, 404),
              needs="admin"),
    Operation("GET", "/account/files", files.list_files_of, parameters.AccountFilesParams, {200: Files},
              (400, 403, 404), needs="admin"),
    Operation("GET", "/service", status.state, parameters.Nothing, {200: shapes.ServiceState}, (403,), needs="admin"),
    Operation("GET", "/files/slot", files.slot, parameters.SlotParams, {200: shapes.FileObject | shapes.SlotAnswer},
              (400, 403, 413, 429)),
    Operation("POST", "/files/upload", files.upload, **_UPLOAD),
    Operation("GET", "/files", files.list_files, parameters.FileListParams, {200: Files}, (400,)),
    Operation("DELETE", "/files", files.delete_files, parameters.DeleteParams, {204: None}, (400, 404), strict=True),
    Operation("GET", "/files/percent/{percent}", files.list_percent, parameters.PercentParams, {200: Files}, (400,)),
    Operation("DELETE", "/files/percent/{percent}", files.delete_percent, parameters.PercentDeleteParams, {204: None},
              (400,), strict=True),
    Operation("GET", "/files/stats", files.stats, parameters.StatsParams, {200: shapes.Statistics}, (400, 403, 404)),
    Operation("POST", "/avatar/upload", files.upload_avatar, **_UPLOAD),
    Operation("GET", "/avatar", files.list_avatars, parameters.ListParams, {200: Files}, (400,)),
    Operation("DELETE", "/avatar", files.delete_avatar, parameters.IdParams, {204: None}, (400, 404)),
)  # fmt: skip

PLAIN: dict[str, dict[str, Callable[[Call], Awaitable[Response]]]] = {
    "/media/{slot_id}/{name}": {"GET": media.media, "PUT": put.put},
    "/media/{before}/{slot_id}/{name}": {"GET": media.media, "PUT": put.put},
    "/slots/{secret}": {"GET": slots.give},
    "/healthz": {"GET": status.healthz},
    "/readyz": {"GET": status.readyz},
    "/metrics": {"GET": status.metrics_page},
}
"""What is not part of the API, by path and method."""


async def _check_need(call: Call, need: Need) -> None:
    """Check whether the client may make the call. Raises Unauthorized, Forbidden."""
    if need == "nothing" or (need == "token or code" and call.token is None):
        return
    await call.authenticate()
    if need == "admin":
        call.services.accounts.check_admin(call.caller)


def _answer(services: Services, operations: dict[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of one path: it finds the operation by method, reads its parameters and writes its answer."""

    async def endpoint(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        call = Call(services, request)
        await _check_need(call, operation.needs)
        params: Any = parameters.Nothing()
        if operation.params is not parameters.Nothing:
            params = await read_parameters(call, operation.params, operation.strict)
        answer = await operation.handler(call, params)
        status_code = next(iter(operation.answers))
        if answer is None:
            return Response(None, status_code, PRIVATE)
        return Response(msgspec.json.encode(answer), status_code, PRIVATE, "application/json")

    return endpoint


def _plain(
    services: Services, handlers: dict[str, Callable[[Call], Awaitable[Response]]]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](Call(services, request))

    return endpoint


def _route(path: str, endpoint: Callable[[Request], Awaitable[Response]], methods: Iterable[str] = ("GET",)) -> Route:
    """A route to a plain ASGI application, without Starlette's own handling of errors."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    route = Route(path, endpoint, methods=list(methods))
    route.app = app
    return route


def routes(services: Services) -> list[Route]:
    """All routes; media first, since it is requested most."""
    described = reference.Reference(API, services.settings.public_url)
    table = [_route(path, _plain(services, handlers), handlers) for path, handlers in PLAIN.items()]
    table += [_route(DOCUMENT, described.document), _route(DOCUMENT_PAGE, described.page)]
    table.append(_route(DOCUMENT_FILES, described.file))
    if services.settings.web_page:
        web = pages.Pages(services.settings)
        table += [_route(PAGE, web.page), _route(PAGE_FILES, web.file)]
    else:
        table.append(_route(PAGE, described.page))
    for path in dict.fromkeys(operation.path for operation in API):
        operations = {operation.method: operation for operation in API if operation.path == path}
        table.append(_route(BASE + path, _answer(services, operations), operations))
    return table


OLD = "/{old_address:path}"
"""Every path that is none of ours: files that were taken over from another service are found there."""


def _elsewhere(services: Services, unknown: ASGIApp) -> ASGIApp:
    """What answers where no route does: a file that had this address at another service; else `unknown`."""
    route = _route(OLD, _plain(services, {"GET": media.old}))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return await unknown(scope, receive, send)
        scope["route"] = route
        try:
            await route.app(scope, receive, send)
        except NotFound:
            del scope["route"]
            await unknown(scope, receive, send)
        return None

    return app


def _by_path(router: Router) -> ASGIApp:
    """Find a path without parameters in a table: the router would try the pattern of each route before it."""
    table = {route.path: route for route in router.routes if isinstance(route, Route) and "{" not in route.path}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        route = table.get(scope.get("path", ""))
        if route is None:
            return await router(scope, receive, send)
        scope.update(router=router, route=route, endpoint=route.endpoint, path_params={})
        return await route.handle(scope, receive, send)

    return app


class _Application(Starlette):
    """Starlette with our middleware alone: it would add two layers for errors, which `Errors` handles.

    Every path may end in a slash or not, except that of a file.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if path.endswith("/") and not path.startswith("/media/"):
            scope["path"] = path.rstrip("/") or "/"
        await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        app = _by_path(self.router)
        for cls, args, kwargs in reversed(self.user_middleware):
            app = cls(app, *args, **kwargs)
        return app


def application(services: Services, lifespan: Any) -> Starlette:
    """The ASGI application over the services."""
    cors = Middleware(
        Cors,
        allow_origins=services.settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"],
        allow_headers=["*", "Authorization"],
        expose_headers=["Content-Disposition", "Content-Range", "ETag", "Retry-After"],
        max_age=86400,
    )
    linger, observe = Middleware(Linger, services.settings), Middleware(Observe, services.settings)
    app = _Application(
        routes=routes(services),
        middleware=[linger, observe, cors, Middleware(Errors)],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = _elsewhere(services, app.router.not_found)
    return app

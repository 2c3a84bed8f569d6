"""`GET /media/SLOT_ID/NAME`: the bytes, for everybody who has the link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from media_gallery.errors import NotFound, RangeNotSatisfiable
from media_gallery.files import Content
from media_gallery.http.middleware import ALWAYS
from media_gallery.http.request import Call
from media_gallery.media_types import THUMBNAIL_TYPES, is_safe_inline

PLACEHOLDER = (Path(__file__).parent / "placeholder.webp").read_bytes()
AT_ONCE = 64 * 1024
"""Up to so many bytes are read and sent as one message: that is faster than to hand over a file."""
_YEAR = 31_536_000
_FOREVER = f"public, max-age={_YEAR}, immutable"


async def media(call: Call) -> Response:
    """Send a file or a thumbnail. Raises NotFound, RangeNotSatisfiable."""
    path = call.request.path_params
    try:
        content = await call.services.files.find(path["slot_id"], path["name"])
    except NotFound:
        return await old(call)  # addresses of another service may have begun with /media, too
    return await _send(call, content)


async def old(call: Call) -> Response:
    """Send a file that was taken over from another service, at the address that it had there. Raises as `media`."""
    return await _send(call, await call.services.files.find_old(call.request.scope["path"]))


async def _send(call: Call, content: Content) -> Response:
    files = call.services.files
    link, data, headers = content.link, content.data, _headers(content)
    if content.placeholder:
        for name in ("ETag", "Last-Modified", "Accept-Ranges"):  # of the thumbnail, which may be made later
            del headers[name]
        return Response(PLACEHOLDER, headers={**headers, "Cache-Control": "public, max-age=60"})
    if not_modified(call.request, headers):
        return Response(status_code=304, headers=headers)
    size = link.blob.size if data is None else len(data)
    span = _range(call.request, headers, size)
    prefix = call.services.settings.accel_prefix
    if prefix and data is None and _nginx_agrees(call.request, span) and (file := await files.file(link)):
        if span is None:
            del headers["Accept-Ranges"]  # nginx adds its own to a whole file
        return Response(headers={**headers, "X-Accel-Redirect": f"{prefix}/{file.place}"})
    start, end = span or (0, size)
    headers["Content-Length"] = str(end - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if span else 200
    if call.request.method == "HEAD":
        if data is None:
            await files.file(link)  # raises NotFound if the file is lost
        return Response(status_code=status, headers=headers)
    if data is not None:
        return Response(data[start:end], status, headers)
    if address := await files.address(link, headers["Content-Disposition"]):
        url, lifetime = address
        return _redirect(url, lifetime if content.left is None else min(lifetime, content.left))
    pieces = files.read(link, start, end)
    if end - start <= AT_ONCE:
        return Response(b"".join([piece async for piece in pieces]), status, headers)
    sends_files = "http.response.pathsend" in call.request.scope.get("extensions", {})
    if span is None and sends_files and (file := await files.file(link)):
        return _PathResponse(file.path, headers)
    return StreamingResponse(await _begun(pieces), status, headers)


def _redirect(url: str, lifetime: float) -> Response:
    """To the store itself; kept while its signature is surely valid. Who may read the file may know the address."""
    kept = f"private, max-age={int(lifetime / 2)}"
    return Response(status_code=302, headers={**ALWAYS, "Location": url, "Cache-Control": kept})


async def _begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same pieces, after the first has come: an error before that is answered in the contract's form."""
    first = await anext(pieces, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all_of_them()


def _headers(content: Content) -> dict[str, str]:
    link, thumbnail = content.link, content.thumbnail
    ext = thumbnail.rpartition(".")[2] if thumbnail else ""
    return {
        **ALWAYS,
        "Content-Type": THUMBNAIL_TYPES[ext] if thumbnail else link.media_type,
        "Content-Disposition": "inline" if thumbnail else disposition(link.media_type, link.name),
        "ETag": f'"{link.blob.sha256}{"-" + thumbnail if thumbnail else ""}"',
        "Last-Modified": _http_date(link.created_at // 1_000_000),
        "Cache-Control": _FOREVER if content.left is None else f"public, max-age={min(content.left, _YEAR)}",
        "Accept-Ranges": "bytes",
    }


@lru_cache(maxsize=1024)  # some files are asked for again and again
def _http_date(seconds: int) -> str:
    """A time since 1970 as headers tell it (RFC 9110, section 5.6.7)."""
    return formatdate(seconds, usegmt=True)


@lru_cache(maxsize=1024)
def disposition(media_type: str, name: str) -> str:
    """`Content-Disposition` (RFC 6266): inline only for safe types, and with the name of the file for downloads."""
    disposition_type = "inline" if is_safe_inline(media_type) else "attachment"
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    return f"{disposition_type}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def not_modified(request: Request, headers: dict[str, str]) -> bool:
    """Whether the client has what an answer with these headers brings (RFC 9110, section 13.2.2): `If-None-Match`
    decides if it is given, else `If-Modified-Since`, if the answer says when it was last changed.
    """
    tags = request.headers.get("if-none-match")
    if tags is not None:
        etag = headers["ETag"]
        return tags.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in tags.split(",")]
    since = request.headers.get("if-modified-since")
    return since is not None and "Last-Modified" in headers and _not_after(headers["Last-Modified"], since)


def _not_after(modified: str, moment: str) -> bool:
    try:
        return parsedate_to_datetime(modified) <= parsedate_to_datetime(moment)
    except (ValueError, TypeError, OverflowError):
        return False


def _nginx_agrees(request: Request, span: tuple[int, int] | None) -> bool:
    """Whether nginx, if it is given the file, answers this request as we would."""
    asked = request.headers
    return (
        request.method == "GET"
        and (span is not None or "range" not in asked)
        and not {"if-match", "if-unmodified-since"} & set(asked)
    )


def _range(request: Request, headers: dict[str, str], size: int) -> tuple[int, int] | None:
    """The requested part as [start, end); None for the whole file. Raises RangeNotSatisfiable."""
    asked = request.headers.get("range")
    condition = request.headers.get("if-range")
    if asked is None or request.method != "GET":
        return None
    if condition is not None and condition not in (headers["ETag"], headers["Last-Modified"]):
        return None
    return parse_range(asked, size)


def parse_range(asked: str, size: int) -> tuple[int, int] | None:
    """A `Range` header as [start, end); None for the whole file: for another unit, several ranges, or a malformed one.

    RFC 9110, section 14.2. Raises RangeNotSatisfiable if the range is outside the file.
    """
    unit, _, spec = asked.partition("=")
    first, dash, last = (part.strip() for part in spec.partition("-"))
    if unit.strip().lower() != "bytes" or not dash or not (first or last):
        return None
    if not all(not part or (part.isascii() and part.isdigit() and len(part) < 20) for part in (first, last)):
        return None
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < start:
            return None
    else:
        start, end = max(0, size - int(last)), size
    if start >= end:
        raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return start, end


class _PathResponse(Response):
    """A whole file, which the server sends itself (ASGI extension `http.response.pathsend`)."""

    def __init__(self, path: str, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.pathsend", "path": self.path})

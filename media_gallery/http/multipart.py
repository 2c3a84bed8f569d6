"""An upload's body as a stream: the file goes on as it comes, the other fields are gathered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from media_gallery.errors import BadRequest, GalleryError
from media_gallery.http.request import BODY, Call, Raw, chunks, convert
from media_gallery.http.shapes import METADATA, UploadParams
from media_gallery.models import Context
from media_gallery.uploads import Kept, Upload

OVERHEAD = BODY
"""Most bytes that a form may take beside its file."""
_FIELDS = 32
_UNSENT = 1024 * 1024
"""Bytes of a refused body that are still read, so that a client which is busy sending sees the answer."""


async def receive(call: Call, context: Context | None) -> Kept:
    """Take the upload that a request carries. What is refused leaves nothing behind.

    A declared size is checked before the body is read, another one as the bytes pass (contract, `files/upload/`).
    """
    content_type, options = parse_options_header(call.request.headers.get("content-type", ""))
    if content_type != "multipart/form-data" or not options.get("boundary"):
        raise BadRequest("An upload must be multipart/form-data")
    length = call.request.headers.get("content-length", "")
    declared = max(0, int(length) - OVERHEAD) if length.isdigit() else 0
    form = _Form(call, context, options["boundary"])
    body = chunks(call.request, call.services.settings.idle_timeout)
    try:
        form.upload = await call.services.uploads.begin(call.caller.account, declared)
        async for chunk in body:
            await form.feed(chunk)
        return await form.finish()
    except BaseException as error:
        if form.upload is not None:
            await form.upload.discard()
        if isinstance(error, GalleryError) and error.status != 408:
            await _drain(body)
        raise


async def _drain(body: AsyncIterator[bytes]) -> None:
    rest = _UNSENT
    with suppress(Exception):  # the body's end, or a fault: the request has failed already, for a better reason
        while rest >= 0:
            async with asyncio.timeout(1.0):
                rest -= len(await anext(body))


class _Form:
    """The parts of one upload, in whatever order they come."""

    def __init__(self, call: Call, context: Context | None, boundary: str) -> None:
        self.call, self.context = call, context
        self.upload: Upload | None = None
        self.parser = PushMultipartParser(boundary, max_segment_count=_FIELDS, strict=True)
        self.fields: dict[str, bytearray] = {}
        self.file: MultipartSegment | None = None
        self._part: MultipartSegment | None = None
        self._beside = 0

    async def feed(self, chunk: bytes) -> None:
        """Raises BadRequest for a form that is none, and what the upload refuses."""
        assert self.upload
        try:
            for event in self.parser.parse(chunk):
                if event is None:
                    self._part = None
                elif isinstance(event, (bytes, bytearray)):
                    if self._part is self.file:
                        await self.upload.write(bytes(event))
                    else:
                        self._gather(event)
                else:
                    await self._start(event)
        except ParserLimitReached as error:
            raise BadRequest("The form has too many or too long fields") from error
        except MultipartError as error:
            raise BadRequest("The form is malformed") from error

    async def _start(self, part: MultipartSegment) -> None:
        self._part = part
        if part.name != "file":
            self.fields[part.name.removesuffix("[]")] = bytearray()
            return
        if self.file is not None:
            raise BadRequest("One file at a time", fields={"file": "must come once"})
        self.file = part
        size = self._params().size
        if size is not None:  # said before the bytes: refused before they are read
            await self.call.services.uploads.admit(self.call.caller.account, size)

    def _gather(self, data: bytes | bytearray) -> None:
        assert self._part
        self._beside += len(data)
        field = self.fields[self._part.name.removesuffix("[]")]
        field += data
        if self._beside > OVERHEAD or len(field) > METADATA:
            raise BadRequest("A field is too long", fields={self._part.name: f"must be {METADATA} bytes at most"})

    def _params(self) -> UploadParams:
        raw: Raw = {}
        for name, value in self.fields.items():
            try:
                raw[name] = [value.decode()]
            except UnicodeDecodeError:
                raise BadRequest("Some parameters are wrong", fields={name: "must be UTF-8"}) from None
        return convert(raw, UploadParams, strict=False)

    async def finish(self) -> Kept:
        assert self.upload
        try:
            self.parser.close()
        except MultipartError as error:
            raise BadRequest("The form ends too early") from error
        if self.file is None:
            raise BadRequest("There is no file in the upload", fields={"file": "is required"})
        said: dict[str, Any] = {"name": self.file.filename or "", "part_type": self.file.content_type or None}
        return await self.upload.finish(self._params().offer(**said, context=self.context))

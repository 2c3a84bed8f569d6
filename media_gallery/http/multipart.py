"""An upload's body as a stream: the bytes of the file are passed on as they come, the other fields are gathered."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote_to_bytes

from msgspec import Meta, Struct
from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    content_disposition_unquote,
    parse_options_header,
)
from starlette.requests import Request

from media_gallery.errors import BadRequest
from media_gallery.http.parameters import METADATA, Count, Metadata, Text, read_metadata
from media_gallery.http.request import BODY, Call, Raw, chunks, convert, declared_length, query_parameters
from media_gallery.keeping import Kept
from media_gallery.models import Context, Digest
from media_gallery.names import clean_name
from media_gallery.offers import Offer
from media_gallery.uploads import Upload

OVERHEAD = BODY
"""Bytes that a form may have beside its file, at most."""
_FIELDS = 32
_NAME = re.compile(r";\s*filename\s*=\s*", re.IGNORECASE)
_VALUE = re.compile(r'("(?:\\.|[^\\])*?"(?=\s*(?:$|;\s*[\w*-]+\s*=))|[^";][^;]*+)')
"""A file name up to the quote that ends it: a quote that is not escaped, before the next parameter or the end."""
_FOREIGN_WORD, _LATIN_LETTER = re.compile(rb"[\x80-\xff]{3}"), re.compile(rb"[A-Za-z]")
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*([\w-]*)'[^';]*'([^;\s]*)", re.IGNORECASE)


class UploadParams(Struct):
    """The fields of an upload's form beside `file`."""

    media_type: Text | None = None
    context: Context | None = None
    metadata: Metadata = None
    size: Annotated[Count | None, Meta(description="Bytes; checked against what arrives")] = None
    hash: Annotated[Text | None, Meta(description="SHA-1 or SHA-256 in hex; checked against what arrives")] = None
    create_thumbnails: bool | None = None
    create_thumbnail: Annotated[bool | None, Meta(description="The same as `create_thumbnails`")] = None

    def offer(self, name: str, part_type: str | None, context: Context | None) -> Offer:
        """What the client says of the file. Raises BadRequest for metadata that is no JSON object."""
        wanted = self.create_thumbnails if self.create_thumbnails is not None else self.create_thumbnail
        return Offer(
            name=clean_name(name),
            size=self.size,
            digest=Digest.parse(self.hash) if self.hash else None,
            media_type=self.media_type,
            part_type=part_type,
            context=context or self.context,
            metadata=read_metadata(self.metadata),
            thumbnails=wanted is not False,
        )


def file_name(part: MultipartSegment) -> str:
    """The file name in a part's head, in any of the ways in which clients write it; the head is read as Latin-1.

    `filename*` is preferred to `filename` (RFC 6266, section 4.3; its coding is that of RFC 8187). A quote within a
    name should be escaped as in HTML (`%22`) or in RFC 2616, but often is not.
    """
    head = next(value for name, value in part.headerlist if name == "Content-Disposition")
    begin = _NAME.search(head)
    plain = _VALUE.match(head, begin.end()) if begin else None
    extended = _EXTENDED.search(head.replace(plain[0], "", 1) if plain else head)
    if extended and (given := unquote_to_bytes(extended[2])):
        return given.decode("latin-1") if extended[1].lower() == "iso-8859-1" else _decoded(given)
    name: str = content_disposition_unquote(plain[1].strip(), filename=True) if plain else part.filename or ""
    return _decoded(name.encode("latin-1"))


def _decoded(name: bytes) -> str:
    """A name as text: UTF-8, as it should be, or else the likelier of two code pages, told by its letters."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        stem = name.rpartition(b".")[0] or name
        cyrillic = _FOREIGN_WORD.search(stem) or not _LATIN_LETTER.search(stem)
        return name.decode("cp1251" if cyrillic else "cp1252", errors="replace")


async def receive(call: Call, context: Context | None) -> Kept:
    """Take the upload of a request. A refused one leaves nothing behind.

    A size that is declared is checked before the body is read, else as the bytes come (contract, `files/upload/`).
    """
    content_type, options = parse_options_header(call.request.headers.get("content-type", ""))
    if content_type != "multipart/form-data" or not options.get("boundary"):
        raise BadRequest("An upload must be multipart/form-data")
    parser, length = _parser(options["boundary"]), declared_length(call.request) or 0
    async with call.services.uploads.begin(call.caller.record, max(0, length - OVERHEAD), length) as upload:
        form = _Form(call.request, upload, parser, length)
        async for chunk in chunks(call.request, call.services.settings):
            await form.feed(chunk)
        return await upload.finish(form.offer(context))


def _parser(boundary: str) -> PushMultipartParser:
    """A parser of forms. Raises BadRequest."""
    try:
        # Latin-1 takes every byte, so that a name in another coding does not fail the upload.
        return PushMultipartParser(
            boundary, max_segment_count=_FIELDS, max_header_size=METADATA, header_charset="latin-1", strict=True
        )
    except MultipartError as error:
        raise BadRequest("The form's boundary is malformed") from error


class _Form:
    """The parts of one upload, in any order."""

    def __init__(self, request: Request, upload: Upload, parser: PushMultipartParser, length: int) -> None:
        self.request, self.upload, self.parser = request, upload, parser
        self._around = len(b"--%b\r\n\r\n\r\n" % parser.boundary)
        self._left = length - len(b"--%b--\r\n" % parser.boundary)
        """Bytes of the body that are left for the file: without the last boundary and the parts so far."""
        self.fields: dict[str, bytearray] = {}
        self.file: MultipartSegment | None = None
        self._part: MultipartSegment | None = None
        self._before, self._begun = bytearray(), False
        self._beside = 0

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body. Raises BadRequest if they are no form, and the refusals of the upload."""
        if not self._begun and not (chunk := self._begin(chunk)):
            return
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
            if not self._ended():
                raise BadRequest("The form is malformed") from error
            self._pass_over(chunk)

    def _begin(self, chunk: bytes) -> bytes:
        """The bytes so far once the first boundary has come, else none: text before it is allowed (RFC 2046, 5.1.1),
        but the parser refuses it in pieces.
        """
        self._before += chunk
        self._begun = b"--" + self.parser.boundary in self._before or len(self._before) > OVERHEAD
        return bytes(self._before) if self._begun else b""

    def _ended(self) -> bool:
        """Whether the last boundary has come."""
        try:
            self.parser.close()
        except MultipartError:
            return False
        return True

    def _pass_over(self, chunk: bytes) -> None:
        """Ignore what follows the last boundary: it is no part of the form (RFC 2046, 5.1.1).

        The parser refuses it if it comes in a packet of its own, as the last line break may.
        """
        self._beside += len(chunk)
        if self._beside > OVERHEAD:
            raise BadRequest("The form goes on behind its end")

    async def _start(self, part: MultipartSegment) -> None:
        self._part = part
        self._left -= self._around + sum(len(f"{name}: {value}\r\n") for name, value in part.headerlist)
        if part.name != "file":
            self.fields[part.name.removesuffix("[]")] = bytearray()
            return
        if self.file is not None:
            raise BadRequest("One file at a time", fields={"file": "must come once"})
        self.file = part
        size = self._params().size
        self.upload.received.whole = self._left
        if size is not None:  # a size before the file: check it before the bytes are read
            await self.upload.announce(size)

    def _gather(self, data: bytes | bytearray) -> None:
        assert self._part
        self._beside += len(data)
        self._left -= len(data)
        field = self.fields[self._part.name.removesuffix("[]")]
        field += data
        if self._beside > OVERHEAD or len(field) > METADATA:
            raise BadRequest("A field is too long", fields={self._part.name: f"must be {METADATA} bytes at most"})

    def _params(self) -> UploadParams:
        raw: Raw = query_parameters(self.request)
        for name, value in self.fields.items():
            try:
                raw[name] = [value.decode()]
            except UnicodeDecodeError:
                raise BadRequest("Some parameters are wrong", fields={name: "must be UTF-8"}) from None
        return convert(raw, UploadParams)

    def offer(self, context: Context | None) -> Offer:
        """What the client says of the file, once the form has ended. Raises BadRequest."""
        try:
            self.parser.close()
        except MultipartError as error:
            raise BadRequest("The form ends too early") from error
        if self.file is None:
            raise BadRequest("There is no file in the upload", fields={"file": "is required"})
        part_type = next((value for name, value in self.file.headerlist if name == "Content-Type"), None)
        return self._params().offer(file_name(self.file), part_type, context)

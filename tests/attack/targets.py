"""What the fuzzers call: the parsers of input from anybody. Each target takes bytes, and raises if a parser is wrong.

A parser returns a value, or raises a `GalleryError` that has a body. Anything else is a fault.
"""

from __future__ import annotations

import asyncio
import hmac
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import msgspec
from starlette.requests import Request

from media_gallery import external_slots
from media_gallery.errors import Forbidden, GalleryError, TooLarge
from media_gallery.http import API, multipart, parameters
from media_gallery.http.account import _code
from media_gallery.http.media import _range, disposition, not_modified, parse_range
from media_gallery.http.request import Call, read_parameters
from media_gallery.media_types import parse
from media_gallery.models import Account, AccountId, Caller, Jid
from media_gallery.names import clean_name, thumbnail_name
from media_gallery.offers import Offer, decide_type
from media_gallery.settings import Settings
from media_gallery.slot_tokens import SlotTokens, verify
from media_gallery.slots import Slots
from media_gallery.uploads import Received
from media_gallery.xmpp import Room
from media_gallery.xmpp.query import Services

SECRET = "a secret of thirty-two characters"
SETTINGS = Settings.model_validate(
    {"slots": True, "xmpp_jid": "upload.example.org", "xmpp_component_secret": "x", "slot_secret": SECRET}
)
CALLER = Caller(Account(AccountId(1), "anna@example.org", None, 0, 0, 0), 1, admin=False)
FORM, JSON, PAIRS = "multipart/form-data; boundary=b", "application/json", "application/x-www-form-urlencoded"
KINDS = tuple(dict.fromkeys((operation.params, operation.strict) for operation in API))


class _Upload:
    """Takes bytes as an upload does, and returns them."""

    def __init__(self, account: int, whole: int) -> None:
        self.data = b""
        self.received = Received(AccountId(account), "", whole=whole)

    async def announce(self, size: int) -> None:
        assert size >= 0

    async def write(self, chunk: bytes) -> None:
        self.data += chunk

    async def finish(self, offer: Offer) -> tuple[bytes, Offer]:
        return self.data, offer


class _Uploads:
    @asynccontextmanager
    async def begin(self, account: Account, least: int, whole: int) -> AsyncIterator[_Upload]:
        yield _Upload(account.id, whole)


class _Anyone:
    """Lets everybody upload what is not too large."""

    def check_allowed(self, jid: Jid, domains: object) -> None:
        assert Jid.parse(jid.bare) == jid

    async def permit(self, jid: str, size: int) -> None:
        assert size > 0
        if size > SETTINGS.max_file_size:
            raise TooLarge(max_file_size=SETTINGS.max_file_size)


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _room() -> Room:
    anyone: Any = _Anyone()
    tokens = SlotTokens(db=None, clock=lambda: 0, secret=SECRET)  # type: ignore[arg-type]
    return Room(Services(SETTINGS, Slots(anyone, anyone, tokens, "https://x", tokens.clock), tokens.clock, ()))


def call_of(method: str, query: bytes, content_type: str, pieces: list[bytes], *more: tuple[bytes, bytes]) -> Call:
    """A request whose body comes in these pieces; `more` are further headers."""
    scope = {"type": "http", "method": method, "path": "/", "scheme": "http", "server": ("x", 80), "root_path": "",
             "client": ("127.0.0.1", 1), "query_string": query,
             "headers": [(b"content-type", content_type.encode("latin-1")), *more]}  # fmt: skip
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    rest = iter([*messages, {"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(rest)

    services: Any = SimpleNamespace(settings=SETTINGS, uploads=_Uploads())
    return Call(services, Request(scope, receive), CALLER)


class Parsers:
    """The targets. They share one event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.room = _room()

    def close(self) -> None:
        self.loop.close()

    def _upload(self, content_type: str, pieces: list[bytes]) -> Any:
        try:
            return self.loop.run_until_complete(multipart.receive(call_of("POST", b"", content_type, pieces), None))
        except GalleryError as error:
            msgspec.json.encode(error.body())
            return error.status

    def upload(self, pieces: list[bytes]) -> Any:
        """The bytes and the fields of an upload, or the status of the refusal."""
        return self._upload(FORM, pieces)

    def multipart(self, data: bytes, content_type: str = FORM) -> Any:
        """However the body is cut, the answer and the bytes must be the same."""
        whole = self._upload(content_type, [data])
        for size in (1, 7, 64):
            if size == 1 and len(data) > 500:
                continue
            parts = self._upload(content_type, [data[i : i + size] for i in range(0, len(data), size)])
            # A single line feed in a head, which no client sends, is ignored in one packet and refused in several.
            odd = b"\n" in data.replace(b"\r\n", b"")
            assert parts == whole or (odd and parts == 400), (parts, whole)
        if isinstance(whole, tuple):
            file, offer = whole
            assert file in data
            name(offer.name)
            media_type, _ = decide_type(offer, file[:4096])
            header(disposition(media_type, offer.name))
            header(media_type)
        return whole

    def parameters(self, data: bytes) -> None:
        """Parse the data for every call: as a query, as a form of both kinds, and as JSON."""
        for kind, strict in KINDS:
            for query, body, content_type in (
                (data, b"", ""),
                (b"", data, PAIRS),
                (b"", data, JSON),
                (b"", data, FORM),
            ):
                call = call_of("GET" if query else "DELETE", query, content_type, [body])
                try:
                    params = self.loop.run_until_complete(read_parameters(call, kind, strict))
                    use(params)
                except GalleryError as error:
                    msgspec.json.encode(error.body())

    def head(self, name: bytes, value: bytes) -> None:
        """All that is read from the head of a request that has this header twice."""
        call = call_of("GET", b"", "", [], (name, value), (name, value), (b"range", b"bytes=0-0"))
        assert str(ip_address(call.address)) == call.address
        assert call.language == call.language.lower()
        assert call.token is None or call.token == call.token.strip()
        known = {"ETag": '"e"', "Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT"}
        try:
            not_modified(call.request, known)
            _range(call.request, known, 1000)
        except GalleryError as error:
            assert error.status == 416

    def stanzas(self, data: bytes) -> None:
        """An IQ as a server hands it on: with a type, a sender and an address."""
        try:
            iq = ET.fromstring(data)
        except (ET.ParseError, ValueError, LookupError):  # an unknown encoding
            return
        if iq.get("type") not in ("get", "set") or not iq.get("from"):
            return
        answer = self.loop.run_until_complete(self.room.answer(iq))
        told = ET.fromstring(answer or "")
        assert (told.get("id"), told.get("to")) == (iq.get("id", ""), iq.get("from"))
        assert told.get("type") in ("result", "error") and "internal-server-error" not in (answer or "")
        for put in told.iter("{urn:xmpp:http:upload:0}put"):
            slot, kept = put.attrib["url"].split("/")[-2:]
            verify(SECRET, (put[0].text or "").removeprefix("Bearer "), slot, name(unquote(kept)), 0)

    def permissions(self, data: bytes) -> None:
        """A token or a signature in an address: of anything, and of anything that is signed."""
        text = data.decode("latin-1")
        said = ".".join(map(_encoded, (b'{"alg":"HS256"}', data)))
        for token in (text, f"{said}.{_encoded(hmac.digest(SECRET.encode(), said.encode(), 'sha256'))}"):
            with suppress(Forbidden):
                claims = verify(SECRET, token, "slot", "name", 0)
                assert (claims.slot, claims.filename) == ("slot", "name") and 0 < claims.filesize < 2**63
        for version in external_slots.VERSIONS:
            with suppress(Forbidden):
                external_slots.check(SECRET, text, text, text, {version: text})
                raise AssertionError(text)

    def words(self, data: bytes) -> None:
        """JIDs, names, types and ranges."""
        text = data.decode("utf-8", "replace")
        name(clean_name(text))
        header(parse(text)[0] or "")
        try:
            span = parse_range(data.decode("latin-1"), 1000)
            assert span is None or 0 <= span[0] < span[1] <= 1000
        except GalleryError as error:
            assert error.status == 416
        try:
            jid = Jid.parse(text)
            assert Jid.parse(str(jid)) == jid, (text, jid)
            assert Jid.parse(jid.bare).bare == jid.bare
            str(jid).encode()
        except GalleryError as error:
            assert error.status == 400


def name(kept: str) -> str:
    """Check a name that is kept, and return it: it and its thumbnail's name are each one component of a path."""
    for one in (kept, thumbnail_name(kept)):
        assert one and one not in (".", "..") and not set(one) & set("/\\\0\r\n\u202e"), one
        assert len(one.encode()) <= 255, one
    assert clean_name(kept) == kept, kept
    return kept


def header(value: str) -> None:
    assert value.isascii() and all(c.isprintable() for c in value), value


def use(params: Any) -> None:
    """Compute from the parameters what the handlers compute before they call anything."""
    if isinstance(params, parameters.FilterParams):
        params.filter(with_avatars=True)
    if isinstance(params, parameters.DeleteParams) and params.file:
        parameters.parse_media_url(params.file)
    if isinstance(params, parameters.SlotParams):
        name(params.offer().name)
    for key in ("jid", "vhost"):
        if text := getattr(params, key, None):
            Jid.parse(text)
    if getattr(params, "code", None) is not None:
        _code(params.code)

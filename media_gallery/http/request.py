"""From a request to typed values: who calls, from where, with which parameters (wire contract, "Parameters")."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
from multipart import MultipartError, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from media_gallery.accounts import Accounts
from media_gallery.errors import BadRequest, ClientTimeout, TooLarge, Unauthorized
from media_gallery.files import Files
from media_gallery.http.proxies import address_of
from media_gallery.models import Caller
from media_gallery.settings import Settings
from media_gallery.slots import Slots
from media_gallery.uploads import Uploads

S = TypeVar("S", bound=msgspec.Struct)
BODY = 64 * 1024
"""Bytes of a body with parameters, at most."""
Raw = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers use; made by `app.build`."""

    settings: Settings
    accounts: Accounts
    files: Files
    uploads: Uploads
    slots: Slots
    check: Callable[[], Awaitable[None]]
    health: Callable[[], Awaitable[dict[str, str | None]]]


@dataclass(slots=True)
class Call:
    """One request, with what handlers ask of it."""

    services: Services
    request: Request
    _caller: Caller | None = None

    @property
    def caller(self) -> Caller:
        """Who calls, once authenticated. Raises Unauthorized."""
        if self._caller is None:
            raise Unauthorized
        return self._caller

    async def authenticate(self) -> None:
        """Find the caller by the bearer token. Raises Unauthorized."""
        self._caller = await self.services.accounts.authenticate(self.token or "")
        self.request.scope["state"]["account"] = self._caller.account

    @property
    def token(self) -> str | None:
        scheme, _, token = self.request.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    @property
    def address(self) -> str:
        """The client's IP address; trusted proxies may tell it."""
        return address_of(self.request.scope, self.services.settings.trusted_proxies)

    @property
    def language(self) -> str:
        """The language that the client prefers, as its primary subtag (RFC 9110, section 12.5.4)."""
        best, weight = "en", 0.0
        for choice in self.request.headers.get("accept-language", "").split(","):
            tag, _, rest = choice.partition(";")
            try:
                q = float(rest.strip().removeprefix("q=") or 1)
            except ValueError:
                continue
            if tag.strip() not in ("", "*") and q > weight:
                best, weight = tag.strip().partition("-")[0].lower(), q
        return best


def declared_length(request: Request) -> int | None:
    """Bytes of the body as the head tells; None if it comes in chunks, since then a length does not count (RFC 9112,
    section 6.3).
    """
    return None if "transfer-encoding" in request.headers else int(request.headers.get("content-length", "0"))


async def chunks(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ClientDisconnect; ClientTimeout if nothing comes for `idle_timeout` seconds, or less
    than `min_upload_rate` over so many seconds of waiting. Only time spent waiting for the client counts.
    """
    waited, came = 0.0, 0
    while True:
        begun = monotonic()
        try:
            async with asyncio.timeout(settings.idle_timeout):
                message = await request.receive()
        except TimeoutError:
            raise ClientTimeout from None
        waited += monotonic() - begun
        came += len(message.get("body", b""))
        if waited >= settings.idle_timeout:
            if message.get("more_body") and came < settings.min_upload_rate * waited:
                raise ClientTimeout("The client sends too slowly")
            waited, came = 0.0, 0
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


async def read_parameters(call: Call, struct: type[S], strict: bool) -> S:
    """The parameters of a request as a struct. Raises BadRequest with the fields that were wrong.

    `strict` refuses unknown parameters: it is for deletions, which would delete too much if one were ignored. Every
    deletion also refuses parameters that are empty or come twice.
    """
    raw = query_parameters(call.request)
    if call.request.method != "GET" or not raw:
        raw.update(await _body_parameters(call))
    return convert(raw, struct, strict, exact=strict or call.request.method == "DELETE")


def query_parameters(request: Request) -> Raw:
    return _pairs(parse_qsl(request.scope["query_string"].decode(errors="replace"), keep_blank_values=True))


async def _body_parameters(call: Call) -> Raw:
    if (declared_length(call.request) or 0) > BODY:
        raise TooLarge("The request is too large")
    body = b""
    async for chunk in chunks(call.request, call.services.settings):
        body += chunk
        if len(body) > BODY:
            raise TooLarge("The request is too large")
    content_type, options = parse_options_header(call.request.headers.get("content-type", ""))
    if not body.strip():
        return {}
    # COMPAT: curl and others call every body a form by default; but no form begins with a brace
    if content_type == "application/x-www-form-urlencoded" and not body.lstrip().startswith(b"{"):
        return _pairs(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    if content_type == "multipart/form-data":
        return _form(body, options.get("boundary", ""))
    try:
        values = msgspec.json.decode(body)  # COMPAT: some clients send JSON without its content type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("The body is not valid JSON") from error
    if not isinstance(values, dict):
        raise BadRequest("The body must be a JSON object")
    return {key.removesuffix("[]"): value if isinstance(value, list) else [value] for key, value in values.items()}


def _pairs(pairs: list[tuple[str, str]]) -> Raw:
    raw: Raw = {}
    for key, value in pairs:
        raw.setdefault(key.removesuffix("[]"), []).append(value)
    return raw


def _form(body: bytes, boundary: str) -> Raw:
    pairs: list[tuple[str, str]] = []
    try:
        with PushMultipartParser(boundary, max_segment_count=64, strict=True) as parser:
            for event in parser.parse(body):
                if event is None:
                    continue
                if isinstance(event, (bytes, bytearray)):
                    pairs[-1] = (pairs[-1][0], pairs[-1][1] + event.decode(errors="replace"))
                else:
                    pairs.append((event.name, ""))
    except MultipartError as error:
        raise BadRequest("The form is malformed") from error
    return _pairs(pairs)


def convert(raw: Raw, struct: type[S], strict: bool = False, exact: bool = False) -> S:
    """Raw parameters -> struct. Numbers and truth values may come as text, lists separated by commas.

    `strict` refuses unknown parameters; `exact` refuses empty ones, and those that come twice and are no lists.
    """
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    known = _fields(struct)
    for name, everything in raw.items():
        field = known.get(name)
        if field is None:
            if strict:
                wrong[name] = "is not known here"
            continue
        given = [value for value in everything if value is not None and value != ""]
        if field.listed:
            given = _listed(given)
        if exact and not field.listed and len(given) > 1:
            wrong[name] = "must come once"
        elif given:
            try:
                values[name] = msgspec.convert(given if field.listed else given[-1], field.type, strict=False)
            except (msgspec.ValidationError, ValueError, OverflowError) as error:
                wrong[name] = _sentence(str(error), field.choices)
        elif field.required and field.nullable and None in everything:
            values[name] = None
        elif exact:
            wrong[name] = "must not be empty"
    wrong |= {
        name: "is required"
        for name, field in known.items()
        if field.required and name not in values.keys() | wrong.keys()
    }
    if wrong:
        raise BadRequest("Some parameters are wrong", fields=wrong)
    return struct(**values)


@dataclass(frozen=True, slots=True)
class _Field:
    type: Any
    listed: bool
    required: bool
    nullable: bool
    choices: tuple[str, ...]
    """The words that it may be, if only some are allowed."""


@cache
def _fields(struct: type[msgspec.Struct]) -> dict[str, _Field]:
    """The fields of a struct, by name; remembered, since resolving types is slow."""
    return {
        field.name: _Field(
            field.type, _is_list(field.type), field.required, _is_nullable(field.type), tuple(_choices(field.type))
        )
        for field in msgspec.structs.fields(struct)
    }


def _bare(annotation: Any) -> Any:
    return annotation.__origin__ if get_origin(annotation) is Annotated else annotation


def _is_list(annotation: Any) -> bool:
    return get_origin(_bare(annotation)) is list


def _is_nullable(annotation: Any) -> bool:
    return type(None) in get_args(_bare(annotation))


def _choices(annotation: Any) -> Iterator[str]:
    for part in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield part
        else:
            yield from _choices(part)


def _listed(given: list[Any]) -> list[Any]:
    listed: list[Any] = []
    for value in given:
        listed += [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else [value]
    return listed


_NOUNS = {"int": "an integer", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
          "object": "an object", "null": ""}  # fmt: skip
_LIMITS = {
    ">=": "must be {} or more",
    "<=": "must be {} or less",
    "length >=": "must have {} characters at least",
    "length <=": "must have {} characters at most",
}
_EXPECTED = re.compile(r"Expected `([\w |]+)`(?: of)?(?: (length )?([<>]=) (\d+))?")


def _sentence(message: str, choices: tuple[str, ...]) -> str:
    """A message of msgspec -> a phrase for people, to follow the field's name."""
    if choices:
        return f"must be one of {', '.join(choices)}"
    expected = _EXPECTED.match(message)
    if expected is None:
        return "is malformed"
    nouns, length, sign, limit = expected.groups()
    if sign:
        return _LIMITS[(length or "") + sign].format(limit)
    return "must be " + " or ".join(filter(None, (_NOUNS.get(noun, noun) for noun in nouns.split(" | "))))

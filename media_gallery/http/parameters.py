"""The parameters of every call: what each may be, and what it means. The OpenAPI document is made from these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta, Struct

from media_gallery.errors import BadRequest
from media_gallery.media_types import registered
from media_gallery.models import (
    ACCOUNT_ORDERS,
    LINK_ORDERS,
    METADATA_DEPTH,
    SLOT_ID,
    Context,
    Digest,
    Filter,
    Window,
    nested_deeper,
)
from media_gallery.names import clean_name
from media_gallery.offers import Offer
from media_gallery.quantities import parse_moment

Count = Annotated[int, Meta(ge=0, le=2**63 - 1, extra_json_schema={"format": "int64"})]
Id = Count
Text = Annotated[str, Meta(max_length=1024)]
JidText = Annotated[str, Meta(min_length=1, max_length=3071)]
"""A JID: three parts of 1023 bytes at most (RFC 7622, section 3.1)."""
PAGE_SIZE, MOST = 50, 500
IDS = 500
"""Ids that one request may name, at most."""

METADATA = 16 * 1024
"""Bytes of a file's metadata, at most."""
Metadata = Annotated[str | dict[str, Any] | None, Meta(description="A JSON object, 16 KiB and 64 levels at most")]


def read_metadata(given: Metadata) -> dict[str, Any]:
    """The metadata as a JSON object, `{}` if none is given. Raises BadRequest if it is no object, too large, nested too
    deep, or holds what a database or a client cannot take.
    """
    if not given:
        return {}
    try:
        text = given.encode() if isinstance(given, str) else msgspec.json.encode(given)
        if len(text) > METADATA:
            raise ValueError("longer than 16 KiB")
        value = msgspec.json.decode(text, type=dict[str, Any])
        if nested_deeper(value, METADATA_DEPTH):
            raise ValueError("nested too deep")
        if "\\u0000" in msgspec.json.encode(value).decode():
            raise ValueError("null characters")
    except (msgspec.DecodeError, ValueError, RecursionError):
        rule = f"must be a JSON object of 16 KiB at most, nested {METADATA_DEPTH} deep at most"
        raise BadRequest("The metadata is malformed", fields={"metadata": rule}) from None
    return value


class Nothing(Struct):
    """No parameters."""


PageNumber = Annotated[int, Meta(ge=1, le=2**50, description="Counts from 1", extra_json_schema={"format": "int64"})]


def _both_ways(orders: tuple[str, ...]) -> Any:
    """The type of an `order_by`: one of the orders, with or without `-`."""
    return Literal[tuple(sign + order for order in orders for sign in ("", "-"))]


if TYPE_CHECKING:
    LinkOrder: TypeAlias = str
    AccountOrder: TypeAlias = str
else:
    LinkOrder, AccountOrder = _both_ways(LINK_ORDERS), _both_ways(ACCOUNT_ORDERS)
PageSize = Annotated[int, Meta(ge=1, description="Objects on a page, 500 at most")]


class Paging(Struct):
    page: PageNumber = 1
    obj_per_page: PageSize = PAGE_SIZE

    def window(self, order_by: str) -> Window:
        return Window.by(order_by, self.page, min(self.obj_per_page, MOST))


class FilterParams(Struct):
    id: Annotated[list[Id], Meta(description="Ids of file objects, 500 at most")] = []
    type: Annotated[
        Literal["image", "video", "voice", "file", "audio", "avatar"] | None,
        Meta(description="`file`: none of the other types; `audio`: every audio type, voice messages included"),
    ] = None
    context: list[Context] = []
    contexts: Annotated[list[Context], Meta(description="The same as `context`")] = []
    media_type: Annotated[Text | None, Meta(description="Contained in the media type; `*` stands for anything")] = None
    date_gte: Annotated[Text | None, Meta(description="A date or a time (ISO 8601, UTC if no zone is given)")] = None
    date_lte: Annotated[Text | None, Meta(description="A date or a time; a date includes that whole day")] = None
    size_gte: Annotated[Count | None, Meta(description="Bytes")] = None
    size_lte: Annotated[Count | None, Meta(description="Bytes")] = None
    name: Annotated[Text | None, Meta(description="Contained in the name, ignoring case")] = None

    def filter(self, with_avatars: bool) -> Filter:
        """The filter. Raises BadRequest for malformed dates, too many ids, and null characters, which no database
        takes.
        """
        if wrong := [key for key in ("media_type", "name") if "\0" in (getattr(self, key) or "")]:
            raise BadRequest("Some parameters are wrong", fields=dict.fromkeys(wrong, "must not hold null characters"))
        ids, contexts = tuple(dict.fromkeys(self.id)), tuple(dict.fromkeys([*self.context, *self.contexts]))
        if len(ids) > IDS:
            raise BadRequest("Some parameters are wrong", fields={"id": f"must be {IDS} ids at most"})
        return Filter(
            ids=ids,
            type=self.type,
            contexts=contexts,
            media_type=self.media_type and registered(self.media_type.lower()),
            since=self._time("date_gte", end=False),
            until=self._time("date_lte", end=True),
            size_gte=self.size_gte,
            size_lte=self.size_lte,
            name=self.name,
            with_avatars=with_avatars,
        )

    def _time(self, key: str, end: bool) -> int | None:
        text = getattr(self, key)
        try:
            return parse_moment(text, end) if text else None
        except (ValueError, OverflowError):
            raise BadRequest("Some parameters are wrong", fields={key: "must be an ISO 8601 date or time"}) from None

    @property
    def names_avatars(self) -> bool:
        return "avatar" in (*self.context, *self.contexts)


class ListParams(FilterParams):
    order_by: LinkOrder = "-created_at"
    page: PageNumber = 1
    obj_per_page: PageSize = PAGE_SIZE

    @property
    def paging(self) -> Paging:
        return Paging(self.page, self.obj_per_page)


class FileListParams(ListParams):
    percent: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | None,
        Meta(description="What `files/percent/N` lists, newest first, whatever else is said"),
    ] = None
    exclude_avatars: Annotated[bool, Meta(description="With `percent` alone")] = False


class AccountFilesParams(ListParams, kw_only=True):
    jid: JidText


class StatsParams(FilterParams):
    jid: Annotated[JidText | None, Meta(description="Administrators: another account")] = None


class DeleteParams(FilterParams):
    file: Annotated[Text | None, Meta(description="The URL of a file")] = None


class PercentParams(Paging):
    exclude_avatars: bool = False


class PercentDeleteParams(Struct):
    exclude_avatars: bool = False


class IdParams(Struct):
    id: Id


class SlotParams(Struct):
    name: str
    size: Annotated[Count, Meta(description="Bytes")]
    hash: Annotated[Text | None, Meta(description="SHA-1 or SHA-256 in hex, told apart by length")] = None
    media_type: Text | None = None
    context: Context | None = None
    metadata: Metadata = None

    def offer(self) -> Offer:
        """What the client says of the file. Raises BadRequest for metadata that is no JSON object."""
        digest = Digest.parse(self.hash) if self.hash else None
        metadata = read_metadata(self.metadata)
        return Offer(clean_name(self.name), self.size, digest, self.media_type, None, self.context, metadata)


class CodeRequest(Struct):
    jid: JidText
    type: Literal["message", "iq"] = "message"


class SignIn(Struct):
    jid: JidText
    code: str | int
    device: Text = ""
    client: Text = ""


class TokenParams(Struct):
    token_id: Id


class AccountDelete(Struct):
    jid: JidText | None = None
    code: str | int | None = None


class JidParams(Struct):
    jid: JidText | None = None


class QuotaParams(JidParams, kw_only=True):
    value: Annotated[Count | None, Meta(description="Bytes; `null`: the default")]


class AccountRemove(Struct):
    jid: JidText


class AccountListParams(Paging):
    vhost: Text | None = None
    search: Annotated[Text | None, Meta(description="Contained in the JID, ignoring case")] = None
    order_by: AccountOrder = "jid"


def parse_media_url(url: str) -> tuple[str, str]:
    """Slot id and name in a file's URL. Raises BadRequest if it is no such URL."""
    try:
        path = urlsplit(url).path
    except ValueError:  # a malformed host
        path = ""
    _, media, rest = path.rpartition("/media/")
    slot_id, _, name = rest.partition("/")
    if not media or not SLOT_ID.fullmatch(slot_id) or not name:
        raise BadRequest("Some parameters are wrong", fields={"file": "must be the URL of a file"})
    return slot_id, unquote(name)

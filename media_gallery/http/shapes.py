"""The shapes of the wire: parameters of every call and the bodies of answers. The OpenAPI document is made of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from media_gallery import models
from media_gallery.errors import BadRequest
from media_gallery.http.request import parse_time
from media_gallery.media_types import registered
from media_gallery.models import (
    ACCOUNT_ORDERS,
    CATEGORIES,
    LINK_ORDERS,
    METADATA_DEPTH,
    Account,
    Context,
    Digest,
    Filter,
    Link,
    Page,
    Usage,
    Window,
    avatar_thumbnail_name,
    clean_name,
    iso,
    nested_deeper,
    thumbnail_name,
)
from media_gallery.offers import Offer

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=1024)]
JidText = Annotated[str, Meta(min_length=1, max_length=3071)]
"""A JID: three parts of 1023 bytes at most (RFC 7622, section 3.1)."""
PAGE_SIZE, MOST = 50, 500
IDS = 500
"""Most ids that one request may name."""

METADATA = 16 * 1024
"""Most bytes of a file's metadata."""
Metadata = Annotated[str | dict[str, Any] | None, Meta(description="A JSON object, 16 KiB and 64 levels at most")]


def read_metadata(given: Metadata) -> dict[str, Any]:
    """A JSON object, `{}` where none is given. Raises BadRequest where it is none, too large, nested too deep, or holds
    what a database or a client could not take back.
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


# --- Parameters --------------------------------------------------------------------------------------------------


class Nothing(Struct):
    """No parameters."""


PageNumber = Annotated[int, Meta(ge=1, le=2**50, description="Counts from 1")]


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
        Meta(description="`file`: none of the other kinds; `audio`: every audio type, voice messages included"),
    ] = None
    context: list[Context] = []
    contexts: Annotated[list[Context], Meta(description="The same as `context`")] = []
    media_type: Annotated[Text | None, Meta(description="Contained in the media type; `*` stands for anything")] = None
    date_gte: Annotated[Text | None, Meta(description="A date or a time (ISO 8601, UTC where no zone is given)")] = None
    date_lte: Annotated[Text | None, Meta(description="A date or a time; a date includes that whole day")] = None
    size_gte: Annotated[Count | None, Meta(description="Bytes")] = None
    size_lte: Annotated[Count | None, Meta(description="Bytes")] = None
    name: Annotated[Text | None, Meta(description="Contained in the name, ignoring case")] = None

    def filter(self, with_avatars: bool) -> Filter:
        """Raises BadRequest for a date that is none, too many ids, and null characters, which no database takes."""
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
            return parse_time(text, end) if text else None
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
        """Raises BadRequest for metadata that is no JSON object."""
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


class AccountListParams(Paging):
    vhost: Text | None = None
    order_by: AccountOrder = "jid"


# --- Answers -----------------------------------------------------------------------------------------------------


class CodeSent(Struct):
    request_id: str
    api_jid: str


class TokenIssued(Struct):
    token: str
    expires: str


class TokenInfo(Struct):
    token_id: int
    device: str
    client: str
    created_at: str
    expires: str
    last_used: str | None
    current: bool


class Quota(Struct):
    quota: int
    used: int


class AccountQuota(Quota):
    jid: str


class SlotAnswer(Quota):
    max_file_size: int


class AccountInfo(Struct):
    jid: str
    quota: int
    used: int
    files: int
    created_at: str


class Hashes(Struct, rename={"sha256": "sha-256", "sha1": "sha-1"}):
    sha256: str
    sha1: str


class Thumbnail(Struct):
    url: str
    width: int
    height: int


class FileObject(Struct, kw_only=True):
    id: int
    slot_id: str
    name: str
    size: int
    media_type: str
    context: Context
    is_avatar: bool
    file: str
    hash: str
    hashes: Hashes
    created_at: str
    metadata: dict[str, Any]
    thumbnail: Thumbnail | None
    width: int | None
    height: int | None
    thumbnails: list[Thumbnail] | UnsetType = UNSET
    quota: Annotated[int | UnsetType, Meta(description="In the answer to an upload or a slot")] = UNSET
    used: Annotated[int | UnsetType, Meta(description="In the answer to an upload or a slot")] = UNSET


T = TypeVar("T")


class PageOf(Struct, Generic[T]):
    items: list[T]
    total_objects: int
    total_pages: int
    obj_per_page: int
    page: int


class Share(Struct):
    count: int
    used: int


class Statistics(Struct):
    images: Share
    videos: Share
    voices: Share
    files: Share
    avatars: Share
    total: Share
    quota: int


class Service(Struct):
    name: str
    version: str
    max_file_size: int
    default_quota: int
    rate_upload: str
    documentation: str


class Details(Struct):
    """Bytes that decided about a refusal."""

    quota: int | UnsetType = UNSET
    used: int | UnsetType = UNSET
    required: int | UnsetType = UNSET
    max_file_size: int | UnsetType = UNSET


class Error(Struct):
    status: int
    error: str
    fields: dict[str, str] | UnsetType = UNSET
    details: Details | UnsetType = UNSET


class Health(Struct):
    status: str


# --- From the domain to the wire ---------------------------------------------------------------------------------


def media_url(public_url: str, slot_id: str, name: str) -> str:
    return f"{public_url}/media/{slot_id}/{quote(name, safe='')}"


def parse_media_url(url: str) -> tuple[str, str]:
    """Slot id and name of a file's URL. Raises BadRequest where it is none of ours."""
    try:
        path = urlsplit(url).path
    except ValueError:  # a host that is none
        path = ""
    _, media, rest = path.rpartition("/media/")
    slot_id, _, name = rest.partition("/")
    if not media or not slot_id.isalnum() or not name:
        raise BadRequest("Some parameters are wrong", fields={"file": "must be the URL of a file"})
    return slot_id, unquote(name)


def file_object(link: Link, public_url: str, asked: Digest | None = None) -> FileObject:
    blob = link.blob
    thumbnail = None
    if link.pictured:  # COMPAT: the web client reads the URL of each image, film and avatar
        thumbnail = Thumbnail(media_url(public_url, link.slot_id, thumbnail_name(link.name)), 256, 256)
    answer = FileObject(
        id=link.id,
        slot_id=link.slot_id,
        name=link.name,
        size=blob.size,
        media_type=link.media_type,
        context=link.context,
        is_avatar=link.context == "avatar",
        file=media_url(public_url, link.slot_id, link.name),
        hash=asked.value if asked else blob.sha1,
        hashes=Hashes(blob.sha256, blob.sha1),
        created_at=iso(link.created_at),
        metadata=link.metadata,
        thumbnail=thumbnail,
        width=blob.width if link.pictured else None,
        height=blob.height if link.pictured else None,
    )
    if link.context == "avatar":
        answer.thumbnails = [
            Thumbnail(
                media_url(public_url, link.slot_id, avatar_thumbnail_name(size, link.name, link.avatar_format)),
                size,
                size,
            )
            for size in link.avatar_sizes(link.blob)
        ]
    return answer


def page_of(page: Page[Any], items: list[T]) -> PageOf[T]:
    return PageOf(items, page.total, page.pages, page.window.size, page.window.page)


def quota(known: models.Quota) -> Quota:
    return Quota(known.limit, known.used)


def account_info(account: Account, quota: models.Quota) -> AccountInfo:
    return AccountInfo(account.jid, quota.limit, quota.used, account.files, iso(account.created_at))


def statistics(usage: Usage, quota: models.Quota) -> Statistics:
    images, videos, voices, files, avatars = [Share(usage.files[c], usage.used[c]) for c in CATEGORIES]
    total = Share(sum(usage.files.values()), sum(usage.used.values()))
    return Statistics(images, videos, voices, files, avatars, total, quota.limit)

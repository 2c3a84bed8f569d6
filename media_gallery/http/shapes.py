"""The bodies of answers, and how they are made from values of the domain. The OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from media_gallery import models
from media_gallery.models import CATEGORIES, Account, Context, Digest, Link, Page, Usage
from media_gallery.names import avatar_thumbnail_name, media_url, thumbnail_name
from media_gallery.quantities import iso

Integer = Annotated[int, Meta(extra_json_schema={"format": "int64"})]
"""An id, a count, or a size in bytes. Formats are those of OpenAPI 3.1: they tell programs which type to keep it in."""
Moment = Annotated[str, Meta(description="ISO 8601, in UTC", extra_json_schema={"format": "date-time"})]
Address = Annotated[str, Meta(extra_json_schema={"format": "uri"})]


class CodeSent(Struct):
    request_id: str
    api_jid: str


class TokenIssued(Struct):
    token: str
    expires: Moment


class TokenInfo(Struct):
    token_id: Integer
    device: str
    client: str
    created_at: Moment
    expires: Moment
    last_used: Moment | None
    current: bool


class Quota(Struct):
    quota: Integer
    used: Integer


class AccountQuota(Quota):
    jid: str


class SlotAnswer(Quota):
    max_file_size: Integer


class AccountInfo(Struct):
    jid: str
    quota: Integer
    used: Integer
    files: Integer
    created_at: Moment


class OwnAccount(AccountInfo):
    admin: bool
    seen_by_admins: bool
    token_id: Integer


class Hashes(Struct, rename={"sha256": "sha-256", "sha1": "sha-1"}):
    sha256: str
    sha1: str


class Thumbnail(Struct):
    url: Address
    width: int
    height: int


class FileObject(Struct, kw_only=True):
    id: Integer
    slot_id: str
    name: str
    size: Integer
    media_type: str
    context: Context
    is_avatar: bool
    file: Address
    hash: str
    hashes: Hashes
    created_at: Moment
    metadata: dict[str, Any]
    thumbnail: Thumbnail | None
    width: int | None
    height: int | None
    thumbnails: list[Thumbnail] | UnsetType = UNSET
    quota: Annotated[Integer | UnsetType, Meta(description="In the answer to an upload or a slot")] = UNSET
    used: Annotated[Integer | UnsetType, Meta(description="In the answer to an upload or a slot")] = UNSET


T = TypeVar("T")


class PageOf(Struct, Generic[T]):
    items: list[T]
    total_objects: Integer
    total_pages: Integer
    obj_per_page: int
    page: Integer


class Share(Struct):
    count: Integer
    used: Integer


class Statistics(Struct):
    images: Share
    videos: Share
    voices: Share
    files: Share
    avatars: Share
    total: Share
    quota: Integer


class Service(Struct):
    name: str
    version: str
    max_file_size: Integer
    default_quota: Integer
    rate_upload: str
    documentation: Address


class ServiceState(Struct):
    """What is stored in all, in files and bytes, and what is wrong with each part of the service; null if it works."""

    accounts: Integer
    files: Integer
    used: Integer
    stored: Integer
    parts: dict[str, str | None]


class Details(Struct):
    """The numbers that decided about a refusal, in bytes; of a wrong code, the tries that are left."""

    quota: Integer | UnsetType = UNSET
    used: Integer | UnsetType = UNSET
    required: Integer | UnsetType = UNSET
    max_file_size: Integer | UnsetType = UNSET
    tries_left: int | UnsetType = UNSET


class Error(Struct):
    status: int
    error: str
    fields: dict[str, str] | UnsetType = UNSET
    details: Details | UnsetType = UNSET


# --- From the domain to the wire ---------------------------------------------------------------------------------


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

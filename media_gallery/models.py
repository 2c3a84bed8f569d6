"""The words of the domain as values: JIDs, digests, categories, quotas, pages. No I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any, Generic, Literal, NewType, TypeVar

import idna
import unicodedata2
from precis_i18n import get_profile

from media_gallery.errors import BadRequest
from media_gallery.media_types import THUMBNAIL_TYPES
from media_gallery.names import avatar_thumbnail_name, thumbnail_name

AccountId = NewType("AccountId", int)
Context = Literal["file", "voice", "avatar"]
Category = Literal["image", "video", "voice", "file", "avatar"]
CATEGORIES: tuple[Category, ...] = ("image", "video", "voice", "file", "avatar")

# --- JIDs (RFC 7622) ---------------------------------------------------------------------------------------------

_localpart = get_profile("UsernameCaseMapped")
# With the newest letters and emoji. Not for localparts: whether two of them are one account must not depend on which
# letters this Python can change to lower case.
_resourcepart = get_profile("OpaqueString", unicodedata=unicodedata2)
_LOCALPART_EXCLUDED = frozenset("\"&'/:<>@")  # RFC 7622, section 3.3.1
_PART_BYTES = 1023  # RFC 7622, section 3.1
_IP_LITERAL = re.compile(r"\[([0-9A-Fa-f:.]+)\]")  # without a zone, which only this machine knows (RFC 6874)
_UNNAMED = re.compile(r"sha1:[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Jid:
    """An XMPP address, prepared by RFC 7622: two spellings of one address compare equal."""

    local: str
    domain: str
    resource: str = ""

    @classmethod
    def parse(cls, text: str) -> Jid:
        """Prepare `text`. Raises BadRequest if it is no JID."""
        address, _, resource = text.strip().partition("/")
        local, at, domain = address.rpartition("@")
        try:
            if (at and not local) or ("/" in text and not resource):
                raise ValueError("empty part")
            return cls(
                _settled(_prepare_local, local) if local else "",
                _settled(_prepare_domain, domain),
                _settled(_resourcepart.enforce, resource) if resource else "",
            )
        except (ValueError, UnicodeError) as error:
            raise BadRequest(
                "This is not a valid JID", fields={"jid": "must be a JID such as anna@example.org"}
            ) from error

    @property
    def bare(self) -> str:
        return f"{self.local}@{self.domain}" if self.local else self.domain

    def __str__(self) -> str:
        return f"{self.bare}/{self.resource}" if self.resource else self.bare


def account_name(text: str) -> str:
    """The name of an account: its bare JID, here in any spelling, or `sha1:…`, as lists call one of whose JID only the
    SHA-1 is known. Raises BadRequest if it is neither.
    """
    return text.strip() if _UNNAMED.fullmatch(text.strip()) else Jid.parse(text).bare


def _settled(prepare: Callable[[str], str], part: str) -> str:
    """Prepare a part of a JID until it no longer changes, as RFC 8264, section 7, asks; else two spellings of one JID
    would be two accounts. Raises ValueError if it goes on changing, or is too long.
    """
    return _settle(prepare, part) if len(part) <= _PART_BYTES else _settle.__wrapped__(prepare, part)


@lru_cache(maxsize=1024)  # the same users, and above all the same domains, come again and again
def _settle(prepare: Callable[[str], str], part: str) -> str:
    for _ in range(4):
        before, part = part, prepare(part)
        if part == before:
            break
    else:
        raise ValueError("no end of changes")
    if not 1 <= len(part.encode()) <= _PART_BYTES:
        raise ValueError("length")
    return part


def _prepare_local(local: str) -> str:
    prepared: str = _localpart.enforce(local)
    if _LOCALPART_EXCLUDED & set(prepared):
        raise ValueError("localpart")
    return prepared


def _prepare_domain(domain: str) -> str:
    """The domain with U-labels in lower case, or an IPv6 address in brackets (RFC 7622, section 3.2)."""
    if domain.startswith("["):
        literal = _IP_LITERAL.fullmatch(domain)
        if not literal:
            raise ValueError("IP-literal")
        return f"[{IPv6Address(literal[1])}]"
    return prepared_domain(domain)


def prepared_domain(domain: str) -> str:
    """A domain name in the form that JIDs of accounts have. Raises ValueError if it is none."""
    mapped = idna.uts46_remap(domain, std3_rules=False, transitional=False)  # makes every kind of dot a `.`
    return idna.decode(idna.encode(mapped.rstrip(".")))


# --- Digests -----------------------------------------------------------------------------------------------------

_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest that a client sent, in lower-case hex. Algorithms are named as in XEP-0300."""

    algorithm: Literal["sha-1", "sha-256", "other"]
    value: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Tell the algorithm by the length. Other text is no error, but matches nothing (contract, `files/slot/`)."""
        value = text.strip().lower()
        if _HEX.fullmatch(value):
            if len(value) == 40:
                return cls("sha-1", value)
            if len(value) == 64:
                return cls("sha-256", value)
        return cls("other", value)


# --- Addresses ---------------------------------------------------------------------------------------------------

SLOT_ID, OWN_SLOT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}"), re.compile(r"[0-9a-f]{32}")
"""Names of slots: of all, and of those that this service makes. Others may use any character that needs no encoding
in URLs.
"""

# --- Categories --------------------------------------------------------------------------------------------------


def category_of(media_type: str, context: Context) -> Category:
    """The category under which statistics count a link."""
    if context == "avatar":
        return "avatar"
    if context == "voice":
        return "voice"
    if media_type.startswith("image/"):
        return "image"
    return "video" if media_type.startswith("video/") else "file"


# --- Metadata ----------------------------------------------------------------------------------------------------

METADATA_DEPTH = 64
"""Levels of objects and lists that metadata may have, since parsers of clients have limits."""


def nested_deeper(value: Any, most: int) -> bool:
    """Whether a value has more levels of objects and lists than `most`."""
    level = [value]
    for _ in range(most):
        nested = (outer.values() if isinstance(outer, dict) else outer for outer in level if _holds(outer))
        level = [inner for inners in nested for inner in inners]
    return any(map(_holds, level))


def _holds(value: Any) -> bool:
    return isinstance(value, (dict, list))


# --- Stored things -----------------------------------------------------------------------------------------------

AVATAR_SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
THUMBNAIL_SIZE = 256
_OWN_THUMBNAIL_FORMAT = {media_type: ext for ext, media_type in THUMBNAIL_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Account:
    """The owner of files, known by a bare JID. `quota` is its own limit, None if it has the default."""

    id: AccountId
    jid: str
    quota: int | None
    used: int
    files: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account may store, and what it stores, in bytes."""

    limit: int
    used: int

    @property
    def left(self) -> int:
        """Bytes that there is room for; below 0 if the limit was lowered."""
        return self.limit - self.used


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, through a token; `record` is the account as it was when the token was looked up."""

    record: Account
    token_id: int
    admin: bool

    @property
    def account(self) -> AccountId:
        return self.record.id

    @property
    def jid(self) -> str:
        return self.record.jid


@dataclass(frozen=True, slots=True)
class NewBlob:
    """Bytes that no row names yet. `decodable` is None until a decoder has tried them. Sizes in bytes and pixels."""

    key: str
    size: int
    sha256: str
    sha1: str
    width: int | None = None
    height: int | None = None
    decodable: bool | None = None
    in_database: bool = False
    """Whether the bytes are so few that the database keeps them. The store keeps all others, and all thumbnails."""
    data: bytes | None = field(default=None, repr=False, compare=False)
    """The bytes, if the database keeps them: of a new blob, or of one that is about to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob(NewBlob):
    """Bytes stored once, and the row that names them."""

    id: int


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link that is about to be made: its public directory, and what it says of its file.

    `expires_at`: from when on it is gone, in microseconds since 1970; None: it stays.
    """

    slot_id: str
    name: str
    media_type: str
    context: Context
    metadata: dict[str, Any]
    thumbnails: bool
    expires_at: int | None = field(default=None, kw_only=True)

    @property
    def belongs_in_tree(self) -> bool:
        """Whether other web servers may serve it: they do not know when a file is gone."""
        return self.expires_at is None

    @property
    def category(self) -> Category:
        return category_of(self.media_type, self.context)

    @property
    def pictured(self) -> Literal["image", "video"] | None:
        """Which decoder could make this link's thumbnail, by its media type alone; None if none could."""
        top_level = self.media_type.partition("/")[0]
        return top_level if top_level in ("image", "video") else None  # type: ignore[return-value]

    def thumbnail_files(self, blob: NewBlob | None = None) -> dict[str, str]:
        """The last part of every thumbnail URL of this link -> the thumbnail's file name in the store. Without a blob,
        whose measures may not be known yet, of every thumbnail that the link can ever have.

        Every image and film has one, even if none was wanted or can be made: it is made when it is asked for, or a
        placeholder is sent.
        """
        if not self.pictured:
            return {}
        names = {thumbnail_name(self.name): f"{THUMBNAIL_SIZE}.webp"}
        ext = self.avatar_format
        for size in self.avatar_sizes(blob):
            names[avatar_thumbnail_name(size, self.name, ext)] = f"{size}.{ext}"
        return names

    @property
    def avatar_format(self) -> str:
        return _OWN_THUMBNAIL_FORMAT.get(self.media_type, "webp")

    def avatar_sizes(self, blob: NewBlob | None) -> list[int]:
        """Sides of an avatar's thumbnails in pixels, smallest first; if it is given, all are smaller than it."""
        if self.context != "avatar" or not self.thumbnails:
            return []
        return [size for size in AVATAR_SIZES if blob is None or size < (blob.width or 0)]


@dataclass(frozen=True, slots=True)
class Link(NewLink):
    """One account's named reference to a blob, with its own URL; `created_at` in microseconds since 1970."""

    id: int
    account: AccountId
    created_at: int
    blob: Blob


# --- Lists -------------------------------------------------------------------------------------------------------

LINK_ORDERS = ("id", "created_at", "name", "size")
ACCOUNT_ORDERS = ("jid", "used", "quota")
"""What lists can be ordered by; on the wire and the command line, `-` before it means the falling order."""


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a list that is asked for: the `page`, counted from 1, with `size` items, in one of the orders that
    the list has. Lists that have one order only ignore `order`.
    """

    order: str
    descending: bool
    page: int
    size: int

    @classmethod
    def by(cls, order_by: str, page: int, size: int) -> Window:
        """`-name`: the falling order by name."""
        return cls(order_by.removeprefix("-"), order_by.startswith("-"), page, size)

    @property
    def direction(self) -> Literal["ASC", "DESC"]:
        return "DESC" if self.descending else "ASC"

    @property
    def before(self) -> int:
        """Items on the pages before this one."""
        return (self.page - 1) * self.size

    @property
    def end(self) -> int:
        """Items up to the end of this page."""
        return self.page * self.size


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """The items of a window on a list of `total` items."""

    items: list[T]
    total: int
    window: Window

    @property
    def pages(self) -> int:
        return -(-self.total // self.window.size)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which links of an account match: those that meet every condition given. Times in microseconds, sizes in bytes."""

    ids: tuple[int, ...] = ()
    slot_id: str | None = None
    type: str | None = None
    contexts: tuple[Context, ...] = ()
    media_type: str | None = None
    since: int | None = None
    until: int | None = None
    size_gte: int | None = None
    size_lte: int | None = None
    name: str | None = None
    with_avatars: bool = True
    oldest_to: tuple[int, int] | None = None
    """Time and id of the newest link that matches, for the oldest links of an account."""


@dataclass(slots=True)
class Usage:
    """Files and bytes of an account, by category."""

    files: dict[Category, int] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0))
    used: dict[Category, int] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0))

"""The tables for SQLAlchemy, from which migrations are made. Queries are in the modules beside this one.

Times are microseconds since 1970, sizes bytes. Indexes for lists of clients begin with the account.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    false,
    text,
)
from sqlalchemy import Text as AnyText

metadata = MetaData()
Text = AnyText().with_variant(AnyText(collation="C"), "postgresql")  # both databases order by code point
Big = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in a column declared INTEGER


def _id() -> Column[int]:
    return Column("id", Big, primary_key=True, autoincrement=True)


accounts = Table(
    "accounts",
    metadata,
    _id(),
    Column("jid", Text, unique=True),  # bare; NULL while a deletion is under way
    Column("vhost", Text, nullable=False),
    Column("quota", Big),  # NULL: the default
    Column("used", Big, nullable=False, server_default="0"),
    Column("files", Big, nullable=False, server_default="0"),
    Column("created_at", Big, nullable=False),
    Column("jid_sha1", Text),  # hex, of the bare JID: all that ejabberd tells of who uploads; NULL with the JID
    sqlite_autoincrement=True,
)
Index("accounts_jid_sha1", accounts.c.jid_sha1, unique=True)
Index("accounts_vhost", accounts.c.vhost, accounts.c.jid)

usage = Table(  # what an account holds by category, changed with the links in one transaction
    "usage",
    metadata,
    Column("account_id", Big, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("category", Text, primary_key=True),
    Column("files", Big, nullable=False),
    Column("used", Big, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    Column("account_id", Big, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("hash", Text, nullable=False, unique=True),  # SHA-256 of the token
    Column("device", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("created_at", Big, nullable=False),
    Column("expires", Big, nullable=False, index=True),
    Column("last_used", Big),
    sqlite_autoincrement=True,
)

codes = Table(
    "codes",
    metadata,
    _id(),
    Column("jid", Text, nullable=False, index=True),
    Column("hash", Text, nullable=False),  # scrypt of the code
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("expires", Big, nullable=False, index=True),
    sqlite_autoincrement=True,
)

blobs = Table(
    "blobs",
    metadata,
    _id(),
    Column("sha256", Text, nullable=False, unique=True),
    Column("sha1", Text, nullable=False, index=True),
    Column("size", Big, nullable=False),
    Column("key", Text, nullable=False, unique=True),  # where the store keeps it; never used again
    Column("links", Big, nullable=False),  # how many links name it; the row is removed with the last one
    Column("width", Integer),
    Column("height", Integer),
    Column("decodable", Boolean),  # NULL: no decoder has tried it yet
    Column("created_at", Big, nullable=False),
    Column("in_database", Boolean, nullable=False, server_default=false()),  # its bytes are in `contents`
    sqlite_autoincrement=True,
)

contents = Table(  # bytes of small blobs: cheaper here than as files of their own, and synced with the row
    "contents",
    metadata,
    Column("blob_id", Big, ForeignKey("blobs.id", ondelete="CASCADE"), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

links = Table(
    "links",
    metadata,
    _id(),
    Column("account_id", Big, ForeignKey("accounts.id"), nullable=False),
    Column("blob_id", Big, ForeignKey("blobs.id"), nullable=False),
    Column("slot_id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("folded", Text, nullable=False),  # the name without case, for search and order
    Column("size", Big, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("context", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("metadata", Text, nullable=False),  # JSON
    Column("thumbnails", Boolean, nullable=False),  # whether the link offers any
    Column("created_at", Big, nullable=False),
    Column("awaited_until", Big),  # for a slot hit: until when an upload may take it over
    Column("expires_at", Big),  # NULL: it stays
    sqlite_autoincrement=True,
)
_awaited = text("awaited_until IS NOT NULL")
Index("links_awaited", links.c.account_id, links.c.blob_id, sqlite_where=_awaited, postgresql_where=_awaited)
_expiring = text("expires_at IS NOT NULL")
Index("links_expiring", links.c.expires_at, sqlite_where=_expiring, postgresql_where=_expiring)
# Each ends with the category, so that a list without avatars is read from the index alone, in order.
Index("links_by_time", links.c.account_id, links.c.created_at, links.c.id, links.c.category)
Index("links_by_id", links.c.account_id, links.c.id, links.c.category)
Index("links_by_category", links.c.account_id, links.c.category, links.c.created_at, links.c.id)
Index("links_by_size", links.c.account_id, links.c.size, links.c.id, links.c.category)
Index("links_by_name", links.c.account_id, links.c.folded, links.c.id, links.c.category)
# The newest link of an account to some bytes, and its newest avatar of them.
Index("links_by_blob", links.c.blob_id, links.c.account_id, links.c.id)
_AVATARS = links.c.category == "avatar"
Index(
    "avatars_by_blob",
    *(links.c[n] for n in ("blob_id", "account_id", "id")),
    sqlite_where=_AVATARS,
    postgresql_where=_AVATARS,
)

trash = Table(  # keys of bytes that no row names any more, until the store has removed them
    "trash",
    metadata,
    Column("key", Text, primary_key=True),
    Column("created_at", Big, nullable=False),
)

old_addresses = Table(  # paths that files had at other services; a row outlives its link, so this is no foreign key
    "old_addresses",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 of the path, hex
    Column("link_id", Big, nullable=False),
    Column("thumbnail", Text),  # its name in the store; NULL: the file itself
)

secrets = Table(  # keys for signing, if the settings have none: made once, for all hosts
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

"""Queries on links and the blobs they name. Each takes the account that asks, and finds links of that account alone.

A blob's row counts its links. The transaction that removes the last one also moves the blob's key to `trash`. The bytes
are removed later; a key is never used again, so a late removal cannot touch a new upload of the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from media_gallery.db import Connection, Row
from media_gallery.db.accounts import add_usage
from media_gallery.db.filters import categories_of, conditions, counted
from media_gallery.errors import Conflict
from media_gallery.models import (
    LINK_ORDERS,
    METADATA_DEPTH,
    AccountId,
    Blob,
    Digest,
    Filter,
    Link,
    NewBlob,
    NewLink,
    Page,
    Usage,
    Window,
    nested_deeper,
)
from media_gallery.names import folded

IDS = 10_000
"""Ids of links read at a time."""
_ORDER_COLUMNS = {order: f"l.{order}" for order in LINK_ORDERS} | {"name": "l.folded"}
_OF_BLOB = ("id", "key", "size", "sha256", "sha1", "width", "height", "decodable", "in_database")
_BLOB = ", ".join(f"b.{column}" for column in _OF_BLOB)
_LINK = (
    "l.id, l.account_id, l.slot_id, l.name, l.media_type, l.context, l.metadata, l.thumbnails, l.created_at,"
    f" l.expires_at, {_BLOB}"
)
_FROM = "FROM links l JOIN blobs b ON b.id = l.blob_id"


def _blob(row: Row, data: bytes | None = None) -> Blob:
    id_, key, size, sha256, sha1, width, height, decodable, in_database = row
    tried = None if decodable is None else bool(decodable)
    return Blob(key, size, sha256, sha1, width, height, tried, bool(in_database), data, id=id_)


def _link(row: Row, data: bytes | None = None) -> Link:
    id_, account, slot_id, name, media_type, context, metadata, thumbnails, created_at, expires_at, *blob = row
    return Link(
        slot_id, name, media_type, context, _metadata(metadata), bool(thumbnails), id_, account, created_at,
        _blob(blob, data), expires_at=expires_at,
    )  # fmt: skip


def _metadata(text: str) -> dict[str, Any]:
    """The metadata stored; `{}` if it is nested deeper than is allowed now, since one row must not break a list."""
    if text == "{}":
        return {}
    try:
        known: dict[str, Any] = msgspec.json.decode(text)
    except RecursionError:
        return {}
    deep = text.count("{") + text.count("[") > METADATA_DEPTH and nested_deeper(known, METADATA_DEPTH)
    return {} if deep else known


# --- The way in --------------------------------------------------------------------------------------------------


async def insert_blob(c: Connection, blob: NewBlob, now: int) -> Blob:
    """Count one more link to the blob with these bytes, by SHA-256; if there is none, `blob` becomes it."""
    row = await c.one(
        "INSERT INTO blobs (key, size, sha256, sha1, width, height, decodable, in_database, links, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9) ON CONFLICT (sha256) DO UPDATE SET links = blobs.links + 1"
        f" RETURNING {', '.join(_OF_BLOB)}",
        blob.key, blob.size, blob.sha256, blob.sha1, blob.width, blob.height, blob.decodable, blob.in_database, now,
    )  # fmt: skip
    assert row
    made = _blob(row)
    if blob.in_database and made.key == blob.key:
        await c.run("INSERT INTO contents (blob_id, data) VALUES ($1, $2)", made.id, blob.data)
    return made


async def link_known_blob(c: Connection, blob: Blob) -> Blob | None:
    """Count one more link to a blob that was found before; None if it was removed meanwhile."""
    row = await c.one(f"UPDATE blobs SET links = links + 1 WHERE id = $1 RETURNING {', '.join(_OF_BLOB)}", blob.id)
    return _blob(row) if row else None


async def insert_link(
    c: Connection, account: AccountId, new: NewLink, blob: Blob, now: int, awaited_until: int | None = None
) -> Link:
    """`awaited_until`, for a slot hit: until when an upload of the same bytes takes over the link. Raises Conflict if
    the slot has a link already.
    """
    row = await c.one(
        "INSERT INTO links (account_id, blob_id, slot_id, name, folded, size, media_type, context, category, metadata,"
        " thumbnails, created_at, awaited_until, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
        " ON CONFLICT (slot_id) DO NOTHING RETURNING id",
        account, blob.id, new.slot_id, new.name, folded(new.name), blob.size, new.media_type, new.context,
        new.category, msgspec.json.encode(new.metadata).decode(), new.thumbnails, now, awaited_until,
        new.expires_at,
    )  # fmt: skip
    if row is None:
        raise Conflict
    return Link(
        new.slot_id, new.name, new.media_type, new.context, new.metadata, new.thumbnails, row[0], account, now, blob,
        expires_at=new.expires_at,
    )  # fmt: skip


async def find_awaited(
    c: Connection, account: AccountId, sha256: str, name: str, avatar: bool, now: int
) -> Link | None:
    """The account's newest slot hit that still awaits an upload of these bytes under this name."""
    row = await c.one(
        f"SELECT {_LINK} {_FROM} WHERE b.sha256 = $1 AND l.account_id = $2 AND l.awaited_until > $3 AND l.name = $4"
        f" AND l.context {'=' if avatar else '<>'} 'avatar' ORDER BY l.id DESC LIMIT 1",
        sha256, account, now, name,
    )  # fmt: skip
    return _link(row) if row else None


async def take_over(c: Connection, link: Link, new: NewLink, now: int) -> Link | None:
    """Give a slot hit what its upload says of the file; None if the hit was deleted or taken over meanwhile."""
    row = await c.one(
        "UPDATE links SET awaited_until = NULL, media_type = $3, context = $4, category = $5, metadata = $6,"
        " thumbnails = $7 WHERE id = $1 AND awaited_until > $2 RETURNING id",
        link.id, now, new.media_type, new.context, new.category,
        msgspec.json.encode(new.metadata).decode(), new.thumbnails,
    )  # fmt: skip
    if row is None:
        return None
    taken = replace(
        link, media_type=new.media_type, context=new.context, metadata=new.metadata, thumbnails=new.thumbnails
    )
    if taken.category != link.category:
        await add_usage(c, link.account, link.category, -1, -link.blob.size)
        await add_usage(c, link.account, taken.category, 1, link.blob.size)
    return taken


async def find_blob(c: Connection, sha256: str) -> Blob | None:
    row = await c.one(f"SELECT {_BLOB} FROM blobs b WHERE b.sha256 = $1", sha256)
    return _blob(row) if row else None


async def find_contents(c: Connection, blob_id: int) -> bytes | None:
    """The bytes of a blob that the database keeps; None if it was removed."""
    row = await c.one("SELECT data FROM contents WHERE blob_id = $1", blob_id)
    return row[0] if row else None


async def set_picture(c: Connection, blob: Blob, width: int | None, height: int | None, decodable: bool) -> None:
    """Store what the decoder found. A failure does not replace a success: a link may have named a wrong type."""
    await c.run(
        "UPDATE blobs SET width = $2, height = $3, decodable = $4 WHERE id = $1 AND ($4 OR decodable IS NULL)",
        blob.id, width, height, decodable,
    )  # fmt: skip


async def is_taken(c: Connection, slot_id: str) -> bool:
    """Whether a slot has its file."""
    return await c.one("SELECT 1 FROM links WHERE slot_id = $1", slot_id) is not None


# --- Looking -----------------------------------------------------------------------------------------------------


async def read_links(c: Connection, rest: str, *args: Any) -> list[Link]:
    """Links with their blobs; `rest` is the SQL after the tables `l` and `b`."""
    return [_link(row) for row in await c.all(f"SELECT {_LINK} {_FROM} {rest}", *args)]


async def find_by_slot(c: Connection, slot_id: str, now: int) -> Link | None:
    """The link at a public address: the only look-up without an account. Links of closed accounts are not found, nor
    those that have expired.
    """
    return await find_public(c, "l.slot_id = $1", slot_id, now)


async def find_public(c: Connection, where: str, value: str | int, now: int) -> Link | None:
    """The link that everybody may read, with its bytes, if the database keeps them. `where` is the condition in SQL,
    with `value` as `$1`.
    """
    row = await c.one(
        f"SELECT s.data, {_LINK} {_FROM} JOIN accounts a ON a.id = l.account_id"
        " LEFT JOIN contents s ON s.blob_id = b.id"
        f" WHERE {where} AND a.jid IS NOT NULL AND (l.expires_at IS NULL OR l.expires_at > $2)",
        value, now,
    )  # fmt: skip
    return _link(row[1:], row[0]) if row else None


async def find_by_digest(c: Connection, account: AccountId, digest: Digest, size: int, avatar: bool) -> Link | None:
    """The account's own newest link to these bytes. For an avatar only avatars count, since they were cropped.

    It finds the bytes first, then their newest link by an index, so it is fast however many links there are.
    """
    column = {"sha-1": "sha1", "sha-256": "sha256"}.get(digest.algorithm)
    if column is None:
        return None
    only = "AND category = 'avatar'" if avatar else ""
    newest = f"(SELECT MAX(id) FROM links WHERE blob_id = known.id AND account_id = $3 {only})"
    row = await c.one(
        f"SELECT {_LINK} {_FROM}"
        f" WHERE l.id = (SELECT MAX({newest}) FROM blobs known WHERE known.{column} = $1 AND known.size = $2)",
        digest.value, size, account,
    )  # fmt: skip
    return _link(row) if row else None


async def count_links(c: Connection, account: AccountId, wanted: Filter, usage: Usage | None = None) -> int:
    if counted(wanted):
        usage = usage or await get_usage(c, account)
        return sum(usage.files[category] for category in categories_of(wanted))
    where, args = conditions(c, account, wanted)
    row = await c.one(f"SELECT COUNT(*) FROM links l WHERE {where}", *args)
    assert row
    return int(row[0])


async def list_links(
    c: Connection, account: AccountId, wanted: Filter, window: Window, usage: Usage | None = None
) -> Page[Link]:
    """A page of links, ordered by one of LINK_ORDERS. `usage`: the account's, if the caller has it."""
    where, args = conditions(c, account, wanted, window.order)
    ordering = f"{_ORDER_COLUMNS[window.order]} {window.direction}"
    if window.order != "id":
        ordering += f", l.id {window.direction}"
    total = await count_links(c, account, wanted, usage)
    page = f"SELECT l.id FROM links l WHERE {where} ORDER BY {ordering} LIMIT ${len(args) + 1} OFFSET ${len(args) + 2}"
    # The blobs are joined to the page alone, not to what a deep page passes over.
    found = await read_links(c, f"WHERE l.id IN ({page}) ORDER BY {ordering}", *args, window.size, window.before)
    return Page(found, total, window)


async def get_usage(c: Connection, account: AccountId) -> Usage:
    return _usage(await c.all("SELECT category, files, used FROM usage WHERE account_id = $1", account))


async def count_usage(c: Connection, account: AccountId, wanted: Filter) -> Usage:
    """Usage of the links that a filter matches, counted one by one."""
    where, args = conditions(c, account, wanted)
    return _usage(
        await c.all(f"SELECT l.category, COUNT(*), SUM(l.size) FROM links l WHERE {where} GROUP BY l.category", *args)
    )


def _usage(rows: list[Row]) -> Usage:
    usage = Usage()
    for category, files, used in rows:
        usage.files[category], usage.used[category] = int(files), int(used)
    return usage


_OLDEST = """
    SELECT id FROM (
        SELECT id, created_at, SUM(size) OVER (ORDER BY created_at, id) - size AS before FROM links
        WHERE account_id = $1 AND ($2 = 0 OR category <> 'avatar')
    ) AS aged WHERE before * 100 < $3
"""


async def _oldest_args(c: Connection, account: AccountId, percent: int, exclude_avatars: bool) -> tuple[int, int, int]:
    row = await c.one("SELECT used FROM accounts WHERE id = $1", account)
    return account, int(exclude_avatars), (row[0] if row else 0) * percent


# --- The way out -------------------------------------------------------------------------------------------------


async def last_id(c: Connection, account: AccountId) -> int:
    """The account's newest link. Later ones have higher ids: each is inserted while the account's row is held."""
    row = await c.one("SELECT COALESCE(MAX(id), 0) FROM links WHERE account_id = $1", account)
    assert row
    return int(row[0])


async def select_ids(c: Connection, account: AccountId, wanted: Filter, after: int, last: int) -> list[int]:
    """The next ids after `after`, up to `last`, of the links that a filter matches."""
    where, args = conditions(c, account, wanted, "id")
    where += f" AND l.id > ${len(args) + 1} AND l.id <= ${len(args) + 2} ORDER BY l.id LIMIT {IDS}"
    return [row[0] for row in await c.all(f"SELECT l.id FROM links l WHERE {where}", *args, after, last)]


async def find_oldest_end(
    c: Connection, account: AccountId, percent: int, exclude_avatars: bool
) -> tuple[int, int] | None:
    """Time and id of the last of the oldest links whose sizes together first reach `percent` of what is used."""
    args = await _oldest_args(c, account, percent, exclude_avatars)
    row = await c.one(
        f"SELECT created_at, id FROM links WHERE account_id = $1 AND id IN ({_OLDEST})"
        " ORDER BY created_at DESC, id DESC LIMIT 1",
        *args,
    )
    return (row[0], row[1]) if row else None


@dataclass(frozen=True, slots=True)
class Removed:
    """What a deletion removed: slots, keys of bytes that nothing needs, and those of both that the trash names until
    the store has removed them.
    """

    slot_ids: list[str]
    keys: list[str]
    trash: list[str]


async def delete_links(c: Connection, account: AccountId, ids: Sequence[int], now: int, slots: bool = False) -> Removed:
    """Remove the account's links among `ids`, give the quota back, move keys of blobs without links to the trash.

    With `slots`, also the slots of the links, for a store that publishes them.
    """
    ours = f"id {c.among('$2')} AND account_id + 0 = $1"  # + 0: find by ids, never by the index of the account
    if slots:
        await c.run(
            "INSERT INTO trash (key, created_at) SELECT slot_id, CAST($3 AS BIGINT) FROM links"
            f" WHERE {ours} ON CONFLICT DO NOTHING",
            account, list(ids), now,
        )  # fmt: skip
    rows = await c.all(f"DELETE FROM links WHERE {ours} RETURNING slot_id, blob_id, size, category", account, list(ids))
    if not rows:
        return Removed([], [], [])
    await c.run(
        "UPDATE accounts SET files = files - $2, used = used - $3 WHERE id = $1",
        account, len(rows), sum(row[2] for row in rows),
    )  # fmt: skip
    for category in sorted({row[3] for row in rows}):
        sizes = [row[2] for row in rows if row[3] == category]
        await add_usage(c, account, category, -len(sizes), -sum(sizes))
    keys, slot_ids = await _unlink(c, Counter(row[1] for row in rows), now), [row[0] for row in rows]
    return Removed(slot_ids, keys, [*keys, *slot_ids] if slots else keys)


async def _unlink(c: Connection, counts: Counter[int], now: int) -> list[str]:
    """Take so many links off each blob; the keys of blobs that have none left are moved to the trash and returned."""
    if c.dialect == "postgresql":  # one order everywhere: no deadlocks
        await c.all(f"SELECT id FROM blobs WHERE id {c.among('$1')} ORDER BY id FOR UPDATE", list(counts))
    ended: list[Row] = []
    for count in set(counts.values()):
        ids = [blob_id for blob_id, its in counts.items() if its == count]
        left = await c.all(
            f"UPDATE blobs SET links = links - $1 WHERE id {c.among('$2')} RETURNING id, key, links", count, ids
        )
        ended += [row for row in left if row[2] <= 0]
    if ended:
        ids = [row[0] for row in ended]
        await c.run(
            "INSERT INTO trash (key, created_at) SELECT key, CAST($1 AS BIGINT) FROM blobs"
            f" WHERE id {c.among('$2')}",
            now, ids,
        )  # fmt: skip
        await c.run(f"DELETE FROM blobs WHERE id {c.among('$1')}", ids)
    return [row[1] for row in ended]

"""Queries on links and the blobs they name. Each takes the account that asks; another account's link is not there.

A blob's row counts its links. Whoever takes the last one away moves the blob's key to `trash` in the same transaction:
the bytes go later, and since a key is never used again, a late removal cannot touch a new upload of the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from media_gallery.db import Connection, Row
from media_gallery.db.accounts import add_usage
from media_gallery.models import (
    CATEGORIES,
    LINK_ORDERS,
    METADATA_DEPTH,
    AccountId,
    Blob,
    Category,
    Context,
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
"""Ids of links that are read at a time."""
_ORDER_COLUMNS = {order: f"l.{order}" for order in LINK_ORDERS} | {"name": "l.folded"}
_BLOB = "b.id, b.key, b.size, b.sha256, b.sha1, b.width, b.height, b.decodable"
_LINK = (
    f"l.id, l.account_id, l.slot_id, l.name, l.media_type, l.context, l.metadata, l.thumbnails, l.created_at, {_BLOB}"
)
_FROM = "FROM links l JOIN blobs b ON b.id = l.blob_id"
_CONTEXT_CATEGORIES: dict[Context, tuple[Category, ...]] = {
    "file": ("image", "video", "file"),
    "voice": ("voice",),
    "avatar": ("avatar",),
}


def _blob(row: Row) -> Blob:
    id_, key, size, sha256, sha1, width, height, decodable = row
    return Blob(key, size, sha256, sha1, width, height, None if decodable is None else bool(decodable), id=id_)


def _link(row: Row) -> Link:
    id_, account, slot_id, name, media_type, context, metadata, thumbnails, created_at, *blob = row
    known, thumbnails = _metadata(metadata), bool(thumbnails)
    return Link(slot_id, name, media_type, context, known, thumbnails, id_, account, created_at, _blob(blob))


def _metadata(text: str) -> dict[str, Any]:
    """What was stored; nothing where it is nested deeper than is taken now: one such row must not break a list."""
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
    """Count one more link to these bytes: to the blob already known by its SHA-256, or to `blob`, now known."""
    row = await c.one(
        "INSERT INTO blobs (key, size, sha256, sha1, width, height, decodable, links, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8) ON CONFLICT (sha256) DO UPDATE SET links = blobs.links + 1"
        " RETURNING id, key, size, sha256, sha1, width, height, decodable",
        blob.key, blob.size, blob.sha256, blob.sha1, blob.width, blob.height, blob.decodable, now,
    )  # fmt: skip
    assert row
    return _blob(row)


async def link_known_blob(c: Connection, blob: Blob) -> Blob | None:
    """Count one more link to a blob that was there a moment ago; None where it has gone."""
    row = await c.one(
        "UPDATE blobs SET links = links + 1 WHERE id = $1"
        " RETURNING id, key, size, sha256, sha1, width, height, decodable",
        blob.id,
    )
    return _blob(row) if row else None


async def insert_link(
    c: Connection, account: AccountId, new: NewLink, blob: Blob, now: int, awaited_until: int | None = None
) -> Link:
    """`awaited_until`, of a slot hit: until when an upload of the same takes the link over."""
    row = await c.one(
        "INSERT INTO links (account_id, blob_id, slot_id, name, folded, size, media_type, context, category, metadata,"
        " thumbnails, created_at, awaited_until)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING id",
        account, blob.id, new.slot_id, new.name, folded(new.name), blob.size, new.media_type, new.context,
        new.category, msgspec.json.encode(new.metadata).decode(), new.thumbnails, now, awaited_until,
    )  # fmt: skip
    assert row
    return Link(
        new.slot_id, new.name, new.media_type, new.context, new.metadata, new.thumbnails, row[0], account, now, blob
    )


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
    """Give a slot hit what its upload says of the file; None where it has gone, or another upload was first."""
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


async def set_picture(c: Connection, blob: Blob, width: int | None, height: int | None, decodable: bool) -> None:
    """Keep what the decoder has seen; a failure only where nobody has seen it: a link may have named a wrong type."""
    await c.run(
        "UPDATE blobs SET width = $2, height = $3, decodable = $4 WHERE id = $1 AND ($4 OR decodable IS NULL)",
        blob.id, width, height, decodable,
    )  # fmt: skip


# --- Looking -----------------------------------------------------------------------------------------------------


async def find_by_slot(c: Connection, slot_id: str) -> Link | None:
    """The link at a public address: the one look-up that belongs to no account. What a closed account has left is gone
    for everybody.
    """
    row = await c.one(
        f"SELECT {_LINK} {_FROM} JOIN accounts a ON a.id = l.account_id WHERE l.slot_id = $1 AND a.jid IS NOT NULL",
        slot_id,
    )
    return _link(row) if row else None


async def find_by_digest(c: Connection, account: AccountId, digest: Digest, size: int, avatar: bool) -> Link | None:
    """The account's own newest link to these bytes. Only an avatar can stand for an avatar: it was cropped.

    The bytes first, then their newest link by an index: neither an account nor a blob may have too many links for this.
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


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _where(c: Connection, account: AccountId, wanted: Filter, order: str = "created_at") -> tuple[str, list[Any]]:
    """The conditions of a filter, and their arguments from `$1` on; for a list in this order."""
    terms, args = ["l.account_id = $1"], [account]  # type: list[str], list[Any]

    def term(sql: str, value: Any) -> None:
        args.append(value)
        terms.append(sql.replace("?", f"${len(args)}"))

    categories = _categories(wanted)
    if len(categories) == 1 and order == "created_at":
        terms.append(f"l.category = '{categories[0]}'")
    else:  # what no index looks for, so that the rows come by that of the order, which has the category, too
        terms += [f"l.category <> '{category}'" for category in CATEGORIES if category not in categories]
    if wanted.ids:
        args.append(list(wanted.ids))
        terms.append(f"l.id {c.among(f'${len(args)}')}")
    if wanted.slot_id is not None:
        term("l.slot_id = ?", wanted.slot_id)
    if wanted.type == "audio":
        terms.append("l.media_type LIKE 'audio/%'")
    if wanted.media_type is not None:
        term("l.media_type LIKE ? ESCAPE '\\'", f"%{_like(wanted.media_type.lower()).replace('*', '%')}%")
    if wanted.since is not None:
        term("l.created_at >= ?", wanted.since)
    if wanted.until is not None:
        term("l.created_at <= ?", wanted.until)
    if wanted.size_gte is not None:
        term("l.size >= ?", wanted.size_gte)
    if wanted.size_lte is not None:
        term("l.size <= ?", wanted.size_lte)
    if wanted.oldest_to is not None:
        args += wanted.oldest_to
        time, link = f"${len(args) - 1}", f"${len(args)}"
        terms.append(f"(l.created_at < {time} OR l.created_at = {time} AND l.id <= {link})")
    if wanted.name is not None:
        term("l.folded LIKE ? ESCAPE '\\'", f"%{_like(folded(wanted.name))}%")
    return " AND ".join(terms), args


def _categories(wanted: Filter) -> tuple[Category, ...]:
    """Those that a filter lets through: a context is one or several of them."""
    named = {c for context in wanted.contexts for c in _CONTEXT_CATEGORIES[context]} or {*CATEGORIES}
    kind = None if wanted.type == "audio" else wanted.type
    return tuple(c for c in CATEGORIES if c in named and kind in (None, c) and (wanted.with_avatars or c != "avatar"))


def counted(wanted: Filter) -> bool:
    """Whether a filter is one of categories alone, so that the kept counts answer it."""
    alone = Filter(type=wanted.type, contexts=wanted.contexts, with_avatars=wanted.with_avatars)
    return wanted == alone and wanted.type != "audio"


def passed_over(usage: Usage, wanted: Filter, window: Window) -> int:
    """How many links of an account a list passes over at most, to its window's end, if its filter is `counted`."""
    categories = _categories(wanted)
    if len(categories) == 1 and window.order == "created_at":
        return window.end
    return window.end + sum(count for category, count in usage.files.items() if category not in categories)


async def count_links(c: Connection, account: AccountId, wanted: Filter, usage: Usage | None = None) -> int:
    if counted(wanted):
        usage = usage or await get_usage(c, account)
        return sum(usage.files[category] for category in _categories(wanted))
    where, args = _where(c, account, wanted)
    row = await c.one(f"SELECT COUNT(*) FROM links l WHERE {where}", *args)
    assert row
    return int(row[0])


async def list_links(
    c: Connection, account: AccountId, wanted: Filter, window: Window, usage: Usage | None = None
) -> Page[Link]:
    """A page of links, ordered by one of LINK_ORDERS. `usage` spares looking at it."""
    where, args = _where(c, account, wanted, window.order)
    ordering = f"{_ORDER_COLUMNS[window.order]} {window.direction}"
    if window.order != "id":
        ordering += f", l.id {window.direction}"
    total = await count_links(c, account, wanted, usage)
    page = f"SELECT l.id FROM links l WHERE {where} ORDER BY {ordering} LIMIT ${len(args) + 1} OFFSET ${len(args) + 2}"
    rows = await c.all(  # the blobs are joined to the page alone, not to what a deep page passes over
        f"SELECT {_LINK} {_FROM} WHERE l.id IN ({page}) ORDER BY {ordering}", *args, window.size, window.before
    )
    return Page([_link(row) for row in rows], total, window)


async def get_usage(c: Connection, account: AccountId) -> Usage:
    return _usage(await c.all("SELECT category, files, used FROM usage WHERE account_id = $1", account))


async def count_usage(c: Connection, account: AccountId, wanted: Filter) -> Usage:
    """Usage of the links that a filter lets through, counted one by one."""
    where, args = _where(c, account, wanted)
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
    """The next ids behind `after`, up to `last`, of the links a filter lets through."""
    where, args = _where(c, account, wanted, "id")
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
    """What a deletion took away: addresses that answer no more, keys of bytes that nothing needs, and what of them the
    trash names until the store has removed it.
    """

    slot_ids: list[str]
    keys: list[str]
    trash: list[str]


async def delete_links(c: Connection, account: AccountId, ids: Sequence[int], now: int, slots: bool = False) -> Removed:
    """Remove the account's links among `ids`, give the quota back, put the keys of unlinked blobs into the trash.

    With `slots`, those of the links as well, for a store that publishes them.
    """
    ours = f"id {c.among('$2')} AND account_id + 0 = $1"  # + 0: by the ids alone, never through all that it has
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
    """Count so many links less to each blob; keys of those that have none left, whose rows go to the trash."""
    if c.kind == "postgresql":  # one order everywhere: no deadlocks
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

"""Queries of gc and fsck: the trash, and passes over everything in bounded steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from media_gallery.db import Connection
from media_gallery.db.links import _FROM, _LINK, _link
from media_gallery.models import Link

STEP = 1000
"""Rows read at a time."""


async def list_trash(c: Connection) -> list[str]:
    return [row[0] for row in await c.all("SELECT key FROM trash ORDER BY created_at LIMIT $1", STEP)]


async def empty_trash(c: Connection, keys: Sequence[str]) -> None:
    for key in keys:
        await c.run("DELETE FROM trash WHERE key = $1", key)


async def needed_keys(c: Connection, keys: Sequence[str]) -> set[str]:
    """Those among `keys` that a blob or the trash still names."""
    places = ", ".join(f"${i + 1}" for i in range(len(keys)))
    rows = await c.all(
        f"SELECT key FROM blobs WHERE key IN ({places}) UNION SELECT key FROM trash WHERE key IN ({places})", *keys
    )
    return {row[0] for row in rows}


async def known_slots(c: Connection, slot_ids: Sequence[str]) -> set[str]:
    places = ", ".join(f"${i + 1}" for i in range(len(slot_ids)))
    return {row[0] for row in await c.all(f"SELECT slot_id FROM links WHERE slot_id IN ({places})", *slot_ids)}


@dataclass(frozen=True, slots=True)
class KeptBlob:
    id: int
    key: str
    size: int
    sha256: str


async def blobs_after(c: Connection, blob_id: int) -> list[KeptBlob]:
    rows = await c.all("SELECT id, key, size, sha256 FROM blobs WHERE id > $1 ORDER BY id LIMIT $2", blob_id, STEP)
    return [KeptBlob(*row) for row in rows]


async def links_after(c: Connection, link_id: int) -> list[Link]:
    return [
        _link(row)
        for row in await c.all(f"SELECT {_LINK} {_FROM} WHERE l.id > $1 ORDER BY l.id LIMIT $2", link_id, STEP)
    ]


async def links_of_blob(c: Connection, blob_id: int) -> list[Link]:
    return [_link(row) for row in await c.all(f"SELECT {_LINK} {_FROM} WHERE l.blob_id = $1", blob_id)]


async def count_blobs(c: Connection) -> int:
    row = await c.one("SELECT COUNT(*) FROM blobs")
    assert row
    return int(row[0])


async def wrong_counts(c: Connection) -> list[str]:
    """One sentence for each count that differs from what it counts."""
    blobs = await c.all(
        "SELECT b.key, b.links, COUNT(l.id) FROM blobs b LEFT JOIN links l ON l.blob_id = b.id"
        " GROUP BY b.id, b.key, b.links HAVING b.links <> COUNT(l.id) LIMIT $1",
        STEP,
    )
    accounts = await c.all(
        "SELECT a.id, a.used, a.files, COALESCE(SUM(l.size), 0), COUNT(l.id) FROM accounts a"
        " LEFT JOIN links l ON l.account_id = a.id GROUP BY a.id, a.used, a.files"
        " HAVING a.used <> COALESCE(SUM(l.size), 0) OR a.files <> COUNT(l.id) LIMIT $1",
        STEP,
    )
    usage = await c.all(
        "SELECT u.account_id, u.category FROM usage u LEFT JOIN links l"
        " ON l.account_id = u.account_id AND l.category = u.category GROUP BY u.account_id, u.category, u.files, u.used"
        " HAVING u.files <> COUNT(l.id) OR u.used <> COALESCE(SUM(l.size), 0) LIMIT $1",
        STEP,
    )
    return (
        [f"blob {key} counts {kept} links and has {real}" for key, kept, real in blobs]
        + [
            f"account {a} counts {used} bytes in {files} files and has {size} in {n}"
            for a, used, files, size, n in accounts
        ]
        + [f"account {account} has wrong statistics of category {category}" for account, category in usage]
    )


async def recount(c: Connection) -> None:
    """Count everything anew: links of blobs, use of accounts, statistics."""
    await c.run("UPDATE blobs SET links = (SELECT COUNT(*) FROM links l WHERE l.blob_id = blobs.id)")
    await c.run(
        "UPDATE accounts SET used = (SELECT COALESCE(SUM(size), 0) FROM links l WHERE l.account_id = accounts.id),"
        " files = (SELECT COUNT(*) FROM links l WHERE l.account_id = accounts.id)"
    )
    await c.run("DELETE FROM usage")
    await c.run(
        "INSERT INTO usage (account_id, category, files, used)"
        " SELECT account_id, category, COUNT(*), SUM(size) FROM links GROUP BY account_id, category"
    )


async def trash_unlinked(c: Connection, now: int) -> int:
    """Move blobs that no link names to the trash; how many."""
    await c.run("INSERT INTO trash (key, created_at) SELECT key, CAST($1 AS BIGINT) FROM blobs WHERE links = 0", now)
    return await c.run("DELETE FROM blobs WHERE links = 0")

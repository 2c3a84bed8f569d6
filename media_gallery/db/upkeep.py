"""Queries of gc and fsck: the trash, and walks over all rows in limited steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from media_gallery.db import Connection, Row
from media_gallery.db.links import read_links
from media_gallery.models import AccountId, Link

STEP = 1000
"""Rows read at a time."""
ACCOUNTS = 100
"""Accounts counted at a time: fewer, since each may have very many links."""


async def list_trash(c: Connection) -> list[str]:
    return [row[0] for row in await c.all("SELECT key FROM trash ORDER BY created_at LIMIT $1", STEP)]


async def empty_trash(c: Connection, keys: Sequence[str]) -> None:
    await c.run(f"DELETE FROM trash WHERE key {c.among('$1')}", list(keys))


async def list_expired(c: Connection, until: int) -> dict[AccountId, list[int]]:
    """Ids of links that expire until then, by account: as many as are removed at a time."""
    found: dict[AccountId, list[int]] = defaultdict(list)
    for account, link in await c.all(
        "SELECT account_id, id FROM links WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2", until, STEP
    ):
        found[AccountId(account)].append(link)
    return found


async def needed_keys(c: Connection, keys: Sequence[str]) -> set[str]:
    """The keys among `keys` that a blob or the trash still names."""
    given = c.among("$1")
    rows = await c.all(
        f"SELECT key FROM blobs WHERE key {given} UNION SELECT key FROM trash WHERE key {given}", list(keys)
    )
    return {row[0] for row in rows}


async def known_slots(c: Connection, slot_ids: Sequence[str]) -> set[str]:
    rows = await c.all(f"SELECT slot_id FROM links WHERE slot_id {c.among('$1')}", list(slot_ids))
    return {row[0] for row in rows}


async def is_empty(c: Connection) -> bool:
    """Whether there is no account and no file yet."""
    row = await c.one("SELECT (SELECT COUNT(*) FROM accounts) + (SELECT COUNT(*) FROM blobs)")
    return row is not None and row[0] == 0


@dataclass(frozen=True, slots=True)
class KeptBlob:
    """A blob's row. `held`: how many bytes of it the database has, if it keeps them."""

    id: int
    key: str
    size: int
    sha256: str
    in_database: bool
    held: int | None


async def blobs_after(c: Connection, blob_id: int, stored: bool = False) -> list[KeptBlob]:
    """The next blobs after an id; if `stored`, only those whose bytes are in the store."""
    rows = await c.all(
        "SELECT id, key, size, sha256, in_database, (SELECT LENGTH(data) FROM contents WHERE blob_id = b.id)"
        f" FROM blobs b WHERE id > $1 {'AND NOT in_database' if stored else ''} ORDER BY id LIMIT $2",
        blob_id, STEP,
    )  # fmt: skip
    return [KeptBlob(id_, key, size, sha256, bool(kept), held) for id_, key, size, sha256, kept, held in rows]


async def links_after(c: Connection, link_id: int) -> list[Link]:
    return await read_links(c, "WHERE l.id > $1 ORDER BY l.id LIMIT $2", link_id, STEP)


async def links_of_blob(c: Connection, blob_id: int) -> list[Link]:
    return await read_links(c, "WHERE l.blob_id = $1", blob_id)


async def count_stored_blobs(c: Connection) -> int:
    """How many blobs have their bytes in the store."""
    row = await c.one("SELECT COUNT(*) FROM blobs WHERE NOT in_database")
    assert row
    return int(row[0])


@dataclass(frozen=True, slots=True)
class Counted:
    """A blob or an account whose links were counted; a sentence for each stored count that is wrong."""

    id: int
    wrong: list[str]


async def blob_counts(c: Connection, blob_id: int) -> list[Counted]:
    """The next blobs after an id. A blob without a link is wrong, too: its row should have been removed."""
    rows = await c.all(
        "SELECT id, key, links, (SELECT COUNT(*) FROM links l WHERE l.blob_id = b.id) FROM blobs b"
        f" WHERE id > $1 ORDER BY id LIMIT {STEP}",
        blob_id,
    )
    return [
        Counted(row, [f"blob {key} counts {kept} links and has {real}"] if kept != real or not real else [])
        for row, key, kept, real in rows
    ]


async def account_counts(c: Connection, account: int) -> list[Counted]:
    """The next accounts after an id. One statement reads one moment, at which stored counts and links must agree."""
    rows = await c.all(  # the limit is in the text: else a planner may expect many accounts and read all links
        f"WITH step AS (SELECT id, files, used FROM accounts WHERE id > $1 ORDER BY id LIMIT {ACCOUNTS}), counted AS ("
        " SELECT account_id, category, COUNT(*) AS files, SUM(size) AS used FROM links"
        " WHERE account_id IN (SELECT id FROM step) GROUP BY account_id, category)"
        " SELECT id, '', files, used, TRUE FROM step"
        " UNION ALL SELECT account_id, category, files, used, TRUE FROM usage"
        " WHERE account_id IN (SELECT id FROM step)"
        " UNION ALL SELECT account_id, '', SUM(files), SUM(used), FALSE FROM counted GROUP BY account_id"
        " UNION ALL SELECT account_id, category, files, used, FALSE FROM counted",
        account,
    )
    kept = {(row[0], row[1]): (int(row[2]), int(row[3])) for row in rows if row[4]}
    real = {(row[0], row[1]): (int(row[2]), int(row[3])) for row in rows if not row[4]}
    wrong = defaultdict[int, list[str]](list)
    for id_, category in sorted(kept.keys() | real.keys()):
        files, used = kept.get((id_, category), (0, 0))
        count, size = real.get((id_, category), (0, 0))
        if (files, used) != (count, size):
            which = f"files of category {category}" if category else "files"
            wrong[id_].append(f"account {id_} counts {used} bytes in {files} {which} and has {size} in {count}")
    return [Counted(id_, wrong[id_]) for id_, category in sorted(kept) if not category]


async def _hold(c: Connection, table: str, row_id: int) -> Row | None:
    """Lock a row, so that what the next statements count does not change; SQLite locks everything anyway."""
    return await c.one(
        f"SELECT * FROM {table} WHERE id = $1" + (" FOR UPDATE" if c.dialect == "postgresql" else ""), row_id
    )


async def recount_blob(c: Connection, blob_id: int, now: int) -> None:
    """Count a blob's links anew; if it has none, move its key to the trash."""
    if await _hold(c, "blobs", blob_id) is None:
        return
    await c.run("UPDATE blobs SET links = (SELECT COUNT(*) FROM links WHERE blob_id = $1) WHERE id = $1", blob_id)
    unlinked = "FROM blobs WHERE id = $1 AND links = 0"
    await c.run(f"INSERT INTO trash (key, created_at) SELECT key, CAST($2 AS BIGINT) {unlinked}", blob_id, now)
    await c.run(f"DELETE {unlinked}", blob_id)


async def recount_account(c: Connection, account: int) -> None:
    """Count an account's links anew, in all and by category. Who adds or removes a link locks the row, too."""
    if await _hold(c, "accounts", account) is None:
        return
    await c.run("DELETE FROM usage WHERE account_id = $1", account)
    await c.run(
        "INSERT INTO usage (account_id, category, files, used)"
        " SELECT account_id, category, COUNT(*), SUM(size) FROM links WHERE account_id = $1"
        " GROUP BY account_id, category",
        account,
    )
    await c.run(
        "UPDATE accounts SET used = (SELECT COALESCE(SUM(used), 0) FROM usage WHERE account_id = $1),"
        " files = (SELECT COALESCE(SUM(files), 0) FROM usage WHERE account_id = $1) WHERE id = $1",
        account,
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole service; sizes in bytes. `used`: as quotas count; `stored`: each content once."""

    accounts: int
    files: int
    used: int
    blobs: int
    stored: int
    trash: int


async def count_all(c: Connection) -> Totals:
    """Count accounts, blobs and trash: it reads each of these rows."""
    of_accounts = await c.one("SELECT COUNT(*), COALESCE(SUM(files), 0), COALESCE(SUM(used), 0) FROM accounts")
    of_blobs = await c.one("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM blobs")
    of_trash = await c.one("SELECT COUNT(*) FROM trash")
    assert of_accounts and of_blobs and of_trash
    return Totals(*map(int, (*of_accounts, *of_blobs, *of_trash)))


async def count_quotas(c: Connection, default_quota: int, ratios: Sequence[float]) -> tuple[int, list[int]]:
    """The sum of all quotas in bytes, and for each ratio how many accounts use this part of their quota, or more."""
    real = "CAST({} AS DOUBLE PRECISION)".format
    limit = real("COALESCE(quota, $1)")  # a sum of large quotas is no 64-bit number
    filled = [
        f"COALESCE(SUM(CASE WHEN used > 0 AND {real('used')} >= {limit} * {real(ratio)} THEN 1 END), 0)"
        for ratio in ratios
    ]
    row = await c.one(f"SELECT COALESCE(SUM({limit}), 0), {', '.join(filled)} FROM accounts", default_quota)
    assert row
    quota, *found = map(int, row)
    return quota, found

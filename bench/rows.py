"""Makes rows quickly: accounts, links and blobs that are only in the database, good to list and to count."""

from __future__ import annotations

import hashlib

from media_gallery.app import Gallery
from media_gallery.db import Connection
from media_gallery.models import Jid
from tests.service import Service

OWN = 100
"""Links of each account."""
_SERIES = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM s WHERE n < $2)",
    "postgresql": "WITH s AS (SELECT generate_series(CAST($1 AS BIGINT), CAST($2 AS BIGINT)) AS n)",
}
_HEX = {"sqlite": "printf('%0{0}x', n)", "postgresql": "lpad(to_hex(n), {0}, '0')"}


async def fill(c: Connection, first: int, last: int, account: int | None = None) -> None:
    """Insert links and blobs with ids from `first` to `last`; slots, keys and digests differ as real ones do.

    All belong to one `account`, or OWN of them to each of the accounts that are made with them.
    """
    series, hexadecimal = _SERIES[c.dialect], _HEX[c.dialect].format
    if account is None:
        for number in range(first // OWN, last // OWN):
            jid = f"user{number}@example.org"
            await c.run(
                "INSERT INTO accounts (jid, vhost, created_at, jid_sha1) VALUES ($1, 'example.org', $2, $3)",
                jid, number, hashlib.sha1(jid.encode()).hexdigest(),
            )  # fmt: skip
    await c.run(
        f"{series} INSERT INTO blobs (id, key, size, sha256, sha1, links, created_at)"
        f" SELECT n, {hexadecimal(32)}, 1000 + n % 100000, {hexadecimal(64)}, {hexadecimal(40)}, 1, n FROM s",
        first, last - 1,
    )  # fmt: skip
    truth = "CAST(1 AS BOOLEAN)" if c.dialect == "postgresql" else "1"
    kinds = "'video/mp4' WHEN 1 THEN 'text/plain' ELSE 'image/jpeg'"
    categories = "'video' WHEN 1 THEN 'file' ELSE 'image'"
    await c.run(
        f"{series} INSERT INTO links (id, account_id, blob_id, slot_id, name, folded, size, media_type, context,"
        " category, metadata, thumbnails, created_at)"
        f" SELECT n, {account or f'n / {OWN} + 1'}, n, 'f' || {hexadecimal(31)}, 'file ' || n % 997 || '.jpg',"
        f" 'file ' || n % 997 || '.jpg', 1000 + n % 100000, CASE n % 4 WHEN 0 THEN {kinds} END, 'file',"
        f" CASE n % 4 WHEN 0 THEN {categories} END, '{{}}', {truth}, 1700000000000000 + n * 1000000 FROM s",
        first, last - 1,
    )  # fmt: skip
    accounts = (account, account) if account else (first // OWN + 1, last // OWN)
    await c.run("DELETE FROM usage WHERE account_id BETWEEN $1 AND $2", *accounts)
    await c.run(
        "INSERT INTO usage (account_id, category, files, used) SELECT account_id, category, COUNT(*), SUM(size)"
        " FROM links WHERE account_id BETWEEN $1 AND $2 GROUP BY account_id, category",
        *accounts,
    )
    await c.run(
        "UPDATE accounts SET used = (SELECT SUM(used) FROM usage u WHERE u.account_id = accounts.id),"
        " files = (SELECT SUM(files) FROM usage u WHERE u.account_id = accounts.id) WHERE id BETWEEN $1 AND $2",
        *accounts,
    )


async def ready(c: Connection) -> None:
    """Set the numbering as if the rows had come one by one."""
    if c.dialect == "postgresql":
        for table in ("accounts", "blobs", "links"):
            await c.one(f"SELECT setval('{table}_id_seq', (SELECT MAX(id) FROM {table}))")
        await c.run("ANALYZE")


def fill_account(service: Service, jid: str, files: int) -> None:
    """Give an account so many files. The account is made if it does not exist."""

    async def rows(c: Connection) -> None:
        account = await c.one("SELECT id FROM accounts WHERE jid = $1", jid)
        blob, link = await c.one("SELECT MAX(id) FROM blobs"), await c.one("SELECT MAX(id) FROM links")
        assert account and blob and link
        first = max(blob[0] or 0, link[0] or 0) + 1
        await fill(c, first, first + files, account[0])
        await ready(c)

    async def work(gallery: Gallery) -> None:
        await gallery.accounts.issue_token(Jid.parse(jid), "", "", admin=False)
        await gallery.db.write(rows, long=True)

    service.within(work)

"""`python -m bench.growth`: the same calls in a small database and in one of millions of links, side by side."""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import servers
from media_gallery.app import Gallery
from media_gallery.db import Connection
from tests.service import Service, User

OWN = 100
"""Links of each account."""
CALLS = 300
"""How often each call is timed."""
console = Console(width=None if sys.stdout.isatty() else 150)
_SERIES = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM s WHERE n < $2)",
    "postgresql": "WITH s AS (SELECT generate_series(CAST($1 AS BIGINT), CAST($2 AS BIGINT)) AS n)",
}
_HEX = {"sqlite": "printf('%0{0}x', n)", "postgresql": "lpad(to_hex(n), {0}, '0')"}


async def _fill(c: Connection, first: int, last: int) -> None:
    """Rows that differ as real ones do; ids from `first` to `last`, of links and of blobs."""
    series, hexadecimal = _SERIES[c.kind], _HEX[c.kind].format
    await c.run(
        f"{series} INSERT INTO accounts (jid, vhost, created_at)"
        " SELECT 'user' || n || '@example.org', 'example.org', n FROM s",
        first // OWN, last // OWN - 1,
    )  # fmt: skip
    await c.run(
        f"{series} INSERT INTO blobs (id, key, size, sha256, sha1, links, created_at)"
        f" SELECT n, {hexadecimal(32)}, 1000 + n % 100000, {hexadecimal(64)}, {hexadecimal(40)}, 1, n FROM s",
        first, last - 1,
    )  # fmt: skip
    truth = "CAST(1 AS BOOLEAN)" if c.kind == "postgresql" else "1"
    kinds = "'video/mp4' WHEN 1 THEN 'text/plain' ELSE 'image/jpeg'"
    categories = "'video' WHEN 1 THEN 'file' ELSE 'image'"
    await c.run(
        f"{series} INSERT INTO links (id, account_id, blob_id, slot_id, name, folded, size, media_type, context,"
        " category, metadata, thumbnails, created_at)"
        f" SELECT n, n / {OWN} + 1, n, {hexadecimal(32)}, 'file ' || n % 997 || '.jpg', 'file ' || n % 997 || '.jpg',"
        f" 1000 + n % 100000, CASE n % 4 WHEN 0 THEN {kinds} END, 'file', CASE n % 4 WHEN 0 THEN {categories} END,"
        f" '{{}}', {truth}, 1700000000000000 + n * 1000000 FROM s",
        first, last - 1,
    )  # fmt: skip


async def _ready(c: Connection) -> None:
    """Counts and numbering, as they would be had the rows come one by one."""
    await c.run(
        "INSERT INTO usage (account_id, category, files, used)"
        " SELECT account_id, category, COUNT(*), SUM(size) FROM links GROUP BY account_id, category"
    )
    await c.run(
        f"UPDATE accounts SET used = (SELECT SUM(used) FROM usage u WHERE u.account_id = accounts.id), files = {OWN}"
    )
    if c.kind == "postgresql":
        for table in ("accounts", "blobs", "links"):
            await c.one(f"SELECT setval('{table}_id_seq', (SELECT MAX(id) FROM {table}))")
        await c.run("ANALYZE")


def furnished(directory: Path, links: int, database: str) -> Service:
    service = Service(directory, DEFAULT_QUOTA="1 TB", LOG_LEVEL="warning", DATABASE_URL=database,
                      **{f"RATE_{name}": "none" for name in servers.RATES})  # fmt: skip
    service.cli("db", "upgrade")
    step = 200_000

    async def work(gallery: Gallery) -> None:
        for first in range(0, links, step):
            last = min(links, first + step)
            await gallery.db.write(lambda c, first=first, last=last: _fill(c, first, last))  # type: ignore[misc]
        await gallery.db.write(lambda c: _ready(c))

    service.within(work)
    return service.start()


def calls(service: Service, links: int) -> Iterator[tuple[str, Callable[[User, int], Any]]]:
    """What is timed; each call is of another account."""
    yield "list", lambda user, n: user.get("files/")
    yield "images by name", lambda user, n: user.get("files/", type="image", order_by="name")
    yield "name and size", lambda user, n: user.get("files/", name="file 1", size_gte=2000)
    yield "statistics", lambda user, n: user.get("files/stats/")
    yield "filtered statistics", lambda user, n: user.get("files/stats/", media_type="image/")
    yield "slot, a miss", lambda user, n: user.get("files/slot/", name="a", size=9, hash=os.urandom(20).hex())
    yield "upload 4 KB", lambda user, n: user.send(os.urandom(4096), "new.bin", "application/x-new")
    yield "media, a miss", lambda user, n: user.service.http.get(f"/media/{os.urandom(16).hex()}/a")
    yield "delete by id", lambda user, n: user.delete("files/", id=user.oldest)


class _Owner(User):
    """A user who knows its own oldest file."""

    oldest = 0


def times(service: Service, links: int) -> dict[str, tuple[float, float]]:
    """Median and p99 of each call, in milliseconds."""
    dice, found = random.Random(1), {}
    owners = []
    for account in dice.sample(range(links // OWN), min(CALLS, links // OWN)):
        user = service.user(jid=f"user{account}@example.org")
        owner = _Owner(service, user.jid, user.token)
        owner.oldest = owner.items(order_by="id", obj_per_page=1)[0]["id"]
        owners.append(owner)
    for name, call in calls(service, links):
        taken = []
        for number in range(CALLS):
            owner = owners[number % len(owners)]
            if name.startswith("delete") and number >= len(owners):
                break
            begun = time.perf_counter()
            answer = call(owner, number)
            taken.append((time.perf_counter() - begun) * 1000)
            assert answer.status_code < 500, answer.text
        found[name] = (statistics.median(taken), sorted(taken)[int(len(taken) * 0.99)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--links", type=int, default=10_000_000)
    parser.add_argument(
        "--database", help="URL of a PostgreSQL server; databases gallery_small and gallery_large are used"
    )
    options = parser.parse_args()
    table = Table(box=None)
    for name in ("call", "10,000: median", "p99", f"{options.links:,}: median", "p99", "ratio"):
        table.add_column(name, justify="left" if name == "call" else "right")
    with tempfile.TemporaryDirectory(prefix="gallery-growth-") as place:
        results = []
        for name, links in (("small", 10_000), ("large", options.links)):
            directory = Path(place) / name
            directory.mkdir()
            begun = time.perf_counter()
            service = furnished(directory, links, f"{options.database}/gallery_{name}" if options.database else "")
            console.print(f"{links:,} links in {time.perf_counter() - begun:.0f} s", highlight=False)
            results.append((service, links))
        small, large = (times(service, links) for service, links in results)
        for service, _ in results:
            service.stop()
    for name, (median, p99) in small.items():
        more, most = large[name]
        table.add_row(name, f"{median:.2f} ms", f"{p99:.2f}", f"{more:.2f} ms", f"{most:.2f}", f"{more / median:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()

"""Queries on the addresses that files had at another service, from which they were taken over.

Only the digest of an address is kept. It stays after its link is deleted: nobody finds anything there then, and the
file is not taken over once more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from media_gallery.db import Connection, links
from media_gallery.errors import Conflict
from media_gallery.models import Link


@dataclass(frozen=True, slots=True)
class Known:
    """What became of a file that was taken over: its link, None if that was deleted."""

    link: Link | None


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode(errors="surrogatepass")).hexdigest()


async def keep_address(c: Connection, path: str, link_id: int, thumbnail: str | None = None) -> None:
    """Let a link be found at an old path, percent-decoded, or its `thumbnail`, by its name in the store. Raises
    Conflict if another link is found there.
    """
    changed = await c.run(
        "INSERT INTO old_addresses (digest, link_id, thumbnail) VALUES ($1, $2, $3) ON CONFLICT (digest) DO UPDATE"
        " SET link_id = excluded.link_id, thumbnail = excluded.thumbnail"
        " WHERE NOT EXISTS (SELECT 1 FROM links WHERE id = old_addresses.link_id)",
        _digest(path), link_id, thumbnail,
    )  # fmt: skip
    if not changed:
        raise Conflict("Another file is at this address")


async def find_by_old_address(c: Connection, path: str, now: int) -> tuple[Link, str | None] | None:
    """The link that is found at an old path, as `find_by_slot` finds one at ours; and which thumbnail of it is meant,
    by its name in the store.
    """
    row = await c.one("SELECT link_id, thumbnail FROM old_addresses WHERE digest = $1", _digest(path))
    link = await links.find_public(c, "l.id = $1", row[0], now) if row else None
    return (link, row[1]) if row and link else None


async def find_known(c: Connection, path: str, now: int) -> Known | None:
    """What became of the file that had this path; None if it was never taken over."""
    if await c.one("SELECT 1 FROM old_addresses WHERE digest = $1", _digest(path)) is None:
        return None
    found = await find_by_old_address(c, path, now)
    return Known(found[0] if found else None)

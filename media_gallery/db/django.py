"""Queries on the tables of the Django gallery that this API comes from. They only read.

Its published migrations have two shapes: `name` and `media_type` are columns of `api_entityfile` in the older ones, of
`api_mediafile` in the newer ones. Django 3 and 4 keep times in UTC, in SQLite as text, and metadata as JSON.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from media_gallery.db import Connection, Query, T
from media_gallery.db.sqlite import read_only
from media_gallery.errors import BadRequest

STEP = 500
"""Rows read at a time."""


@dataclass(frozen=True, slots=True)
class DjangoFile:
    """A media file of the Django gallery: one account's reference to a file. `created_at` in microseconds."""

    id: int
    title: str
    """The directory of its address."""
    name: str
    username: str
    """The bare JID of its owner; administrators have other names."""
    media_type: str
    file: str
    """The path of its bytes, below the media folder."""
    md5: str
    created_at: int
    is_avatar: bool
    thumbnails: bool
    metadata: dict[str, Any]
    sides: tuple[int, ...]
    """Pixels of an avatar's thumbnails."""


class Readable(Protocol):
    """A database that is only read."""

    async def scan(self, query: Query[T]) -> T: ...


class _SqliteFile:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def scan(self, query: Query[T]) -> T:
        return await query(self._connection)


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Readable]:
    """`address`: `postgresql://…`, or the path of an SQLite file. Raises Unavailable, BadRequest."""
    if address.startswith("postgresql://"):
        from media_gallery.db.postgres import PostgresDatabase

        db = PostgresDatabase(address)
        await db.start()
        try:
            yield db
        finally:
            await db.close()
        return
    try:
        with read_only(Path(address), "mode=ro") as connection:
            yield _SqliteFile(connection)
    except sqlite3.Error as error:
        raise BadRequest(f"{address}: {error}") from error


async def _columns(c: Connection, table: str) -> set[str]:
    named = (
        "SELECT name FROM pragma_table_info($1)"
        if c.dialect == "sqlite"
        else "SELECT column_name FROM information_schema.columns WHERE table_name = $1"
    )
    return {row[0] for row in await c.all(named, table)}


async def list_files(c: Connection, after: int) -> list[DjangoFile]:
    """The next files after an id. Raises BadRequest if these are not the tables of the gallery."""
    media, entities = await _columns(c, "api_mediafile"), await _columns(c, "api_entityfile")
    if not {"title", "entity_file_id", "is_avatar"} <= media or not {"file", "hash"} <= entities:
        raise BadRequest("The database has not the tables of the Django gallery")
    said = "m" if "name" in media else "e"
    rows = await c.all(
        f"SELECT m.id, m.title, {said}.name, u.username, {said}.media_type, e.file, e.hash, m.created_at, m.is_avatar,"
        " m.avatar_thumbs, m.metadata, e.id FROM api_mediafile m JOIN api_entityfile e ON e.id = m.entity_file_id"
        f" JOIN auth_user u ON u.id = m.user_id WHERE m.id > $1 ORDER BY m.id LIMIT {STEP}",
        after,
    )
    sides = defaultdict[int, set[int]](set)
    for entity, side in await c.all(
        f"SELECT entity_file_id, side_size FROM api_thumbnail WHERE is_avatar AND entity_file_id {c.among('$1')}",
        [row[-1] for row in rows],
    ):
        sides[entity].add(side)
    return [
        DjangoFile(id_, title, name, user, media_type or "", file, md5 or "", _microseconds(created_at), bool(avatar),
                   bool(thumbnails), _metadata(metadata), tuple(sorted(sides[entity])))
        for id_, title, name, user, media_type, file, md5, created_at, avatar, thumbnails, metadata, entity in rows
    ]  # fmt: skip


def _microseconds(value: datetime | str) -> int:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def _metadata(text: str | None) -> dict[str, Any]:
    found = msgspec.json.decode(text) if text else None
    return found if isinstance(found, dict) else {}

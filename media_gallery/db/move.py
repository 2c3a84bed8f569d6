"""Copies a database into another one, of either sort. It resumes where it stopped, and compares rows at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Boolean, Table

from media_gallery.db import Connection, Database
from media_gallery.db.tables import metadata
from media_gallery.errors import GalleryError

STEP = 500
"""Rows read and written at a time."""
Progress = Callable[[str, int], None]


class Differs(GalleryError):
    """The target has rows that differ from the source."""

    sentence = "The target differs from the source"


class _Rows:
    """One table's rows, in the order of its primary key."""

    def __init__(self, table: Table) -> None:
        self.table, self.columns = table, [column.name for column in table.columns]
        self.key = [column.name for column in table.primary_key]
        self._truth = [isinstance(column.type, Boolean) for column in table.columns]
        self._places = [self.columns.index(name) for name in self.key]

    async def after(self, c: Connection, last: Sequence[Any] | None) -> list[tuple[Any, ...]]:
        """The next rows after a key."""
        keys, start = ", ".join(self.key), ""
        if last is not None:
            start = f"WHERE ({keys}) > ({', '.join(f'${n + 1}' for n in range(len(last)))})"
        rows = await c.all(
            f"SELECT {', '.join(self.columns)} FROM {self.table.name} {start} ORDER BY {keys} LIMIT {STEP}",
            *(last or ()),
        )
        return [self._plain(row) for row in rows]

    def _plain(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Make truth values of SQLite's 0 and 1, since PostgreSQL takes nothing else."""
        return tuple(
            bool(value) if truth and value is not None else value for value, truth in zip(row, self._truth, strict=True)
        )

    def key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(row[place] for place in self._places)

    async def last(self, c: Connection) -> tuple[Any, ...] | None:
        """The highest key there is."""
        order = ", ".join(f"{name} DESC" for name in self.key)
        row = await c.one(f"SELECT {', '.join(self.key)} FROM {self.table.name} ORDER BY {order} LIMIT 1")
        return tuple(row) if row else None

    async def insert(self, c: Connection, rows: list[tuple[Any, ...]]) -> None:
        places = ", ".join(f"${n + 1}" for n in range(len(self.columns)))
        for row in rows:
            await c.run(f"INSERT INTO {self.table.name} ({', '.join(self.columns)}) VALUES ({places})", *row)


async def copy_database(source: Database, target: Database, progress: Progress) -> int:
    """Copy every row, and compare it; how many there are. Nobody else may write to the target. Raises Differs."""
    async with source.snapshot() as snapshot:
        await copy_rows(snapshot, target, progress)
        async with target.snapshot() as copy:
            total = 0
            for table in metadata.sorted_tables:
                total += await _compare(snapshot, copy, _Rows(table), progress)
        await number_on(snapshot, target)
    return total


async def copy_rows(source: Connection, target: Database, progress: Progress) -> int:
    """Copy the rows after those that the target has already; how many."""
    total = 0
    for table in metadata.sorted_tables:
        rows = _Rows(table)
        last = await target.read(rows.last)
        while batch := await rows.after(source, last):
            await target.write(lambda c, rows=rows, batch=batch: rows.insert(c, batch), long=True)  # type: ignore[misc]
            last, total = rows.key_of(batch[-1]), total + len(batch)
            progress(f"copy {table.name}", len(batch))
    return total


async def _compare(source: Connection, target: Connection, rows: _Rows, progress: Progress) -> int:
    last, total = None, 0
    while True:
        ours, theirs = await rows.after(source, last), await rows.after(target, last)
        if ours != theirs:
            raise Differs(f"{Differs.sentence} in the table {rows.table.name}: empty the target and start again")
        if not ours:
            return total
        last, total = rows.key_of(ours[-1]), total + len(ours)
        progress(f"compare {rows.table.name}", len(ours))


async def number_on(source: Connection, target: Database) -> None:
    """Let ids of new rows go on after the last one given, also if its row was deleted: an id is never used again."""
    for table in metadata.sorted_tables:
        if "id" in table.columns and (last := await _last_number(source, table.name)):
            await target.write(lambda c, name=table.name, last=last: _set_number(c, name, last), long=True)  # type: ignore[misc]


async def _last_number(c: Connection, table: str) -> int:
    if c.dialect == "sqlite":
        row = await c.one("SELECT seq FROM sqlite_sequence WHERE name = $1", table)
    else:
        row = await c.one(f"SELECT last_value FROM {table}_id_seq WHERE is_called")
    return int(row[0]) if row else 0


async def _set_number(c: Connection, table: str, last: int) -> None:
    if c.dialect == "sqlite":
        await c.run("DELETE FROM sqlite_sequence WHERE name = $1", table)
        await c.run("INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)", table, last)
    else:
        await c.one("SELECT setval(CAST($1 AS TEXT)::regclass, $2)", f"{table}_id_seq", last)

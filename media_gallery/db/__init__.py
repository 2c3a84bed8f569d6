"""The database: `make_database` makes it, and the modules beside this one hold all queries.

A query is an `async def` that takes a `Connection` and awaits nothing else, so that the same code runs inside SQLite's
writer thread, inside the event loop for a short read, and over a network connection to PostgreSQL. Placeholders
are `$1`, `$2`, …; rows are tuples; times are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from media_gallery.settings import Settings

T = TypeVar("T")
Row = Sequence[Any]


class Connection(Protocol):
    """What a query is given. Valid only while the query runs.

    A list is one argument, used with `among`: else each number of values would be a statement of its own to prepare.
    """

    dialect: ClassVar[Literal["sqlite", "postgresql"]]
    """For queries that SQL databases write in different ways."""

    def among(self, place: str) -> str:
        """SQL to write after a column: its value is one of a list. `place` is the placeholder of the list."""

    async def all(self, sql: str, *args: Any) -> list[Row]: ...

    async def one(self, sql: str, *args: Any) -> Row | None:
        """The first row, if there is one."""

    async def run(self, sql: str, *args: Any) -> int:
        """The number of rows changed."""


Query = Callable[[Connection], Awaitable[T]]


class Database(Protocol):
    """Transactions over one database. Every method raises Unavailable or NoSpace if the database cannot serve."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self, query: Query[T]) -> T:
        """Run a query that touches few rows."""

    async def scan(self, query: Query[T]) -> T:
        """Run a query that may touch many rows, without making others wait."""

    def snapshot(self) -> AbstractAsyncContextManager[Connection]:
        """A connection for reading that shows the state of one moment for as long as it is held."""

    def turn(self) -> AbstractAsyncContextManager[bool]:
        """Take the turn at upkeep for the block; whether this process got it. Never waits; the turn ends with the
        process.
        """

    async def keep_reserve(self) -> None:
        """Set space aside for transactions that free some, if the database is on a disk of this host."""

    async def write(self, query: Query[T], *, long: bool = False, frees: bool = False) -> T:
        """Run a query as one durable transaction: on return all of it is on disk, on an exception nothing is.

        Only after InDoubt it may have happened or not: the connection broke during the commit. A query may run again
        if transactions collided, so it does nothing but use its connection. It has a few seconds, unless it is `long`,
        which means that it may touch many rows. If it `frees` space, it may use the space set aside when the disk is
        full.
        """


def make_database(settings: Settings) -> Database:
    """The database that the settings name; connections are made by `start`."""
    if settings.database_url.startswith("postgresql"):
        from media_gallery.db.postgres import PostgresDatabase

        return PostgresDatabase(settings.database_url)
    from media_gallery.db.sqlite import SqliteDatabase

    return SqliteDatabase(settings.database_path)


@asynccontextmanager
async def started_database(settings: Settings) -> AsyncIterator[Database]:
    """The database that the settings name, started; closed at the end."""
    db = make_database(settings)
    await db.start()
    try:
        yield db
    finally:
        await db.close()

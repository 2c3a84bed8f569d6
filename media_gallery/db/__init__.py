"""The database: `make_database` gives it, the modules beside this one hold every query there is.

A query is an `async def` that takes a `Connection` and awaits nothing else, so that the same text runs inside SQLite's
writer thread, inside the event loop for a short read, and over a network connection to another database. Placeholders
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
    """What a query speaks to. Valid only while the query runs.

    A list is one argument, behind `among`: a text for each number of values would be prepared, and kept, for each.
    """

    dialect: ClassVar[Literal["sqlite", "postgresql"]]
    """For what SQL has no common words for."""

    def among(self, place: str) -> str:
        """What stands behind a column that has one of the values of a list; `place` is that of the list."""

    async def all(self, sql: str, *args: Any) -> list[Row]: ...

    async def one(self, sql: str, *args: Any) -> Row | None:
        """The first row, if there is one."""

    async def run(self, sql: str, *args: Any) -> int:
        """The number of rows changed."""


Query = Callable[[Connection], Awaitable[T]]


class Database(Protocol):
    """Transactions over one database. Every method raises Unavailable or NoSpace where the database cannot serve."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self, query: Query[T]) -> T:
        """Run a query that touches few rows."""

    async def scan(self, query: Query[T]) -> T:
        """Run a query that may touch many rows, without holding up others."""

    def snapshot(self) -> AbstractAsyncContextManager[Connection]:
        """A connection for reading that sees one moment, however long it is held."""

    def turn(self) -> AbstractAsyncContextManager[bool]:
        """Whether this process alone may tidy while the block runs; it ends with the process. Never waits."""

    async def keep_reserve(self) -> None:
        """Set space aside for transactions that free some, where the database's disk is ours to look after."""

    async def write(self, query: Query[T], *, long: bool = False, frees: bool = False) -> T:
        """Run a query as one durable transaction: all of it is on disk on return, nothing of it on an exception.

        InDoubt is the exception that leaves it open: the connection may have broken while the commit was under way.
        A query may run more than once, where transactions collided, and does nothing but speak to its connection.
        One that is not `long`, which may touch many rows, has a few seconds. One that `frees` space may take what is
        set aside where there is no other.
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

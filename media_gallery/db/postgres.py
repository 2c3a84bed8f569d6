"""PostgreSQL: a pool of connections, transactions that collide are tried again.

Isolation is READ COMMITTED: what must not be read twice is decided by the `UPDATE` that changes it. Rows are locked in
one order everywhere (account, usage, blobs by id), so collisions are rare, and those that are left are retried here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal, TypeVar

import asyncpg

from media_gallery.db import Query, Row
from media_gallery.errors import NoSpace, Unavailable

T = TypeVar("T")
CONNECTIONS = 10
"""Most connections of one worker."""
WAIT = 5.0
"""Seconds to wait for a connection of the pool, or for the server to take one."""
STATEMENT = 60.0
"""Seconds one statement may take."""
ATTEMPTS = 10
_COLLISIONS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_GONE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.QueryCanceledError,
    *_COLLISIONS,
)


def translate(error: Exception) -> Exception:
    """The refusal that stands for what PostgreSQL reports, or the error itself where it is a fault of ours."""
    if isinstance(error, asyncpg.DiskFullError):
        return NoSpace()
    return Unavailable("The database cannot be reached") if isinstance(error, _GONE) else error


class _PostgresConnection:
    """The Connection protocol over asyncpg."""

    kind: ClassVar[Literal["sqlite", "postgresql"]] = "postgresql"

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    async def all(self, sql: str, *args: Any) -> list[Row]:
        rows: list[Row] = await self.raw.fetch(sql, *args)
        return rows

    async def one(self, sql: str, *args: Any) -> Row | None:
        row: Row | None = await self.raw.fetchrow(sql, *args)
        return row

    async def run(self, sql: str, *args: Any) -> int:
        status: str = await self.raw.execute(sql, *args)
        return int(status.rpartition(" ")[2]) if status[-1].isdigit() else 0


class PostgresDatabase:
    """A `Database` on a server. It may be away when the service starts, and come back."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def start(self) -> None:
        self._pool = await asyncpg.create_pool(
            self.url, min_size=0, max_size=CONNECTIONS, timeout=WAIT, command_timeout=STATEMENT,
            server_settings={"application_name": "media-gallery", "idle_in_transaction_session_timeout": "60000"},
        )  # fmt: skip

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_PostgresConnection]:
        async with self._pool.acquire(timeout=WAIT) as raw:
            yield _PostgresConnection(raw)

    async def read(self, query: Query[T]) -> T:
        try:
            async with self._connection() as connection:
                return await query(connection)
        except Exception as error:
            raise translate(error) from error

    async def scan(self, query: Query[T]) -> T:
        try:
            async with self._connection() as c, c.raw.transaction(isolation="repeatable_read", readonly=True):
                return await query(c)
        except Exception as error:
            raise translate(error) from error

    async def write(self, query: Query[T]) -> T:
        # The transaction happens whether or not its caller still waits: what follows a commit must not be skipped.
        return await asyncio.shield(asyncio.ensure_future(self._write(query)))

    async def _write(self, query: Query[T]) -> T:
        for attempt in range(ATTEMPTS):
            try:
                async with self._connection() as c, c.raw.transaction():
                    return await query(c)
            except _COLLISIONS as error:
                if attempt == ATTEMPTS - 1:
                    raise translate(error) from error
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311, spreads, guards nothing
            except Exception as error:
                raise translate(error) from error
        raise AssertionError

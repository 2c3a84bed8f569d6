"""PostgreSQL: a pool of connections; transactions that collide are tried again.

Isolation is READ COMMITTED: if two transactions could decide the same thing, the `UPDATE` itself decides. Rows are
locked in one order everywhere (account, usage, blobs by id), so collisions are rare; the rest are retried here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from media_gallery import metrics
from media_gallery.db import Connection, Query, Row
from media_gallery.errors import InDoubt, NoSpace, Unavailable

T = TypeVar("T")
CONNECTIONS = 10
"""Most connections of one worker."""
PROMPT = 4.5
"""Seconds that a call may take, including the wait for a connection: web clients give up after five."""
STATEMENT = 60.0
"""Seconds that a statement may take if it touches many rows."""
ATTEMPTS = 10
AWAY = "The database cannot be reached"
_TURN = 0x74696479  # "tidy", an advisory lock
_COLLISIONS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_GONE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # raised if a connection broke between two of its states
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
    """The refusal that stands for what PostgreSQL reports, or the error itself if the fault is ours."""
    if isinstance(error, asyncpg.DiskFullError):
        return NoSpace()
    return Unavailable(AWAY) if isinstance(error, _GONE) else error


class _Session(asyncpg.Connection):  # type: ignore[misc]
    """A session whose state nobody changes: no setting, no `LISTEN`, no lock that outlives its block. So a connection
    that is given back need not be reset, which would take a round trip after every read and every transaction.
    """

    __slots__ = ()

    def get_reset_query(self) -> str:
        return ""


class _PostgresConnection:
    """The Connection protocol over asyncpg."""

    dialect: ClassVar[Literal["sqlite", "postgresql"]] = "postgresql"

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def among(self, place: str) -> str:
        return f"= ANY({place})"

    async def all(self, sql: str, *args: Any) -> list[Row]:
        rows: list[Row] = await self.raw.fetch(sql, *args)
        return rows

    async def one(self, sql: str, *args: Any) -> Row | None:
        row: Row | None = await self.raw.fetchrow(sql, *args)
        return row

    async def run(self, sql: str, *args: Any) -> int:
        status: str = await self.raw.execute(sql, *args)
        return int(status.rpartition(" ")[2]) if status[-1].isdigit() else 0


def _soon() -> float:
    """The time of the loop by which a call that begins now must have ended."""
    return asyncio.get_running_loop().time() + PROMPT


class PostgresDatabase:
    """A `Database` on a server, which may be unreachable when the service starts, and come back later."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def start(self) -> None:
        ours = {"application_name": "media-gallery", "idle_in_transaction_session_timeout": "600000"}
        said = parse_qs(urlsplit(self.url).query)  # what the address says of these has priority
        self._pool = await asyncpg.create_pool(
            self.url, min_size=0, max_size=CONNECTIONS, timeout=PROMPT, command_timeout=STATEMENT,
            server_settings={name: value for name, value in ours.items() if name not in said},
            connection_class=_Session,
        )  # fmt: skip

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def _connection(self, end: float) -> AsyncIterator[tuple[Any, asyncio.TimerHandle]]:
        """A connection of the pool. At `end`, in the loop's time, it is broken off, unless the timer is cancelled
        before.

        A server that hangs does not answer a request to cancel either, so only this ends the wait.
        """
        loop = asyncio.get_running_loop()
        raw = await self._pool.acquire(timeout=max(0.0, end - loop.time()))
        timer = loop.call_at(end, raw.terminate)
        try:
            yield raw, timer
        finally:
            timer.cancel()
            await self._pool.release(raw)

    async def read(self, query: Query[T]) -> T:
        try:
            with metrics.database_read.time():
                async with self._connection(_soon()) as (raw, _):
                    return await query(_PostgresConnection(raw))
        except Exception as error:
            raise translate(error) from error

    async def scan(self, query: Query[T]) -> T:
        try:
            with metrics.database_scan.time():
                async with self.snapshot() as connection:
                    return await query(connection)
        except Exception as error:
            raise translate(error) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        async with (
            self._connection(_soon()) as (raw, timer),
            raw.transaction(isolation="repeatable_read", readonly=True),
        ):
            timer.cancel()  # the server answers
            yield _PostgresConnection(raw)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        try:
            async with self._connection(_soon()) as (raw, timer):
                timer.cancel()
                try:
                    yield await raw.fetchval("SELECT pg_try_advisory_lock($1)", _TURN)
                finally:  # also if the wait for the lock was cancelled, since the server may have given it meanwhile
                    await raw.execute("SELECT pg_advisory_unlock_all()")
        except Exception as error:
            raise translate(error) from error

    async def keep_reserve(self) -> None:
        """The server's disk is not ours."""

    async def write(self, query: Query[T], *, long: bool = False, frees: bool = False) -> T:
        # The transaction goes on even if its caller stops waiting: what follows a commit must not be skipped.
        with metrics.database_write.time():
            return await asyncio.shield(asyncio.ensure_future(self._write(query, long)))

    async def _write(self, query: Query[T], long: bool) -> T:
        end = _soon()
        for attempt in range(ATTEMPTS):
            committing = False
            try:
                async with self._connection(end) as (raw, timer), raw.transaction():
                    if long:
                        timer.cancel()
                    result = await query(_PostgresConnection(raw))
                    committing = True
                return result
            except _COLLISIONS as error:
                if attempt == ATTEMPTS - 1:
                    raise translate(error) from error
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311, spreads, guards nothing
            except Exception as error:
                refusal = translate(error)
                raise InDoubt(AWAY) if committing and isinstance(refusal, Unavailable) else refusal from error
        raise AssertionError

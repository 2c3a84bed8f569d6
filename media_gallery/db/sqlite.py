"""SQLite: short reads in the event loop, long ones in threads, and one writer thread that commits in groups.

The write-ahead log is synced at each commit (`synchronous=FULL`), so a transaction that was answered survives a power
cut; grouping the transactions that wait lets them share one sync. Several processes may hold the same file.
"""

from __future__ import annotations

import asyncio
import queue
import re
import sqlite3
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from media_gallery.db import Query, Row
from media_gallery.errors import NoSpace, Unavailable

T = TypeVar("T")
BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process's transaction."""
GROUP = 64
"""Most transactions that share one commit."""
SCANNERS = 2


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the settings that all of ours share."""
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16384", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@lru_cache(maxsize=512)
def _numbered(sql: str) -> str:
    return re.sub(r"\$(\d+)", r"?\1", sql)


class _SqliteConnection:
    """The Connection protocol over sqlite3; its coroutines never suspend."""

    kind: ClassVar[Literal["sqlite", "postgresql"]] = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.raw = connection

    async def all(self, sql: str, *args: Any) -> list[Row]:
        return self.raw.execute(_numbered(sql), args).fetchall()

    async def one(self, sql: str, *args: Any) -> Row | None:
        row: Row | None = self.raw.execute(_numbered(sql), args).fetchone()
        return row

    async def run(self, sql: str, *args: Any) -> int:
        return self.raw.execute(_numbered(sql), args).rowcount


def _drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a query to its end where no event loop is: it awaits nothing but the connection, so one step is all."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("a query may await nothing but its connection")


def translate(error: sqlite3.Error) -> Exception:
    """The refusal that stands for what SQLite reports, or the error itself where it is a fault of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return NoSpace()
    if code in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
    ):
        return Unavailable("The database cannot be reached")
    return error


class _Writer(threading.Thread):
    """Takes transactions from a queue, runs those that wait as one group, answers all after its commit."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="sqlite-writer", daemon=True)
        self.path = path
        self.jobs: queue.SimpleQueue[tuple[Query[Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()

    def run(self) -> None:
        connection = _SqliteConnection(connect(self.path))
        open_for_more = True
        while open_for_more:
            group: list[tuple[Query[Any], asyncio.Future[Any]]] = []
            job = self.jobs.get()
            while job is not None:
                group.append(job)
                if len(group) == GROUP or self.jobs.empty():
                    break
                job = self.jobs.get()
            open_for_more = job is not None
            if group:
                self._answer(group, self._commit(connection, group))
        connection.raw.close()

    def _commit(self, connection: _SqliteConnection, group: list[tuple[Query[Any], asyncio.Future[Any]]]) -> list[Any]:
        """A result or an exception for each transaction of the group."""
        raw = connection.raw
        try:
            raw.execute("BEGIN IMMEDIATE")
            results = [self._one(connection, query) for query, _ in group]
            raw.execute("COMMIT")
        except sqlite3.Error as error:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            return [translate(error)] * len(group)
        return results

    @staticmethod
    def _one(connection: _SqliteConnection, query: Query[Any]) -> Any:
        raw = connection.raw
        raw.execute("SAVEPOINT one")
        try:
            result: Any = _drive(query(connection))  # type: ignore[arg-type]
        except Exception as error:
            if not raw.in_transaction:  # SQLite gave up the whole group: disk full, for one
                raise
            raw.execute("ROLLBACK TO one")
            result = translate(error) if isinstance(error, sqlite3.Error) else error
        raw.execute("RELEASE one")
        return result

    @staticmethod
    def _answer(group: list[tuple[Query[Any], asyncio.Future[Any]]], results: list[Any]) -> None:
        def settle() -> None:
            for (_, future), result in zip(group, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        group[0][1].get_loop().call_soon_threadsafe(settle)


class SqliteDatabase:
    """A `Database` in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def start(self) -> None:
        self._reader = _SqliteConnection(connect(self.path))
        self._local = threading.local()
        self._scanners = ThreadPoolExecutor(SCANNERS, "sqlite-scan")
        self._writer = _Writer(self.path)
        self._writer.start()

    async def close(self) -> None:
        self._writer.jobs.put(None)
        await asyncio.to_thread(self._writer.join)
        self._scanners.shutdown()
        self._reader.raw.close()

    async def read(self, query: Query[T]) -> T:
        try:
            return await query(self._reader)
        except sqlite3.Error as error:
            raise translate(error) from error

    async def scan(self, query: Query[T]) -> T:
        def job() -> T:
            if not hasattr(self._local, "connection"):
                self._local.connection = _SqliteConnection(connect(self.path))
            return _drive(query(self._local.connection))  # type: ignore[arg-type]

        try:
            return await asyncio.get_running_loop().run_in_executor(self._scanners, job)
        except sqlite3.Error as error:
            raise translate(error) from error

    async def write(self, query: Query[T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writer.jobs.put((query, future))
        # The transaction happens whether or not its caller still waits: what follows a commit must not be skipped.
        return await asyncio.shield(future)

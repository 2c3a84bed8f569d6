"""SQLite: short reads in the event loop, long ones in threads, and one writer thread that commits in groups.

The write-ahead log is synced at each commit (`synchronous=FULL`), so a transaction that was answered survives a power
cut. Transactions that wait share one commit, and so one sync. Several processes may use the same file.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import queue
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import structlog

from media_gallery import metrics
from media_gallery.db import Connection, Query, Row
from media_gallery.errors import InDoubt, NoSpace, Unavailable

log = structlog.get_logger()
T = TypeVar("T")
BUSY_TIMEOUT = 5.0
"""Seconds to wait for the transactions of others, of this process or another."""
RESERVE = 16 * 1024**2
"""Bytes set aside for transactions that free space: enough for the log of a few large deletions."""
LOG = 256 * 1024
"""Bytes that the files beside an open database take, at least."""
GROUP = 64
"""Most transactions that share one commit."""
SCANNERS = 2
AWAY = "The database cannot be reached"


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the settings that all connections here share."""
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16384", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def make_single(path: Path) -> None:
    """Make a database that nobody uses a single file, without a write-ahead log; it is on disk on return."""
    connection = connect(path)
    try:
        connection.execute("PRAGMA journal_mode=DELETE")
    finally:
        connection.close()


@lru_cache(maxsize=512)
def _numbered(sql: str) -> str:
    return re.sub(r"\$(\d+)", r"?\1", sql)


class _SqliteConnection:
    """The Connection protocol over sqlite3; its coroutines never suspend."""

    dialect: ClassVar[Literal["sqlite", "postgresql"]] = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.raw = connection

    def among(self, place: str) -> str:
        return f"IN (SELECT value FROM json_each({place}))"

    async def all(self, sql: str, *args: Any) -> list[Row]:
        return self._execute(sql, args).fetchall()

    async def one(self, sql: str, *args: Any) -> Row | None:
        row: Row | None = self._execute(sql, args).fetchone()
        return row

    async def run(self, sql: str, *args: Any) -> int:
        return self._execute(sql, args).rowcount

    def _execute(self, sql: str, args: tuple[Any, ...]) -> sqlite3.Cursor:
        return self.raw.execute(_numbered(sql), [json.dumps(arg) if type(arg) is list else arg for arg in args])


@contextmanager
def read_only(path: Path, how: str = "immutable=1") -> Iterator[Connection]:
    """Read a database that nobody writes to; no files are made beside it. `how` is SQLite's: with `mode=ro` others may
    write to it.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, check_same_thread=False)) as raw:
        yield _SqliteConnection(raw)


def _drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a query in a thread without an event loop: it awaits only the connection, so it ends in one step."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("a query may await nothing but its connection")


def translate(error: sqlite3.Error) -> Exception:
    """The refusal that stands for what SQLite reports, or the error itself if the fault is ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
        return NoSpace()
    if code in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
    ):
        return Unavailable(AWAY)
    return error


class _Job:
    """A transaction that waits. It is taken once: by the writer, or by the timer that gives it up for its caller."""

    __slots__ = ("_untaken", "future", "query")

    def __init__(self, query: Query[Any], future: asyncio.Future[Any]) -> None:
        self.query, self.future = query, future
        self._untaken = threading.Lock()

    def take(self) -> bool:
        """Take it; whether nobody else has."""
        return self._untaken.acquire(blocking=False)

    def give_up(self) -> None:
        if self.take() and not self.future.done():
            self.future.set_exception(Unavailable(AWAY))


class _Writer(threading.Thread):
    """Takes transactions from a queue, runs those that wait as one group, and answers all after its commit.

    Processes take turns by a lock beside the database, since SQLite's own lock has no queue: it must be tried again and
    again, after pauses. If no turn comes, since the process that has it hangs, callers give their jobs up.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(name="sqlite-writer", daemon=True)
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection = _SqliteConnection(connect(path))
        self._turn = path.with_name(path.name + ".turn").open("w")

    def run(self) -> None:
        while (first := self.jobs.get()) is not None:
            try:
                fcntl.flock(self._turn, fcntl.LOCK_EX)
            except OSError:  # the file system has no locks: go on, SQLite reports what fails
                log.exception("no turn is given", file=self._turn.name)
            group = self._group(first)
            results = self._commit(group) if group else []
            with suppress(OSError):
                fcntl.flock(self._turn, fcntl.LOCK_UN)
            if group:
                self._answer(group, results)
        self._turn.close()
        self._connection.raw.close()

    def _group(self, first: _Job) -> list[_Job]:
        """The jobs that wait now, except those that were given up."""
        group = [first] if first.take() else []
        while len(group) < GROUP and not self.jobs.empty():
            job = self.jobs.get()
            if job is None:
                self.jobs.put(None)  # it ends the writer, so it must come last
                break
            if job.take():
                group.append(job)
        return group

    def _commit(self, group: list[_Job]) -> list[Any]:
        """A result or an exception for each transaction of the group, since a caller waits for each."""
        raw, committing = self._connection.raw, False
        try:
            raw.execute("BEGIN IMMEDIATE")
            results = [self._one(job.query) for job in group]
            committing = True
            raw.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):
                raw.rollback()
            refusal = translate(error) if isinstance(error, sqlite3.Error) else error
            if committing and isinstance(refusal, Unavailable):  # after a crash, the log may hold all of it
                refusal = InDoubt(AWAY)
            return [refusal] * len(group)
        return results

    def _one(self, query: Query[Any]) -> Any:
        raw = self._connection.raw
        raw.execute("SAVEPOINT one")
        try:
            result: Any = _drive(query(self._connection))  # type: ignore[arg-type]
        except Exception as error:
            if not raw.in_transaction:  # SQLite rolled back the whole group, such as for a full disk
                raise
            raw.execute("ROLLBACK TO one")
            result = translate(error) if isinstance(error, sqlite3.Error) else error
        raw.execute("RELEASE one")
        return result

    @staticmethod
    def _answer(group: list[_Job], results: list[Any]) -> None:
        def settle() -> None:
            for job, result in zip(group, results, strict=True):
                if job.future.done():
                    continue
                if isinstance(result, Exception):
                    job.future.set_exception(result)
                else:
                    job.future.set_result(result)

        with suppress(RuntimeError):  # the loop has ended, so nobody waits
            group[0].future.get_loop().call_soon_threadsafe(settle)


class Reserve:
    """A file that takes up space, to be freed for deletions when the disk is full: they need room in the log."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".reserve")

    def make(self) -> None:
        """Take the space, if much more is free; several processes may do so at once."""
        with suppress(OSError):
            found = os.statvfs(self.path.parent)
            size = min(RESERVE, found.f_bavail * found.f_frsize // 8)
            with self.path.open("ab") as file:
                if file.tell() < size:
                    os.posix_fallocate(file.fileno(), 0, size)

    def give_up_if_needed(self) -> None:
        """Give the space up if the database could not be opened, since there is no room for its log."""
        with suppress(OSError):
            found = os.statvfs(self.path.parent)
            if found.f_bavail * found.f_frsize < LOG:
                self.give_up()

    def give_up(self) -> None:
        with suppress(OSError):
            self.path.unlink()
            log.warning("the disk is full: what was set aside is given up for deletions", file=str(self.path))


class SqliteDatabase:
    """A `Database` in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reserve = Reserve(path)

    async def start(self) -> None:
        self._reader = _SqliteConnection(connect(self.path))
        self._local, self._scan_connections = threading.local(), list[sqlite3.Connection]()
        self._scanners = ThreadPoolExecutor(SCANNERS, "sqlite-scan")
        try:
            self._writer = _Writer(self.path)
        except OSError as error:
            raise Unavailable(f"{error.filename} cannot be opened: {error.strerror}") from error
        self._writer.start()

    async def close(self) -> None:
        self._writer.jobs.put(None)
        await asyncio.to_thread(self._writer.join, BUSY_TIMEOUT)  # it may wait for its turn in vain
        self._scanners.shutdown()
        for connection in (self._reader.raw, *self._scan_connections):
            connection.close()

    async def read(self, query: Query[T]) -> T:
        try:
            return await query(self._reader)  # not timed: it takes little longer than that would
        except sqlite3.Error as error:
            raise translate(error) from error

    async def scan(self, query: Query[T]) -> T:
        def job() -> T:
            if not hasattr(self._local, "connection"):
                self._local.connection = _SqliteConnection(connect(self.path))
                self._scan_connections.append(self._local.connection.raw)
            return _drive(query(self._local.connection))  # type: ignore[arg-type]

        try:
            with metrics.database_scan.time():
                return await asyncio.get_running_loop().run_in_executor(self._scanners, job)
        except sqlite3.Error as error:
            raise translate(error) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        raw = connect(self.path)
        try:
            raw.execute("BEGIN")
            raw.execute("SELECT 1 FROM accounts LIMIT 1").fetchall()  # the first read fixes the moment
            yield _SqliteConnection(raw)
        finally:
            raw.close()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        with self.path.with_name(self.path.name + ".tidy").open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    async def keep_reserve(self) -> None:
        await asyncio.to_thread(self._reserve.make)

    async def write(self, query: Query[T], *, long: bool = False, frees: bool = False) -> T:
        try:
            return await self._write(query)
        except NoSpace:
            if not frees:
                raise
            await asyncio.to_thread(self._reserve.give_up)
            return await self._write(query)

    async def _write(self, query: Query[T]) -> T:
        loop = asyncio.get_running_loop()
        job = _Job(query, loop.create_future())
        self._writer.jobs.put(job)
        patience = loop.call_later(BUSY_TIMEOUT, job.give_up)
        try:
            # The transaction goes on even if its caller stops waiting: what follows a commit must not be skipped.
            with metrics.database_write.time():
                return await asyncio.shield(job.future)
        finally:
            patience.cancel()

"""Rate limits, by the library `limits`. All workers share the counters: in a file of the host, or in Redis."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import structlog
from limits import RateLimitItem, parse_many
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.storage import storage_from_string

from media_gallery.db.sqlite import translate
from media_gallery.errors import GalleryError, NoSpace, TooManyRequests, Unavailable
from media_gallery.setting_types import NO_RATE
from media_gallery.settings import Settings

log = structlog.get_logger()
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)
"""What SQLite reports if the file is damaged; the last one if the table is missing or is another one."""
WAIT = 2.0
"""Seconds that Redis may take to answer before it counts as unavailable."""
UNCOUNTED = "The rate limits cannot be counted"


class SqliteStorage(Storage):
    """Counters in a small SQLite file, which processes share. It is never synced, since the counters may be lost.

    So a power cut may damage it: then the first process that notices makes a new one.
    """

    STORAGE_SCHEME = ["async+sqlite"]  # noqa: RUF012, the library's own spelling

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self._name = path, str(path)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._mend(error)

    def _open(self) -> None:
        self._connection = sqlite3.connect(self.path, timeout=1, isolation_level=None)
        self._inode = self._found()
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=OFF",
            "CREATE TABLE IF NOT EXISTS rates (key TEXT PRIMARY KEY, count INTEGER, expires REAL) WITHOUT ROWID",
        ):
            self._connection.execute(statement)

    def _mend(self, error: sqlite3.DatabaseError) -> None:
        """If the file is damaged, go on with a new one, which one process makes for all."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
            raise error
        self._connection.close()
        place = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(place, fcntl.LOCK_EX)
            if not self._replaced():
                log.warning("the counters of rates are damaged and begun anew", file=str(self.path), reason=str(error))
                for end in ("-wal", "-shm", ""):  # the file itself last: by it others notice the change
                    self.path.with_name(self.path.name + end).unlink(missing_ok=True)
            self._open()
        finally:
            os.close(place)

    def _replaced(self) -> bool:
        """Whether another process has made a new file, or somebody has removed this one."""
        found = self._found()
        return not found or found != self._inode

    def _found(self) -> int:
        """The number of the file that is there now, 0 if there is none."""
        try:
            return os.stat(self._name).st_ino  # noqa: PTH116, for every request: pathlib takes longer
        except FileNotFoundError:
            return 0

    def _run(self, sql: str, *args: Any) -> sqlite3.Cursor:
        try:
            if self._replaced():  # nobody else reads the old file
                self._connection.close()
                self._open()
            return self._connection.execute(sql, args)
        except sqlite3.DatabaseError as error:
            self._mend(error)
            return self._connection.execute(sql, args)

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.time()
        row = self._run(
            "INSERT INTO rates VALUES (?1, ?2, ?4) ON CONFLICT (key) DO UPDATE SET"
            " count = CASE WHEN expires <= ?3 THEN ?2 ELSE count + ?2 END,"
            " expires = CASE WHEN expires <= ?3 THEN ?4 ELSE expires END RETURNING count",
            key, amount, now, now + expiry,
        ).fetchall()  # fmt: skip
        return int(row[0][0])

    async def get(self, key: str) -> int:
        row = self._run("SELECT count FROM rates WHERE key = ? AND expires > ?", key, time.time()).fetchone()
        return int(row[0]) if row else 0

    async def get_expiry(self, key: str) -> float:
        row = self._run("SELECT expires FROM rates WHERE key = ?", key).fetchone()
        return float(row[0]) if row else time.time()

    async def check(self) -> bool:
        self._run("DELETE FROM rates WHERE key = ''")  # no key is empty: this only tries to write
        return True

    async def reset(self) -> int:
        return self._run("DELETE FROM rates").rowcount

    async def clear(self, key: str) -> None:
        self._run("DELETE FROM rates WHERE key = ?", key)

    async def sweep(self) -> int:
        """Remove counters that have expired; how many."""
        return self._run("DELETE FROM rates WHERE expires <= ?", time.time()).rowcount

    def close(self) -> None:
        self._connection.close()


def place_of(address: str, prefix: int = 64) -> str:
    """What counts as one client address. For IPv6 it is a network, given by its first bits, since each user has a whole
    network of addresses.
    """
    try:
        host = ip_address(address)
    except ValueError:
        return address
    return address if host.version == 4 else str(ip_network((int(host), prefix), strict=False))


def _mark(what: str, who: str) -> str:
    """A key that does not show the address: it stays for months, while a counter stays for a day."""
    return f"{what}/{hashlib.sha256(who.encode()).hexdigest()}"


@lru_cache(maxsize=64)
def _parsed(rate: str) -> list[RateLimitItem]:
    return [] if rate == NO_RATE else parse_many(rate)


def make_rates(settings: Settings) -> Rates:
    """The rates, counted where the settings say. Raises Unavailable if their file cannot be opened."""
    if settings.rates_url:
        storage = storage_from_string(
            f"async+{settings.rates_url}", implementation="redispy", socket_timeout=WAIT, socket_connect_timeout=WAIT
        )
        assert isinstance(storage, Storage)
        return Rates(storage)
    path = settings.data_dir / "rates.sqlite"
    try:
        return Rates(SqliteStorage(path))
    except sqlite3.Error as error:
        raise Unavailable(f"{path} cannot be opened: {error}") from error


class Rates:
    """Counts events against rates such as `5/10 minute; 20/day`; `none` is no limit."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self._away = storage, False
        self._limiter = FixedWindowRateLimiter(storage)

    async def sweep(self) -> None:
        """Remove expired counters, if the storage does not do so by itself."""
        if isinstance(self._storage, SqliteStorage):
            await self._storage.sweep()

    async def close(self) -> None:
        if isinstance(self._storage, SqliteStorage):
            self._storage.close()

    async def check(self) -> None:
        """Raise Unavailable or NoSpace if nothing can be counted now."""
        with self._translated():
            if not await self._storage.check():
                raise self._lost("no answer")

    async def hit(self, what: str, rate: str, who: str | int) -> None:
        """Count one event. Raises TooManyRequests if that is one too many, NoSpace, Unavailable."""
        await self._each(self._limiter.hit, what, rate, who)

    @asynccontextmanager
    async def counting(self, *limits: tuple[str, str, str]) -> AsyncIterator[None]:
        """Count one event against each of several limits. If the block raises a refusal, nothing is counted.

        A limit is what is counted, its rate, and whose it is. Raises what `hit` raises; then nothing is counted,
        either.
        """
        taken: list[tuple[RateLimitItem, str, str]] = []
        try:
            with self._translated():
                for item, what, who in ((item, what, who) for what, rate, who in limits for item in _parsed(rate)):
                    allowed = await self._limiter.hit(item, what, who)
                    taken.append((item, what, who))
                    if not allowed:
                        await self._refuse(item, what, who)
            yield
        except (TooManyRequests, Unavailable, NoSpace):
            for item, what, who in taken:
                with suppress(GalleryError):
                    await self._give_back(item.key_for(what, who), item.get_expiry())
            raise

    async def _give_back(self, key: str, seconds: int) -> None:
        with self._translated():
            if await self._storage.get(key) > 0:  # it may have expired
                await self._storage.incr(key, seconds, -1)

    async def test(self, what: str, rate: str, who: str | int) -> None:
        """Raise what `hit` would raise, without counting."""
        await self._each(self._limiter.test, what, rate, who)

    async def _each(self, allows: Callable[..., Awaitable[bool]], what: str, rate: str, who: str | int) -> None:
        with self._translated():
            for item in _parsed(rate):
                if not await allows(item, what, str(who)):
                    await self._refuse(item, what, who)

    async def remember(self, what: str, who: str, seconds: float) -> None:
        """Remember this for so many seconds from now on; it is kept with the counters, so it may be lost."""
        with self._translated():
            await self._storage.clear(_mark(what, who))
            await self._storage.incr(_mark(what, who), max(1, int(seconds)))

    async def knows(self, what: str, who: str) -> bool:
        """Whether this is still remembered."""
        return await self.left(what, who) > 0

    async def left(self, what: str, who: str) -> float:
        """Seconds for which this is still remembered."""
        key = _mark(what, who)
        with self._translated():
            return await self._storage.get_expiry(key) - time.time() if await self._storage.get(key) > 0 else 0

    async def again(self, what: str, who: str, seconds: float) -> int:
        """Count that this happened again; how often it has, since a first time at most so many seconds ago."""
        with self._translated():
            return await self._storage.incr(_mark(what, who), max(1, int(seconds)))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of the storage into NoSpace or Unavailable."""
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error) from error
        except self._storage.base_exceptions as error:
            raise self._lost(str(error)) from error
        if self._away:
            self._away = False
            log.info("rates are counted again")

    def _lost(self, reason: str) -> Unavailable:
        """The refusal if nothing can be counted. The log says so once, until something is counted again."""
        if not self._away:
            self._away = True
            log.warning("rates cannot be counted, so calls that have one are refused", reason=reason)
        return Unavailable(UNCOUNTED)

    async def _refuse(self, item: RateLimitItem, what: str, who: str | int) -> None:
        stats = await self._limiter.get_window_stats(item, what, str(who))
        raise TooManyRequests(retry_after=max(1, int(stats.reset_time - time.time()) + 1))

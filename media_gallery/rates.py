"""Rate limits, by the `limits` library, counted where all workers see them: in a file of the host, or in Redis."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path

from limits import RateLimitItem, parse_many
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.storage import storage_from_string

from media_gallery.db.sqlite import translate
from media_gallery.errors import TooManyRequests, Unavailable
from media_gallery.settings import NO_RATE, Settings


class SqliteStorage(Storage):
    """Counters in a small SQLite file of their own: shared by processes, fast, and not worth a sync to disk."""

    STORAGE_SCHEME = ["async+sqlite"]  # noqa: RUF012, the library's own spelling

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._connection = sqlite3.connect(path, timeout=1, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=OFF",
            "CREATE TABLE IF NOT EXISTS rates (key TEXT PRIMARY KEY, count INTEGER, expires REAL) WITHOUT ROWID",
        ):
            self._connection.execute(statement)

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.time()
        row = self._connection.execute(
            "INSERT INTO rates VALUES (?1, ?2, ?4) ON CONFLICT (key) DO UPDATE SET"
            " count = CASE WHEN expires <= ?3 THEN ?2 ELSE count + ?2 END,"
            " expires = CASE WHEN expires <= ?3 THEN ?4 ELSE expires END RETURNING count",
            (key, amount, now, now + expiry),
        ).fetchall()
        return int(row[0][0])

    async def get(self, key: str) -> int:
        row = self._connection.execute(
            "SELECT count FROM rates WHERE key = ? AND expires > ?", (key, time.time())
        ).fetchone()
        return int(row[0]) if row else 0

    async def get_expiry(self, key: str) -> float:
        row = self._connection.execute("SELECT expires FROM rates WHERE key = ?", (key,)).fetchone()
        return float(row[0]) if row else time.time()

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        return self._connection.execute("DELETE FROM rates").rowcount

    async def clear(self, key: str) -> None:
        self._connection.execute("DELETE FROM rates WHERE key = ?", (key,))

    async def sweep(self) -> int:
        """Forget counters whose time is over; how many."""
        return self._connection.execute("DELETE FROM rates WHERE expires <= ?", (time.time(),)).rowcount

    def close(self) -> None:
        self._connection.close()


@lru_cache(maxsize=64)
def _parsed(rate: str) -> list[RateLimitItem]:
    return [] if rate == NO_RATE else parse_many(rate)


def open_rates(settings: Settings) -> Rates:
    """Rates counted where the settings say."""
    if settings.rates_url:
        storage = storage_from_string(f"async+{settings.rates_url}", implementation="redispy")
        assert isinstance(storage, Storage)
        return Rates(storage)
    return Rates(SqliteStorage(settings.data_dir / "rates.sqlite"))


class Rates:
    """Counts events against rates such as `5/10 minute; 20/day`; `none` is no limit."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._limiter = FixedWindowRateLimiter(storage)

    async def sweep(self) -> None:
        """Forget what counts no more, where the storage does not by itself."""
        if isinstance(self._storage, SqliteStorage):
            await self._storage.sweep()

    async def close(self) -> None:
        if isinstance(self._storage, SqliteStorage):
            self._storage.close()

    async def hit(self, what: str, rate: str, who: str | int) -> None:
        """Count one more. Raises TooManyRequests where that is one too many, NoSpace, Unavailable."""
        await self._each(self._limiter.hit, what, rate, who)

    async def test(self, what: str, rate: str, who: str | int) -> None:
        """Raise what `hit` would raise, without counting."""
        await self._each(self._limiter.test, what, rate, who)

    async def _each(self, allows: Callable[..., Awaitable[bool]], what: str, rate: str, who: str | int) -> None:
        try:
            for item in _parsed(rate):
                if not await allows(item, what, str(who)):
                    await self._refuse(item, what, who)
        except sqlite3.Error as error:
            raise translate(error) from error
        except self._storage.base_exceptions as error:
            raise Unavailable("The rate limits cannot be counted") from error

    async def _refuse(self, item: RateLimitItem, what: str, who: str | int) -> None:
        stats = await self._limiter.get_window_stats(item, what, str(who))
        raise TooManyRequests(retry_after=max(1, int(stats.reset_time - time.time()) + 1))

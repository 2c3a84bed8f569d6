"""What operators watch and no request counts: the whole service, the disk, unfinished uploads. Each is looked at now
and then, so that a scrape of `/metrics` asks neither the database nor the disk.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from media_gallery import metrics
from media_gallery.db import Connection, Database, upkeep
from media_gallery.errors import GalleryError
from media_gallery.storage import BlobStore

log = structlog.get_logger()
PERIOD = 30.0
"""Seconds between two looks at the disk."""
COUNTS = 300.0
"""Seconds between two counts of the whole service by one host: they read all accounts and blobs."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Refreshes the metrics of a host; `default_quota` in bytes."""

    db: Database
    store: BlobStore
    data_dir: Path
    default_quota: int

    async def keep_fresh(self) -> None:
        """Refresh for as long as the service runs."""
        while True:
            try:
                await self.refresh()
            except (GalleryError, OSError) as error:
                log.warning("metrics were not refreshed", reason=str(error))
            except Exception:
                log.exception("metrics were not refreshed")
            await asyncio.sleep(PERIOD)

    async def refresh(self) -> None:
        """Look at the disk, and count the whole service if that is due. Raises Unavailable, OSError."""
        found = await asyncio.to_thread(os.statvfs, self.data_dir)
        metrics.disk_free.set(found.f_bavail * found.f_frsize)
        metrics.disk_size.set(found.f_blocks * found.f_frsize)
        count, size = await self.store.staged()
        metrics.staged_files.set(count)
        metrics.staged_bytes.set(size)
        with _due() as ours:
            if ours:
                await self._count()

    async def _count(self) -> None:
        async def look(c: Connection) -> tuple[upkeep.Totals, int, list[int]]:
            return await upkeep.count_all(c), *await upkeep.count_quotas(c, self.default_quota, metrics.RATIOS)

        found, quota, filled = await self.db.scan(look)
        metrics.accounts.set(found.accounts)
        metrics.files.set(found.files)
        metrics.used.set(found.used)
        metrics.quota.set(quota)
        metrics.blobs.set(found.blobs)
        metrics.stored.set(found.stored)
        metrics.trash.set(found.trash)
        for ratio, count in zip(metrics.RATIOS, filled, strict=True):
            metrics.accounts_filled.labels(f"{ratio:g}").set(count)
        metrics.counted.set(time.time())


@contextmanager
def _due() -> Iterator[bool]:
    """Whether this process shall count in the block: one worker of a host does, if COUNTS have passed. A file beside
    the metrics that workers share tells when one has done it.
    """
    directory = os.environ.get(metrics.MULTIPROCESS)
    if not directory:
        yield True
        return
    held = os.open(Path(directory) / "counted", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        ours = _is_taken(held) and _is_old(os.fstat(held))
        yield ours
        if ours:
            os.pwrite(held, b".", 0)
    finally:
        os.close(held)


def _is_taken(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_old(found: os.stat_result) -> bool:
    return not found.st_size or found.st_mtime + COUNTS <= time.time()

"""Unfinished uploads: a directory of files, and threads that work on the disk, so that the event loop stays free."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import stat
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from media_gallery.errors import NoSpace, Unavailable
from media_gallery.storage import Staged, Writer

T = TypeVar("T")
BATCH = 512 * 1024
"""Bytes handed to threads at once; a smaller upload stays in memory until its commit."""
PIECE = 256 * 1024
AHEAD = 4
"""Batches of one upload in work, at most: with the gathered bytes, and those just read, an upload takes up to 5 MiB."""
CACHED = 8 * 1024 * 1024
"""Bytes at the start of a file that stay in the page cache. Further ones are synced and forgotten while the rest comes,
so many at once or more: so the sync at the end has little to do, and files that are read often stay in the cache. A
virtual disk may keep in memory what the system has written, until a sync, so it is not enough to have it written early.
"""
SYNCS = 4
"""Uploads that are synced while they come, at most, since the other uploads need threads, too."""
TOUCH = 60.0
"""Seconds after which an unfinished file is touched, so that a slow upload is not removed as abandoned."""
THREADS = 16
LISTED = 1000
AWAY, NO_BUCKET = "The storage cannot be reached", "The storage has no such bucket"
_FULL = (errno.ENOSPC, errno.EDQUOT)
READABLE = 0o644
"""The mode that a file of another service must have to become ours by a further name: web servers read it, too."""


def translate(error: OSError) -> Exception:
    """The refusal that stands for what the file system reports. Callers handle missing files before."""
    return NoSpace() if error.errno in _FULL else Unavailable(AWAY)


def untouched(place: Path, older_than: float) -> Iterator[str]:
    """Names of a directory's entries that were not touched for so many seconds."""
    before = time.time() - older_than
    with os.scandir(place) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # removed meanwhile
                if entry.stat(follow_symlinks=False).st_ctime <= before:
                    yield entry.name


def write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def remove_folder(place: Path) -> None:
    """Remove a directory of files, even if others remove it or add to it at the same time (`shutil.rmtree` fails)."""
    while True:
        try:
            _empty(place)
            place.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def _empty(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name in os.listdir(fd):  # noqa: PTH208, a path may lead to another directory by now
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


class Staging:
    """Unfinished uploads in one directory, each under its key. They leave `reserve` bytes of its file system free."""

    def __init__(self, directory: Path, reserve: int = 0) -> None:
        self.directory, self.reserve = directory.absolute(), reserve

    async def start(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "store")
        self.syncs = asyncio.Semaphore(SYNCS)
        await self.run(lambda: self.directory.mkdir(parents=True, exist_ok=True))

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def run(self, job: Callable[[], T]) -> T:
        """Do disk work in a thread; what the file system reports becomes a refusal."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)
        except OSError as error:
            raise translate(error) from error

    def check_room(self) -> None:
        """Raise NoSpace if too little is free, or Unavailable. It takes a microsecond, so it needs no thread."""
        if self.reserve:
            try:
                found = os.statvfs(self.directory)
            except OSError as error:
                raise translate(error) from error
            if found.f_bavail * found.f_frsize < self.reserve:
                raise NoSpace

    def path(self, key: str) -> Path:
        return self.directory / key

    def writer(self, key: str = "") -> Writer:
        return _Writer(self, key or secrets.token_hex(16))

    def adopt(self, key: str, source: Path) -> Staged | None:
        """What `BlobFiles.adopt` says. The digests are those of the staged name, whatever happens to the other."""
        place = self.path(key)
        try:
            place.hardlink_to(source)
        except OSError:
            return None
        try:
            found = place.lstat()
            readable = found.st_mode & READABLE == READABLE
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or not readable:
                place.unlink()
                return None
            size, sha256, sha1 = 0, hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
            with place.open("rb", buffering=0) as file:
                while piece := file.read(BATCH):
                    size += len(piece)
                    sha256.update(piece)
                    sha1.update(piece)
            return Staged(key, size, sha256.hexdigest(), sha1.hexdigest())
        except BaseException:
            place.unlink(missing_ok=True)
            raise

    async def discard(self, staged: Staged) -> None:
        if staged.data is None:
            await self.run(lambda: self.path(staged.key).unlink(missing_ok=True))

    async def remove(self, keys: list[str]) -> None:
        def job() -> None:
            for key in keys:
                self.path(key).unlink(missing_ok=True)

        await self.run(job)

    @asynccontextmanager
    async def opened(self, opening: Callable[[], int]) -> AsyncIterator[int]:
        """The descriptor that `opening` returns in a thread; it is closed at the end of the `with`."""
        fd = await self.run(opening)
        try:
            yield fd
        finally:
            os.close(fd)

    def opened_staged(self, staged: Staged) -> AbstractAsyncContextManager[int]:
        return self.opened(lambda: self.open(staged))

    def open(self, staged: Staged) -> int:
        """A descriptor at the start of staged bytes. Call it in a thread."""
        if staged.data is None:
            return os.open(self.path(staged.key), os.O_RDONLY)
        fd = os.memfd_create("staged", os.MFD_CLOEXEC)
        try:
            write_all(fd, staged.data)
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd

    async def check(self) -> None:
        def job() -> None:
            self.check_room()
            probe = self.path(f"probe-{secrets.token_hex(8)}")
            try:
                probe.write_bytes(b"probe")
            finally:
                probe.unlink(missing_ok=True)

        await self.run(job)

    async def listed(self, place: Path, older_than: float) -> AsyncIterator[list[str]]:
        """Names in the 256 directories of a place that were not touched for so many seconds, in batches."""
        names = (name for number in range(256) for name in untouched(place / f"{number:02x}", older_than))
        while batch := await self.run(lambda: list(islice(names, LISTED))):
            yield batch

    async def held(self) -> tuple[int, int]:
        """How many files there are, and their bytes."""

        def job() -> tuple[int, int]:
            sizes = []
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        sizes.append(entry.stat().st_size)
            return len(sizes), sum(sizes)

        return await self.run(job)

    async def sweep(self, older_than: float, living: Container[str]) -> tuple[int, int]:
        """Remove files that were not touched for so many seconds, except living keys; how many, and their bytes."""

        def job() -> tuple[int, int]:
            count = size = 0
            for entry in self.directory.iterdir():
                try:
                    found = entry.stat()
                    if found.st_mtime <= time.time() - older_than and entry.name not in living:
                        entry.unlink()
                        count, size = count + 1, size + found.st_size
                except FileNotFoundError:
                    continue
            return count, size

        return await self.run(job)


class _Writer:
    """Gathers bytes to batches. A batch is written to the disk and added to two digests at the same time. Each of these
    three takes the batches in order and at its own pace, while the next batch comes.
    """

    def __init__(self, staging: Staging, key: str) -> None:
        self.staging, self.key = staging, key
        self.size = 0
        self._sha256, self._sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
        self._gathered: list[bytes] = []
        self._waiting = 0
        self._fd: int | None = None
        self._on_disk = False
        self._touched = 0.0
        self._synced = 0
        self._syncing: asyncio.Task[None] | None = None
        self._in_work: deque[list[asyncio.Task[Any]]] = deque()

    async def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._waiting += len(chunk)
        self._gathered.append(chunk)
        if self.size < BATCH:
            return
        if self._fd is None:
            await self.staging.run(self._open)
        elif time.monotonic() - self._touched > TOUCH:
            await self.staging.run(self._touch)
        if self._waiting >= BATCH:
            await self._settle(AHEAD - 1)
            self._put()

    def _open(self) -> None:
        self._fd = os.open(self.staging.path(self.key), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._on_disk, self._touched = True, time.monotonic()

    def _touch(self) -> None:
        assert self._fd is not None
        os.utime(self._fd)
        self._touched = time.monotonic()

    def _put(self) -> None:
        """Make a batch of the gathered bytes and start work on it."""
        batch = b"".join(self._gathered)
        self._gathered, self._waiting = [], 0
        jobs = (lambda: self._write(batch), lambda: self._sha256.update(batch), lambda: self._sha1.update(batch))
        before = self._in_work[-1] if self._in_work else (None, None, None)
        tasks = [asyncio.create_task(self._after(*way)) for way in zip(before, jobs, strict=True)]
        self._in_work.append(tasks)
        if self.size - self._synced >= CACHED and not self.staging.syncs.locked():
            self._sync_after(tasks[0])

    def _sync_after(self, written: asyncio.Task[Any]) -> None:
        """Sync what has come, while more comes, unless the sync before still runs. Raises what that one raised."""
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()
        self._synced = self.size
        self._syncing = asyncio.create_task(self._sync_early(written))

    async def _sync_early(self, written: asyncio.Task[Any]) -> None:
        async with self.staging.syncs:
            await self._after(written, self._sync_and_forget)

    async def _after(self, before: asyncio.Task[Any] | None, job: Callable[[], None]) -> None:
        if before is not None:
            await before
        await self.staging.run(job)

    def _write(self, batch: bytes) -> None:
        assert self._fd is not None
        self.staging.check_room()
        write_all(self._fd, batch)

    def _sync(self) -> None:
        assert self._fd is not None
        os.fdatasync(self._fd)

    def _sync_and_forget(self) -> None:
        self._sync()
        assert self._fd is not None
        os.posix_fadvise(self._fd, CACHED, 0, os.POSIX_FADV_DONTNEED)

    async def _settle(self, most: int = 0) -> None:
        """Wait until at most `most` batches are in work; raise what went wrong with one."""
        while len(self._in_work) > most:
            for task in self._in_work[0]:
                await asyncio.shield(task)
            self._in_work.popleft()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    async def finish(self) -> Staged:
        data: bytes | None = None
        if self._fd is None:
            data, self._gathered = b"".join(self._gathered), []
            self._sha256.update(data)
            self._sha1.update(data)
        else:
            self._put()
            await self._settle()
            if self._syncing is not None:  # a sync reports what the system failed to write, and reports it once
                await asyncio.shield(self._syncing)
                await self.staging.run(self._sync)
            self._close()
        return Staged(self.key, self.size, self._sha256.hexdigest(), self._sha1.hexdigest(), data)

    async def discard(self) -> None:
        await asyncio.shield(self._discard())

    async def _discard(self) -> None:
        last = self._in_work[-1] if self._in_work else []  # its jobs wait for those before it
        syncing = [self._syncing] if self._syncing is not None else []
        await asyncio.gather(*last, *syncing, return_exceptions=True)
        self._gathered = []
        self._close()
        if self._on_disk:
            await self.staging.run(lambda: self.staging.path(self.key).unlink(missing_ok=True))

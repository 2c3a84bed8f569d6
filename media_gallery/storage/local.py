"""A directory as a store.

    staging/KEY                       unfinished uploads
    blobs/ab/KEY                      the bytes; ab are the key's first two digits
    thumbs/ab/KEY/256.webp            their thumbnails
    links/ab/SLOT_ID/NAME             symbolic links into the two above: a tree that any web server can serve

Disk work runs in threads, in batches, so that the event loop stays free: the next batch is received while the last one
is hashed and written. File and directory are synced before `commit` returns; links and thumbnails are not, they can be
made again from the database and the bytes.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from media_gallery.errors import NoSpace, NotFound, Unavailable
from media_gallery.storage import Slot, Staged, Writer

T = TypeVar("T")
BATCH = 512 * 1024
"""Bytes handed to a thread at once; a smaller upload stays in memory until its commit."""
THREADS = 16
LISTED = 1000
_FULL = (errno.ENOSPC, errno.EDQUOT)


def translate(error: OSError) -> Exception:
    """The refusal that stands for what the file system reports."""
    if error.errno in _FULL:
        return NoSpace()
    return NotFound() if isinstance(error, FileNotFoundError) else Unavailable("The storage cannot be reached")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class LocalStore:
    """A `BlobStore` in one directory of one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._staging = self.root / "staging"

    async def start(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "store")
        await self.run(self._make_tree)

    def _make_tree(self) -> None:
        self._staging.mkdir(parents=True, exist_ok=True)
        for kind in ("blobs", "thumbs", "links"):
            for number in range(256):
                (self.root / kind / f"{number:02x}").mkdir(parents=True, exist_ok=True)
            _sync_directory(self.root / kind)
        _sync_directory(self.root)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def run(self, job: Callable[[], T]) -> T:
        """Do disk work in a thread; what the file system reports becomes a refusal."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)
        except OSError as error:
            raise translate(error) from error

    # --- Places ---

    def path(self, key: str) -> Path:
        return self.root / "blobs" / key[:2] / key

    def thumbnail_path(self, key: str, name: str) -> Path:
        return self.root / "thumbs" / key[:2] / key / name

    def staging_path(self, key: str) -> Path:
        return self._staging / key

    def _slot_path(self, slot_id: str) -> Path:
        return self.root / "links" / slot_id[:2] / slot_id

    # --- The way in ---

    def writer(self) -> Writer:
        return _LocalWriter(self)

    async def commit(self, staged: Staged, slot: Slot) -> None:
        def job() -> None:
            try:
                self._commit(staged)
                self._publish(staged.key, slot)
            except BaseException:
                self._remove(staged.key)
                self._unpublish(slot.id)
                raise

        await self.run(job)

    def _commit(self, staged: Staged) -> None:
        """In its final place before it is synced, so that the file's sync takes the directory's entry along: a journal
        writes both at once, and the sync of the directory finds nothing left to do. No row names the key yet.
        """
        final = self.path(staged.key)
        if staged.data is None:
            self.staging_path(staged.key).rename(final)
            flags = os.O_WRONLY
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd = os.open(final, flags, 0o644)
        try:
            if staged.data is not None:
                _write_all(fd, staged.data)
            os.fsync(fd)
        finally:
            os.close(fd)
        _sync_directory(final.parent)

    async def discard(self, staged: Staged) -> None:
        if staged.data is None:
            await self.run(lambda: self.staging_path(staged.key).unlink(missing_ok=True))

    async def publish(self, key: str, slot: Slot) -> None:
        await self.run(lambda: self._publish(key, slot))

    def _publish(self, key: str, slot: Slot) -> None:
        place = self._slot_path(slot.id)
        try:
            place.mkdir()
        except FileExistsError:
            shutil.rmtree(place)
            place.mkdir()
        for name, target in self.publication(key, slot).items():
            (place / name).symlink_to(target)

    def publication(self, key: str, slot: Slot) -> dict[str, str]:
        up = f"../../../{{}}/{key[:2]}/{key}"
        links = {slot.name: up.format("blobs")}
        for name, stored in slot.thumbnails.items():
            links[name] = f"{up.format('thumbs')}/{stored}"
        return links

    async def published(self, slot_id: str) -> dict[str, str]:
        def job() -> dict[str, str]:
            place = self._slot_path(slot_id)
            return {entry.name: str(entry.readlink()) for entry in place.iterdir()} if place.is_dir() else {}

        return await self.run(job)

    async def unpublish(self, slot_ids: list[str]) -> None:
        def job() -> None:
            for slot_id in slot_ids:
                self._unpublish(slot_id)

        await self.run(job)

    def _unpublish(self, slot_id: str) -> None:
        shutil.rmtree(self._slot_path(slot_id), ignore_errors=True)

    # --- The way out ---

    async def open_staged(self, staged: Staged) -> int:
        return await self.run(lambda: self._open_staged(staged))

    def _open_staged(self, staged: Staged) -> int:
        if staged.data is None:
            return os.open(self.staging_path(staged.key), os.O_RDONLY)
        fd = os.memfd_create("staged", os.MFD_CLOEXEC)
        try:
            _write_all(fd, staged.data)
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd

    async def open(self, key: str) -> int:
        return await self.run(lambda: os.open(self.path(key), os.O_RDONLY))

    async def thumbnail(self, key: str, name: str) -> bytes | None:
        def job() -> bytes | None:
            try:
                return self.thumbnail_path(key, name).read_bytes() or None  # empty: a power cut before it was synced
            except FileNotFoundError:
                return None

        return await self.run(job)

    async def put_thumbnails(self, key: str, thumbnails: Mapping[str, bytes]) -> None:
        def job() -> None:
            place = self.root / "thumbs" / key[:2] / key
            place.mkdir(exist_ok=True)
            for name, data in thumbnails.items():
                unfinished = place / f".{secrets.token_hex(4)}.{name}"
                try:
                    unfinished.write_bytes(data)
                    unfinished.rename(place / name)
                except BaseException:
                    unfinished.unlink(missing_ok=True)
                    raise

        await self.run(job)

    async def delete(self, keys: list[str]) -> None:
        def job() -> None:
            for key in keys:
                self._remove(key)

        await self.run(job)

    def _remove(self, key: str) -> None:
        self.staging_path(key).unlink(missing_ok=True)
        self.path(key).unlink(missing_ok=True)
        shutil.rmtree(self.root / "thumbs" / key[:2] / key, ignore_errors=True)

    # --- Upkeep ---

    async def check(self) -> None:
        def job() -> None:
            probe = self.staging_path(f"probe-{secrets.token_hex(8)}")
            try:
                probe.write_bytes(b"probe")
            finally:
                probe.unlink(missing_ok=True)

        await self.run(job)

    async def size(self, key: str) -> int | None:
        try:
            return await self.run(lambda: self.path(key).stat().st_size)
        except NotFound:
            return None

    async def keys(self, older_than: float) -> AsyncIterator[list[str]]:
        for kind in ("blobs", "thumbs"):
            async for names in self._listed(kind, older_than):
                yield names

    async def slots(self, older_than: float) -> AsyncIterator[list[str]]:
        async for names in self._listed("links", older_than):
            yield names

    async def _listed(self, kind: str, older_than: float) -> AsyncIterator[list[str]]:
        entries = self._entries(kind, time.time() - older_than)
        while names := await self.run(lambda: list(islice(entries, LISTED))):
            yield names

    def _entries(self, kind: str, before: float) -> Iterator[str]:
        for number in range(256):
            with os.scandir(self.root / kind / f"{number:02x}") as entries:
                for entry in entries:
                    try:
                        if entry.stat(follow_symlinks=False).st_ctime <= before:
                            yield entry.name
                    except FileNotFoundError:
                        continue  # gone meanwhile

    async def sweep_staging(self, older_than: float) -> tuple[int, int]:
        def job() -> tuple[int, int]:
            count = size = 0
            for entry in self._staging.iterdir():
                try:
                    found = entry.stat()
                    if found.st_mtime <= time.time() - older_than:
                        entry.unlink()
                        count, size = count + 1, size + found.st_size
                except FileNotFoundError:
                    continue
            return count, size

        return await self.run(job)


class _LocalWriter:
    """Batches go to a thread that hashes and writes them, one at a time."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.key = secrets.token_hex(16)
        self.size = 0
        self._sha256, self._sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
        self._batch: list[bytes] = []
        self._batched = 0
        self._fd: int | None = None
        self._on_disk = False
        self._job: asyncio.Future[None] | None = None

    async def write(self, chunk: bytes) -> None:
        self._batch.append(chunk)
        self._batched += len(chunk)
        self.size += len(chunk)
        if self._batched >= BATCH:
            await self._settle()
            batch, self._batch, self._batched = self._batch, [], 0
            self._job = asyncio.ensure_future(self.store.run(lambda: self._put(batch)))

    async def _settle(self) -> None:
        """Wait for the batch in work; what went wrong with it is raised here."""
        if self._job is not None:
            await asyncio.shield(self._job)
            self._job = None

    def _put(self, batch: list[bytes]) -> None:
        if self._fd is None:
            self._fd = os.open(self.store.staging_path(self.key), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            self._on_disk = True
        for chunk in batch:
            self._sha256.update(chunk)
            self._sha1.update(chunk)
            _write_all(self._fd, chunk)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    async def finish(self) -> Staged:
        await self._settle()
        batch, self._batch = self._batch, []
        data: bytes | None = None
        if self._fd is None:
            data = b"".join(batch)
            self._sha256.update(data)
            self._sha1.update(data)
        else:
            await self.store.run(lambda: self._put(batch))
            self._close()
        return Staged(self.key, self.size, self._sha256.hexdigest(), self._sha1.hexdigest(), data)

    async def discard(self) -> None:
        with suppress(NoSpace, Unavailable):  # the upload failed of just this
            await self._settle()
        self._batch = []
        self._close()
        if self._on_disk:
            await self.store.run(lambda: self.store.staging_path(self.key).unlink(missing_ok=True))

"""A directory as a store.

    staging/KEY                       unfinished uploads
    blobs/ab/KEY                      the bytes; ab are the key's first two digits
    thumbs/ab/KEY/256.webp            their thumbnails
    links/ab/SLOT_ID/NAME             symbolic links into the two above (tree.py)

File and directory are synced before `commit` returns. Links and thumbnails are not synced, since they can be made again
from the database and the bytes.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from media_gallery import metrics
from media_gallery.errors import NotFound
from media_gallery.storage import BlobFile, Staged, Writer
from media_gallery.storage.staging import PIECE, Staging, remove_folder, write_all
from media_gallery.storage.tree import DirectoryTree

AT_ONCE = 64 * 1024
"""Bytes that are read in the event loop, if the page cache has them: a thread would cost more."""


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def link_or_copy(source: Path, goal: Path) -> None:
    """Give a file another name: a hard link if the file system can make one, else a synced copy; never half a copy."""
    goal.parent.mkdir(parents=True, exist_ok=True)
    goal.unlink(missing_ok=True)
    try:
        goal.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        unfinished = goal.with_name(f".{goal.name}")
        shutil.copyfile(source, unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.rename(goal)


class LocalStore:
    """A `BlobStore` in one directory of one file system, with all further interfaces except `Addresses`."""

    addresses = None

    def __init__(self, root: Path, reserve: int = 0) -> None:
        self.root = root.absolute()
        self.staging = Staging(self.root / "staging", reserve)
        self.run = self.staging.run
        self.tree = DirectoryTree(self.root, self.staging)

    @property
    def files(self) -> LocalStore:
        return self

    async def start(self) -> None:
        await self.staging.start()
        await self.run(self._make_tree)

    def _make_tree(self) -> None:
        for folder in ("blobs", "thumbs", "links"):
            for number in range(256):
                (self.root / folder / f"{number:02x}").mkdir(parents=True, exist_ok=True)
            sync_directory(self.root / folder)
        sync_directory(self.root)

    async def close(self) -> None:
        await self.staging.close()

    # --- Places ---

    def _path(self, key: str) -> Path:
        return self.root / "blobs" / key[:2] / key

    def _thumbnail_path(self, key: str, name: str) -> Path:
        return self.root / "thumbs" / key[:2] / key / name

    # --- The way in ---

    def writer(self, key: str = "") -> Writer:
        return self.staging.writer(key)

    def check_room(self) -> None:
        self.staging.check_room()

    async def commit(self, staged: Staged) -> None:
        def job() -> None:
            self.staging.check_room()
            try:
                self._commit(staged)
            except BaseException:
                with suppress(OSError):
                    self._remove(staged.key)
                raise

        with metrics.store_write.time():
            await self.run(job)

    def _commit(self, staged: Staged) -> None:
        """Move the file to its place before it is synced: no row names it yet, a journal writes file and directory
        entry together, and so the sync of the directory finds nothing left to do.
        """
        final = self._path(staged.key)
        if staged.data is None:
            self.staging.path(staged.key).rename(final)
            fd = os.open(final, os.O_WRONLY)
        else:
            fd = _create(final)
        try:
            if staged.data is not None:
                write_all(fd, staged.data)
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_directory(final.parent)

    async def discard(self, staged: Staged) -> None:
        await self.staging.discard(staged)

    async def adopt(self, key: str, source: Path) -> Staged | None:
        return await self.run(lambda: self.staging.adopt(key, source))

    async def link_in(self, key: str, source: Path) -> None:
        def job() -> None:
            link_or_copy(source, self._path(key))
            sync_directory(self._path(key).parent)

        await self.run(job)

    # --- The way out ---

    def opened_staged(self, staged: Staged) -> AbstractAsyncContextManager[int]:
        return self.staging.opened_staged(staged)

    def opened(self, key: str) -> AbstractAsyncContextManager[int]:
        return self.staging.opened(lambda: self._open(key))

    def _open(self, key: str) -> int:
        try:
            with metrics.store_read.time():
                return os.open(self._path(key), os.O_RDONLY)
        except FileNotFoundError:
            raise NotFound from None

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        if end - start <= AT_ONCE and (data := _cached(self._path(key), start, end - start)) is not None:
            yield data
            return
        async with self.opened(key) as fd:
            while start < end:
                piece = await self.run(lambda: os.pread(fd, min(PIECE, end - start), start))  # noqa: B023, awaited here
                if not piece:
                    return
                start += len(piece)
                yield piece

    async def file(self, key: str) -> BlobFile:
        if await self.size(key) is None:
            raise NotFound
        return BlobFile(str(self._path(key)), f"blobs/{key[:2]}/{key}")

    async def link_out(self, key: str, goal: Path) -> None:
        try:
            # Not by `run`, since an error at the goal is no error of the store.
            await asyncio.to_thread(link_or_copy, self._path(key), goal)
        except FileNotFoundError:
            raise NotFound from None

    async def thumbnail(self, key: str, name: str) -> bytes | None:
        def job() -> bytes | None:
            try:
                return self._thumbnail_path(key, name).read_bytes() or None  # empty after a power cut
            except FileNotFoundError:
                return None

        return await self.run(job)

    async def put_thumbnails(self, key: str, thumbnails: Mapping[str, bytes]) -> None:
        def job() -> None:
            for name, data in thumbnails.items():
                while not _put(self._thumbnail_path(key, name), data):
                    pass  # the blob is being deleted; the caller looks for that afterwards

        await self.run(job)

    async def delete(self, keys: list[str]) -> None:
        def job() -> None:
            for key in keys:
                self._remove(key)

        with metrics.store_delete.time():
            await self.run(job)

    def _remove(self, key: str) -> None:
        self.staging.path(key).unlink(missing_ok=True)
        self._path(key).unlink(missing_ok=True)
        remove_folder(self.root / "thumbs" / key[:2] / key)

    # --- Upkeep ---

    async def check(self) -> None:
        await self.staging.check()

    async def size(self, key: str) -> int | None:
        def job() -> int | None:
            try:
                return self._path(key).stat().st_size
            except FileNotFoundError:
                return None

        with metrics.store_look.time():
            return await self.run(job)

    async def keys(self, older_than: float) -> AsyncIterator[list[str]]:
        for folder in ("blobs", "thumbs"):
            async for names in self.staging.listed(self.root / folder, older_than):
                yield names

    async def staged(self) -> tuple[int, int]:
        return await self.staging.held()

    async def sweep_staging(self, older_than: float, living: Container[str] = ()) -> tuple[int, int]:
        return await self.staging.sweep(older_than, living)


def _create(path: Path) -> int:
    """A new file, open for writing. A wrong one there is replaced, not changed, since it may have other names."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, 0o644)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, 0o644)


def _put(path: Path, data: bytes) -> bool:
    """Write a file, whole or not at all, and its directory; False if that was removed meanwhile."""
    with suppress(FileExistsError):
        path.parent.mkdir()
    unfinished = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        unfinished.write_bytes(data)
        unfinished.rename(path)
    except FileNotFoundError:
        return False
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return True


def _cached(path: Path, start: int, count: int) -> bytes | None:
    """Bytes of a file from the page cache; None if they are not all in it, or the file is missing."""
    data = bytearray(count)
    with suppress(OSError), path.open("rb", buffering=0) as file:
        if os.preadv(file.fileno(), [data], start, os.RWF_NOWAIT) == count:
            return bytes(data)
    return None

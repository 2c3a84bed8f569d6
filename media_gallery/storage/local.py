"""A directory as a store.

    staging/KEY                       unfinished uploads
    blobs/ab/KEY                      the bytes; ab are the key's first two digits
    thumbs/ab/KEY/256.webp            their thumbnails
    links/ab/SLOT_ID/NAME             symbolic links into the two above: a tree that any web server can serve, for it
                                      holds no file whose name tells another type than it has

File and directory are synced before `commit` returns; links and thumbnails are not, they can be
made again from the database and the bytes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Container, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import ClassVar
from zlib import crc32

from media_gallery.errors import NotFound
from media_gallery.media_types import named_type
from media_gallery.storage import Slot, Staged, Writer
from media_gallery.storage.staging import PIECE, Staging, write_all

LISTED = 1000
_HEX = frozenset("0123456789abcdef")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Another one after each start of the machine (proc_sys_kernel(5)): what was not synced may be lost then."""


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def link_or_copy(source: Path, goal: Path) -> None:
    """The same file under another name: a hard link where the file system can, else a synced copy, never half of it."""
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
    """A `BlobStore` in one directory of one file system."""

    tree: ClassVar[bool] = True

    def __init__(self, root: Path, reserve: int = 0) -> None:
        self.root = root.absolute()
        self.staging = Staging(self.root / "staging", reserve)
        self._boot = self.root / "boot"
        self.run = self.staging.run

    async def start(self) -> None:
        await self.staging.start()
        await self.run(self._make_tree)

    def _make_tree(self) -> None:
        for kind in ("blobs", "thumbs", "links"):
            for number in range(256):
                (self.root / kind / f"{number:02x}").mkdir(parents=True, exist_ok=True)
            sync_directory(self.root / kind)
        sync_directory(self.root)

    async def close(self) -> None:
        await self.staging.close()

    # --- Places ---

    def path(self, key: str) -> Path:
        return self.root / "blobs" / key[:2] / key

    def _thumbnail_path(self, key: str, name: str) -> Path:
        return self.root / "thumbs" / key[:2] / key / name

    def _slot_path(self, slot_id: str) -> Path:
        """By the two digits that a slot of ours begins with: web servers go by them. Others' may begin otherwise."""
        ours = set(slot_id[:2]) <= _HEX
        return self.root / "links" / (slot_id[:2] if ours else f"{crc32(slot_id.encode()) % 256:02x}") / slot_id

    # --- The way in ---

    def writer(self) -> Writer:
        return self.staging.writer()

    def check_room(self) -> None:
        self.staging.check_room()

    async def commit(self, staged: Staged, slot: Slot) -> None:
        def job() -> None:
            self.staging.check_room()
            try:
                self._commit(staged)
                self._publish(staged.key, slot)
            except BaseException:
                with suppress(OSError):
                    self._remove(staged.key)
                with suppress(OSError):
                    self._unpublish(slot.id)
                raise

        await self.run(job)

    def _commit(self, staged: Staged) -> None:
        """In its final place before it is synced, so that the file's sync takes the directory's entry along: a journal
        writes both at once, and the sync of the directory finds nothing left to do. No row names the key yet.
        """
        final = self.path(staged.key)
        if staged.data is None:
            self.staging.path(staged.key).rename(final)
            flags = os.O_WRONLY
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd = os.open(final, flags, 0o644)
        try:
            if staged.data is not None:
                write_all(fd, staged.data)
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_directory(final.parent)

    async def discard(self, staged: Staged) -> None:
        await self.staging.discard(staged)

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
        links = {name: f"{up.format('thumbs')}/{stored}" for name, stored in slot.thumbnails.items()}
        if named_type(slot.name) == slot.media_type:
            links[slot.name] = up.format("blobs")
        return links

    async def is_sound(self) -> bool:
        def job() -> bool:
            try:
                return self._boot.read_bytes() == BOOT_ID.read_bytes()
            except FileNotFoundError:
                return False

        return await self.run(job)

    async def note_sound(self) -> None:
        await self.run(lambda: self._boot.write_bytes(BOOT_ID.read_bytes()))

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
        with suppress(FileNotFoundError):
            shutil.rmtree(self._slot_path(slot_id))

    # --- The way out ---

    async def open_staged(self, staged: Staged) -> int:
        return await self.staging.open(staged)

    async def open(self, key: str) -> int:
        def job() -> int:
            try:
                return os.open(self.path(key), os.O_RDONLY)
            except FileNotFoundError:
                raise NotFound from None

        return await self.run(job)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        fd = await self.open(key)
        try:
            while start < end:
                piece = await self.run(lambda: os.pread(fd, min(PIECE, end - start), start))  # noqa: B023, awaited here
                if not piece:
                    return
                start += len(piece)
                yield piece
        finally:
            os.close(fd)

    async def address(self, key: str, media_type: str, disposition: str) -> None:
        return None

    async def thumbnail(self, key: str, name: str) -> bytes | None:
        def job() -> bytes | None:
            try:
                return self._thumbnail_path(key, name).read_bytes() or None  # empty: a power cut before it was synced
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

    async def adopt(self, key: str, file: Path) -> None:
        def job() -> None:
            link_or_copy(file, self.path(key))
            sync_directory(self.path(key).parent)

        await self.run(job)

    async def delete(self, keys: list[str]) -> None:
        def job() -> None:
            for key in keys:
                self._remove(key)

        await self.run(job)

    def _remove(self, key: str) -> None:
        self.staging.path(key).unlink(missing_ok=True)
        self.path(key).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.rmtree(self.root / "thumbs" / key[:2] / key)

    # --- Upkeep ---

    async def check(self) -> None:
        await self.staging.check()

    async def size(self, key: str) -> int | None:
        def job() -> int | None:
            try:
                return self.path(key).stat().st_size
            except FileNotFoundError:
                return None

        return await self.run(job)

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

    async def sweep_staging(self, older_than: float, living: Container[str] = ()) -> tuple[int, int]:
        return await self.staging.sweep(older_than, living)

"""Copies everything while the service runs, restores a backup, and moves files to another store.

    TARGET/gallery.sqlite      every row of the database, of either kind, at one moment; small files, too
    TARGET/blobs/ab/KEY        the bytes that those rows name

A key is never used again, so bytes that a backup has already are right, and a second backup into the same directory
adds only what is new. Thumbnails are not copied: they are made again when they are asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from media_gallery.db import Database, links, migrate, started_database, upkeep
from media_gallery.db.move import copy_rows, number_on
from media_gallery.db.sqlite import make_single, read_only
from media_gallery.errors import NotFound
from media_gallery.models import AccountId
from media_gallery.settings import Settings
from media_gallery.storage import BlobStore, Slot, Staged
from media_gallery.storage.local import link_or_copy, sync_directory

Progress = Callable[[str, int], None]
DATABASE = "gallery.sqlite"
PIECE = 256 * 1024
TOGETHER = 8
"""Files copied at once."""


@dataclass(slots=True)
class Copied:
    """What was copied: rows, files and their bytes. `known`: files that were there already."""

    rows: int = 0
    files: int = 0
    known: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Moved:
    """Files copied to another store, and their bytes; files it had already; files whose bytes are lost or wrong."""

    files: int = 0
    bytes: int = 0
    known: int = 0
    lost: int = 0
    damaged: int = 0


def blob_path(target: Path, key: str) -> Path:
    """Where a backup keeps the bytes of a key."""
    return target / "blobs" / key[:2] / key


def is_backup(source: Path) -> bool:
    return (source / DATABASE).is_file()


async def back_up(
    settings: Settings, db: Database, store: BlobStore, target: Path, older: Path | None, progress: Progress
) -> Copied:
    """Copy rows and bytes into `target`, which is made if it is missing. Bytes that `older` has are taken from there.

    If bytes were deleted after the rows were copied, their links are left out, as if the copy had begun later. If a
    backup is cut short, an earlier one in the same directory stays whole.
    """
    unfinished, copied = target / f".{DATABASE}", Copied()
    await asyncio.to_thread(_begin, target, unfinished)
    async with _copy(settings, unfinished) as copy:
        async with db.snapshot() as snapshot:
            copied.rows = await copy_rows(snapshot, copy, progress)
            await number_on(snapshot, copy)
        async for blobs in _blobs(copy):
            for start in range(0, len(blobs), TOGETHER):
                batch = blobs[start : start + TOGETHER]
                results = await asyncio.gather(*(_bring(store, blob, target, older, copied) for blob in batch))
                for blob, there in zip(batch, results, strict=True):
                    if not there:
                        await _forget(copy, blob.id)
                progress("files", len(batch))
        await copy.write(lambda c: c.run("DELETE FROM trash"))
    await asyncio.to_thread(_finish, target, unfinished)
    await _sweep(target)
    return copied


@asynccontextmanager
async def _copy(settings: Settings, path: Path) -> AsyncIterator[Database]:
    """The database of a backup, at the newest schema."""
    own = settings.model_copy(update={"database_url": f"sqlite:///{path}"})
    await asyncio.to_thread(migrate.upgrade, own)
    async with started_database(own) as copy:
        yield copy
    await asyncio.to_thread(make_single, path)


async def _blobs(db: Database) -> AsyncIterator[list[upkeep.KeptBlob]]:
    """Blobs whose bytes are in the store."""
    after = 0
    while blobs := await db.scan(lambda c, after=after: upkeep.blobs_after(c, after, stored=True)):  # type: ignore[misc]
        after = blobs[-1].id
        yield blobs


async def _bring(store: BlobStore, blob: upkeep.KeptBlob, target: Path, older: Path | None, copied: Copied) -> bool:
    """Copy the bytes of a blob; whether they are in the copy now."""
    goal = blob_path(target, blob.key)
    if await asyncio.to_thread(_is_whole, goal, blob.size):
        copied.known += 1
        return True
    earlier = blob_path(older, blob.key) if older else None
    has_it = earlier is not None and await asyncio.to_thread(_is_whole, earlier, blob.size)
    try:
        if earlier and has_it:
            await asyncio.to_thread(link_or_copy, earlier, goal)
        elif store.files:
            await store.files.link_out(blob.key, goal)
        else:
            await _fetch(store, blob.key, goal)
    except (FileNotFoundError, NotFound):
        return False
    copied.files, copied.bytes = copied.files + 1, copied.bytes + blob.size
    return True


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


async def _fetch(store: BlobStore, key: str, goal: Path) -> None:
    def copy(fd: int) -> None:
        goal.parent.mkdir(parents=True, exist_ok=True)
        unfinished = goal.with_name(f".{goal.name}")
        with os.fdopen(fd, "rb", closefd=False) as source, unfinished.open("wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(goal)

    async with store.opened(key) as fd:
        await asyncio.to_thread(copy, fd)


async def _forget(db: Database, blob_id: int) -> None:
    for link in await db.scan(lambda c: upkeep.links_of_blob(c, blob_id)):
        await db.write(lambda c, link=link: links.delete_links(c, AccountId(link.account), [link.id], 0))  # type: ignore[misc]


def _begin(target: Path, unfinished: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in target.glob(f"{unfinished.name}*"):
        path.unlink()


def _finish(target: Path, unfinished: Path) -> None:
    """Put the new rows in place of the old ones.

    The names of the bytes are synced before, also those that an earlier run left when it was cut short.
    """
    blobs = target / "blobs"
    blobs.mkdir(exist_ok=True)
    for place in (*blobs.iterdir(), blobs, target):
        sync_directory(place)
    unfinished.rename(target / DATABASE)
    sync_directory(target)
    for path in target.glob(f"{unfinished.name}*"):
        path.unlink()


async def _sweep(target: Path) -> None:
    """Remove bytes that an earlier backup had and this one does not name."""
    paths = (target / "blobs").glob("*/*")
    with read_only(target / DATABASE) as copy:
        while batch := await asyncio.to_thread(lambda: list(islice(paths, upkeep.STEP))):
            needed = await upkeep.needed_keys(copy, [path.name for path in batch])
            for path in batch:
                if path.name not in needed:
                    path.unlink(missing_ok=True)


async def restore(source: Path, settings: Settings, db: Database, store: BlobStore, progress: Progress) -> Copied:
    """Bring a backup into an empty database and an empty store, and publish its links."""
    copied = Copied()
    with TemporaryDirectory(dir=settings.data_dir) as place:  # it may have an older schema, or be read-only
        file = await asyncio.to_thread(shutil.copy, source / DATABASE, place)
        async with _copy(settings, Path(file)) as copy, copy.snapshot() as snapshot:
            copied.rows = await copy_rows(snapshot, db, progress)
            await number_on(snapshot, db)
    async for blobs in _blobs(db):
        for blob in blobs:
            await _take_in(store, blob.key, blob_path(source, blob.key))
            copied.files, copied.bytes = copied.files + 1, copied.bytes + blob.size
        progress("files", len(blobs))
    await _publish_all(db, store, progress)
    return copied


async def _take_in(store: BlobStore, key: str, source: Path) -> None:
    if store.files:
        await store.files.link_in(key, source)
        return
    async with _staged(store, key, _pieces(source)) as staged:
        await store.commit(staged)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece


@asynccontextmanager
async def _staged(store: BlobStore, key: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[Staged]:
    """Bytes that a store has received under a key that rows name; they are discarded unless the caller commits them."""
    writer = store.writer(key)
    try:
        async for piece in pieces:
            await writer.write(piece)
        yield await writer.finish()
    finally:
        await writer.discard()


async def _publish_all(db: Database, store: BlobStore, progress: Progress) -> None:
    after, tree = 0, store.tree
    while batch := await db.scan(lambda c, after=after: upkeep.links_after(c, after)):  # type: ignore[misc]
        after = batch[-1].id
        for link in batch:
            if tree and link.belongs_in_tree:
                await tree.publish(link.blob.key, Slot.of(link, link.blob))
        progress("links", len(batch))


async def _has(store: BlobStore, blob: upkeep.KeptBlob, by_size: bool) -> bool:
    """Whether a store has a blob's bytes: compares their digest, or if `by_size`, only their number."""
    if await store.size(blob.key) != blob.size:
        return False
    digest = hashlib.sha256()
    if not by_size:
        async for piece in store.read(blob.key, 0, blob.size):
            await asyncio.to_thread(digest.update, piece)
    return by_size or digest.hexdigest() == blob.sha256


async def move_files(db: Database, source: BlobStore, target: BlobStore, by_size: bool, progress: Progress) -> Moved:
    """Copy the files that `target` lacks, comparing digests; nothing is removed. May run beside the service.

    `by_size`: a file that is there with the right size is not read back.
    """
    moved = Moved()

    async def move(blob: upkeep.KeptBlob) -> None:
        if await _has(target, blob, by_size):
            moved.known += 1
            return
        size = await source.size(blob.key)
        try:
            if size is None:
                raise NotFound
            async with _staged(target, blob.key, source.read(blob.key, 0, size)) as staged:
                if staged.sha256 != blob.sha256:
                    moved.damaged += 1
                    return
                await target.commit(staged)
        except NotFound:
            moved.lost += 1  # or deleted meanwhile
            return
        moved.files, moved.bytes = moved.files + 1, moved.bytes + blob.size

    async for blobs in _blobs(db):
        for start in range(0, len(blobs), TOGETHER):
            batch = blobs[start : start + TOGETHER]
            await asyncio.gather(*map(move, batch))
            progress("files", len(batch))
    await _publish_all(db, target, progress)
    return moved

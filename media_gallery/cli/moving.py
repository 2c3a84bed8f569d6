"""Backups and moves: of the database, of the files, of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from media_gallery.app import Gallery, hold, started
from media_gallery.backup import Copied, Moved, back_up, is_backup, move_files, restore
from media_gallery.cli.common import (
    AsJson,
    Complaint,
    Config,
    changed,
    existing,
    load,
    offline,
    out,
    progress_bars,
    show,
)
from media_gallery.db import migrate, started_database, upkeep
from media_gallery.db.move import copy_database
from media_gallery.storage import make_store


def backup(target: Path, *, older: Path | None = None, config: Config = None, as_json: AsJson = False) -> None:
    """Copy the database and all files into a directory; the service may run.

    Files are hard links if the file system allows it. Into the same directory again, or with an older backup, only new
    files are copied.

    Parameters
    ----------
    target
        The directory; it is made if it is not there.
    older
        An earlier backup to take unchanged files from.
    """

    async def work(gallery: Gallery) -> Copied:
        return await back_up(gallery.settings, gallery.db, gallery.store, target, older, progress)

    with progress_bars() as progress:
        copied = offline(config, work)
    show([msgspec.to_builtins(copied)], as_json, sizes=("bytes",))


def restore_backup(source: Path, *, config: Config = None, as_json: AsJson = False) -> None:
    """Bring a backup into an empty data directory and an empty database; the service must be stopped.

    Parameters
    ----------
    source
        A directory that `backup` made.
    """
    if not is_backup(source):
        raise Complaint(f"{source} is no backup: it has no database in it")

    async def work(gallery: Gallery) -> Copied:
        if not await gallery.db.scan(upkeep.is_empty):
            raise Complaint("The database is not empty: restore into an empty one")
        return await restore(source, gallery.settings, gallery.db, gallery.store, progress)

    settings = load(config)
    with hold(settings.data_dir, alone=True), progress_bars() as progress:
        if migrate.current(settings) is None:
            migrate.upgrade(settings)
        copied = offline(config, work)
    show([msgspec.to_builtins(copied)], as_json, sizes=("bytes",))


def move_storage(target: str, *, by_size: bool = False, config: Config = None, as_json: AsJson = False) -> None:
    """Copy all files into another store, comparing digests; the database stays.

    The service may run meanwhile. Then stop the service and run this again for what came since, with --by-size if that
    must be quick; set STORAGE_URL and start the service. A run that was cut short goes on where it stopped. The old
    store is left as it is.

    Parameters
    ----------
    target
        s3://bucket/prefix, with the S3 settings in force; or `local`, the data directory.
    by_size
        Do not read back what the target has already, if its size is right.
    """
    settings = load(config)
    goal = changed(settings, storage_url="" if target == "local" else target)
    if goal.storage_url == settings.storage_url:
        raise Complaint("The files are there already")

    async def work(gallery: Gallery) -> Moved:
        store = make_store(goal)
        async with started(store):
            return await move_files(gallery.db, gallery.store, store, by_size, progress)

    with progress_bars() as progress:
        moved = offline(config, work)
    show([msgspec.to_builtins(moved)], as_json, sizes=("bytes",))
    if moved.lost or moved.damaged:
        raise Complaint("Not all files came along: see `media-gallery fsck`")


def move_database(target: str, *, config: Config = None) -> None:
    """Copy the database into another one, which must be empty, or left by a copy that was cut short.

    The service must be stopped. Every row is compared at the end; then set DATABASE_URL and start the service.

    Parameters
    ----------
    target
        Such as postgresql://user:password@host/database.
    """
    settings = existing(config)
    goal = changed(settings, database_url=target)

    async def work(progress: Callable[[str, int], None]) -> int:
        async with started_database(settings) as source, started_database(goal) as destination:
            return await copy_database(source, destination, progress)

    with hold(settings.data_dir, alone=True), progress_bars() as progress:
        migrate.upgrade(goal)
        rows = asyncio.run(work(progress))
    out.print(f"{rows} rows copied and compared. Now set MEDIA_GALLERY_DATABASE_URL to the new database.")

"""`fsck --repair` beside the running service: its counts are right although files come and go."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable

import pytest

from media_gallery.app import Gallery
from media_gallery.db import Connection, accounts, links
from media_gallery.maintenance import Finding
from media_gallery.models import NewLink
from media_gallery.storage import Slot
from tests.service import Service, User

LIVING = 4


def _spoil(service: Service) -> None:
    """Make every count wrong, and insert a blob that no link names."""

    async def spoil(c: Connection) -> None:
        await c.run("UPDATE accounts SET used = used + 7, files = files + 1")
        await c.run("UPDATE usage SET used = used + 3")
        await c.run("UPDATE blobs SET links = links + 1")
        await c.run(
            "INSERT INTO blobs (key, size, sha256, sha1, links, created_at) VALUES ($1, 1, $1, $1, 2, 0)",
            os.urandom(16).hex(),
        )

    service.within(lambda gallery: gallery.db.write(spoil))


def test_counts_are_repaired_while_files_come_and_go(start_service: Callable[..., Service]) -> None:
    service = start_service(WORKERS="2")
    service.user().upload(b"stays")  # without it the store would have no file of any row, and seem the wrong one
    users, common, stop = [service.user() for _ in range(LIVING)], os.urandom(1000), threading.Event()
    failed: list[int] = []

    def live(user: User) -> None:
        while not stop.is_set():
            for data in (common, os.urandom(500)):
                answer = user.send(data)
                if answer.status_code != 201:
                    failed.append(answer.status_code)
            if len(items := user.items()) > 10:
                user.delete("files/", id=[item["id"] for item in items[:8]])

    threads = [threading.Thread(target=live, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    told = ""
    try:
        for _ in range(5):
            _spoil(service)
            told += service.cli("fsck", "--repair")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert "miscounted" in told and "of category" in told and "and has 0" in told
    assert ", 0 wrong" in service.cli("fsck")
    for user in users:
        assert user.used() == sum(item["size"] for item in user.everything())


def test_the_only_file_goes_while_the_store_is_looked_at(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the store lacks the oldest files, it may be the wrong one, but not if those files were deleted."""
    service = start_service()
    user = service.user()
    file = user.upload(b"going")

    async def look(gallery: Gallery) -> None:
        size = gallery.store.size

        async def late(key: str) -> int | None:
            if user.items():
                await asyncio.to_thread(user.delete, "files/", id=file["id"])
            return await size(key)

        monkeypatch.setattr(gallery.store, "size", late)
        report = await gallery.maintenance.fsck(repair=True)
        assert (report.blobs, report.wrong) == (0, 0)

    service.within(look)


def test_a_link_not_yet_committed_is_counted_too(start_service: Callable[..., Service]) -> None:
    """A count is repaired while another link of that account to those bytes is inserted but not committed."""
    service = start_service()
    user = service.user()
    file = user.upload(b"known")
    _spoil(service)

    async def race(gallery: Gallery) -> None:
        known = await gallery.db.read(lambda c: links.find_by_slot(c, file["slot_id"], 0))
        assert known
        new = NewLink("ab" * 16, "late", "text/plain", "file", {}, False)
        if gallery.store.tree:
            await gallery.store.tree.publish(known.blob.key, Slot.of(new, known.blob))

        begun = threading.Event()

        async def slow(c: Connection) -> None:
            await accounts.add_file(c, known.account, known.blob.size, "file")
            await links.link_known_blob(c, known.blob)
            await links.insert_link(c, known.account, new, known.blob, gallery.clock())
            begun.set()
            await c.one("SELECT pg_sleep(1)") if c.dialect == "postgresql" else time.sleep(1)  # noqa: ASYNC251

        inserting = asyncio.create_task(gallery.db.write(slow))
        await asyncio.to_thread(begun.wait)
        assert (await gallery.maintenance.fsck(repair=True)).wrong
        await inserting
        assert (await gallery.maintenance.fsck()).wrong == 0

    service.within(race)
    assert user.used() == 2 * len(b"known") and len(user.items()) == 2


def test_every_fault_is_reported(start_service: Callable[..., Service]) -> None:
    """More blobs and accounts than are read at a time, and a category whose row is missing."""
    service = start_service()
    user = service.user()
    user.upload(b"counted")

    async def spoil(c: Connection) -> None:
        for number in range(2100):
            await c.run(
                "INSERT INTO blobs (key, size, sha256, sha1, links, created_at) VALUES ($1, 1, $1, $1, 1, 0)",
                f"{number:032x}",
            )
        for number in range(250):
            await c.run(
                "INSERT INTO accounts (jid, vhost, used, created_at) VALUES ($1, '', 5, 0)", f"{number}@example.org"
            )
        await c.run("DELETE FROM usage")

    async def look(gallery: Gallery) -> None:
        await gallery.db.write(spoil)
        told: list[Finding] = []
        report = await gallery.maintenance.fsck(repair=True, tell=told.append)
        assert len(told) == report.wrong == 2100 + 250 + 1
        assert (await gallery.maintenance.fsck()).wrong == 0

    service.within(look)
    assert user.get("files/stats/").json()["total"] == {"count": 1, "used": 7}

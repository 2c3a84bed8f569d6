"""Deletions that go page by page, while other processes do upkeep."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from media_gallery.app import Gallery
from media_gallery.db import accounts, links, started_database
from media_gallery.models import Filter
from tests import samples
from tests.service import Service, User, assert_error


async def _rows(gallery: Gallery, table: str) -> int:
    row = await gallery.db.read(lambda c: c.one(f"SELECT COUNT(*) FROM {table}"))
    assert row
    return int(row[0])


@pytest.mark.parametrize("how", ["filter", "oldest"])
def test_what_is_uploaded_meanwhile_stays(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    service = start_service()
    user = service.user()
    for number in range(7):
        user.upload(os.urandom(100), f"old {number}.bin")
    monkeypatch.setattr(links, "IDS", 3)
    deleted: list[int] = []

    async def work(gallery: Gallery) -> None:
        delete = gallery.store.delete

        async def late(keys: list[str]) -> None:
            user.upload(os.urandom(100), f"old but late {len(deleted)}.bin")
            deleted.append(len(keys))
            await delete(keys)

        monkeypatch.setattr(gallery.store, "delete", late)
        account = (await gallery.accounts.get(user.jid)).id
        if how == "filter":
            assert await gallery.files.delete(account, Filter(name="old")) == 7
        else:
            assert await gallery.files.delete_oldest(account, 100, exclude_avatars=True) == 7
        assert await _rows(gallery, "trash") == 0  # no process finds anything to delete again

    service.within(work)
    assert sum(deleted) == 7
    names = [item["name"] for item in user.items()]
    assert names and all("late" in name for name in names)
    assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


def test_files_of_one_moment_go_in_the_order_of_their_list(anna: User) -> None:
    made = [anna.upload(os.urandom(100))["id"] for _ in range(4)]

    async def same_time(gallery: Gallery) -> None:
        await gallery.db.write(lambda c: c.run("UPDATE links SET created_at = 5 WHERE id >= $1", made[0]))

    anna.service.within(same_time)
    assert anna.delete("files/percent/50/").status_code == 204
    assert sorted(item["id"] for item in anna.items()) == made[2:]


def test_an_account_that_shrinks_is_left_to_whoever_empties_it(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user = service.user()
    made = [user.upload(os.urandom(100))["id"] for _ in range(3)]
    service.stop()  # its own upkeep would count, too

    async def work(gallery: Gallery) -> None:
        account = (await gallery.accounts.get(user.jid)).id
        await gallery.db.write(lambda c: accounts.close_account(c, account))
        left: list[Any] = []
        for _ in range(2):
            await gallery.maintenance.tidy()
            left.append(await _rows(gallery, "links"))
            await gallery.files.delete_ids(account, [made.pop()])
        await gallery.maintenance.tidy()
        left.append(await _rows(gallery, "links"))
        assert left == [3, 2, 1]
        await gallery.maintenance.tidy()  # it has not shrunk since the last time, so a crash has left it
        assert await _rows(gallery, "links") == await _rows(gallery, "accounts") == 0

    service.within(work)


def test_an_account_whose_deletion_was_cut_short_goes_soon_after_the_start(
    start_service: Callable[..., Service],
) -> None:
    """Its files are gone for everybody at once, even if the request for the deletion was cut short."""
    service = start_service()
    user = service.user()
    file = user.upload(samples.picture(), "photo.png")

    async def close(gallery: Gallery) -> None:
        account = (await gallery.accounts.get(user.jid)).id
        await gallery.db.write(lambda c: accounts.close_account(c, account))

    service.within(close)
    for address in (file["file"], file["thumbnail"]["url"]):
        assert_error(service.http.get(address), 404)
    service.stop()
    service.start()
    service.wait_until(lambda: not service.stored("blobs", "thumbs"))


def test_processes_take_turns_at_upkeep(start_service: Callable[..., Service]) -> None:
    service = start_service()
    service.stop()  # it would take turns, too

    async def work(gallery: Gallery) -> None:
        async with started_database(gallery.settings) as other:
            async with other.turn() as ours:
                assert ours
                await gallery.db.write(lambda c: c.run("INSERT INTO trash (key, created_at) VALUES ('abcdef', 0)"))
                async with gallery.db.turn() as also:
                    assert not also
                assert not await gallery.maintenance.tidy()
                assert await _rows(gallery, "trash") == 1
            assert await gallery.maintenance.tidy()
            assert await _rows(gallery, "trash") == 0

    service.within(work)


def test_what_fits_into_one_transaction_goes_in_one(start_service: Callable[..., Service]) -> None:
    """So a kill leaves all of it or nothing."""
    service = start_service()
    user = service.user()
    for number in range(3):
        user.upload(os.urandom(100), f"{number}.bin")

    async def work(gallery: Gallery) -> None:
        write, written = gallery.db.write, list[int]()

        async def counted(query: Any, **how: Any) -> Any:
            before = await _rows(gallery, "links")
            result = await write(query, **how)
            written.append(before - await _rows(gallery, "links"))
            return result

        gallery.db.write = counted  # type: ignore[method-assign]
        account = (await gallery.accounts.get(user.jid)).id
        assert await gallery.files.delete_oldest(account, 100, exclude_avatars=True) == 3
        assert [count for count in written if count] == [3]

    service.within(work)

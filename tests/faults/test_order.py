"""What is on disk after a crash between two steps: perhaps too much, never too little."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from media_gallery import arriving
from media_gallery.app import Gallery
from media_gallery.db import links
from media_gallery.errors import InDoubt, Unauthorized, Unavailable
from media_gallery.keeping import Kept
from media_gallery.models import Digest, Filter
from media_gallery.offers import Offer
from media_gallery.storage import Slot
from media_gallery.uploads import Upload
from tests import samples
from tests.service import Service, User, tidied


class Crash(BaseException):
    """After this nothing else happens, not even cleaning up."""


async def _upload(gallery: Gallery, user: User, data: bytes) -> Kept:
    account = await gallery.accounts.get(user.jid)
    async with gallery.uploads.begin(account.id, len(data)) as upload:
        await upload.write(data)
        return await upload.finish(Offer("a.bin", context="file"))


async def _slot(gallery: Gallery, user: User, data: bytes) -> Any:
    account = await gallery.accounts.get(user.jid)
    digest = Digest.parse(hashlib.sha256(data).hexdigest())
    return await gallery.uploads.slot(account, Offer("b.bin", len(data), digest))


def break_after_commit(gallery: Gallery, how: type[BaseException]) -> None:
    """Let the next transaction succeed, and everything after it fail."""
    write = gallery.db.write

    async def last(query: Any, **how_long: Any) -> Any:
        await write(query, **how_long)
        raise how

    gallery.db.write = last  # type: ignore[method-assign]


def removing_nothing(gallery: Gallery, patch: pytest.MonkeyPatch) -> None:
    """Let the store remove nothing, as after a crash."""
    patch.setattr(gallery.store, "delete", _nothing)
    patch.setattr(Upload, "discard", _nothing)
    patch.setattr(gallery.arrivals, "leave", lambda _: None)
    if gallery.store.tree:
        patch.setattr(gallery.store.tree, "unpublish", _nothing)


@pytest.mark.parametrize("come", [_upload, _slot])
def test_known_bytes_are_published_before_a_row_names_them(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, come: Callable[..., Any]
) -> None:
    service = start_service()
    user, data = service.user(), os.urandom(1000)
    user.upload(data)

    async def crash(gallery: Gallery) -> None:
        break_after_commit(gallery, Crash)
        removing_nothing(gallery, monkeypatch)
        with pytest.raises(Crash):
            await come(gallery, user, data)

    service.within(crash)
    assert len(user.items()) == 2
    assert "0 wrong" in service.cli("fsck")


def test_a_fault_after_the_commit_removes_no_bytes(start_service: Callable[..., Service]) -> None:
    """A connection may break in unexpected ways after the row is stored."""
    service = start_service()
    user, data = service.user(), os.urandom(1000)

    async def broken(gallery: Gallery) -> None:
        break_after_commit(gallery, RuntimeError)
        with pytest.raises(RuntimeError):
            await _upload(gallery, user, data)

    service.within(broken)
    [file] = user.items()
    assert user.http.get(file["file"]).content == data
    assert "0 wrong" in service.cli("fsck")


def test_only_bytes_of_an_uncertain_commit_are_left_for_upkeep(start_service: Callable[..., Service]) -> None:
    service = start_service()
    user, known = service.user(), os.urandom(1000)
    user.upload(known)
    before = service.stored("blobs", "links")

    async def broken(gallery: Gallery) -> None:
        refusal: type[Unavailable] = Unavailable

        async def refuse(_: Any) -> None:
            raise refusal

        gallery.db.write = refuse  # type: ignore[method-assign, assignment]
        for refusal in (Unavailable, InDoubt):
            for come, data in ((_upload, os.urandom(1000)), (_upload, known), (_slot, known)):
                with pytest.raises(refusal):
                    await come(gallery, user, data)
            assert (service.stored("blobs", "links") == before) == (refusal is Unavailable)

    service.within(broken)
    service.stop()
    service.cli("gc", "--older-than", "0")
    assert service.stored("blobs", "links") == before


@pytest.mark.parametrize("size", [1000, 700_000])
def test_what_a_crash_leaves_upkeep_removes(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """After a crash at any step, upkeep removes all that no row names, without `gc`."""
    service = start_service()
    user, known = service.user(), os.urandom(size)
    user.upload(known)
    before = service.stored("blobs", "links", "staging")
    monkeypatch.setattr(arriving, "SETTLED", -1)

    async def crash(gallery: Gallery, part: str, call: str, come: Callable[..., Any], data: bytes) -> None:
        broken = {"db": gallery.db, "store": gallery.store, "tree": gallery.store.tree}[part]
        if broken is None:
            return
        works = getattr(broken, call)

        async def last(*args: Any) -> None:
            if call != "write":
                await works(*args)
            removing_nothing(gallery, monkeypatch)
            raise Crash

        setattr(broken, call, last)
        with pytest.raises(Crash):
            await come(gallery, user, data)

    for part, call, come, fresh in (
        ("store", "commit", _upload, True), ("db", "write", _upload, True), ("tree", "publish", _upload, False),
        ("db", "write", _upload, False), ("tree", "publish", _slot, False),
    ):  # fmt: skip
        data = os.urandom(size) if fresh else known
        service.within(lambda gallery: crash(gallery, part, call, come, data))  # noqa: B023, run at once
    assert list((service.data_dir / "arriving").iterdir())
    service.tidy()
    assert service.stored("blobs", "links", "staging") == before
    assert len(user.items()) == 1 and user.http.get(user.items()[0]["file"]).content == known
    assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


def test_a_deletion_is_done_once_its_rows_are_gone(start_service: Callable[..., Service]) -> None:
    """Even if the store then fails, or the database cannot empty a closed account, which upkeep does later."""
    service = start_service()
    users = [service.user(), service.user()]
    urls = [user.upload(os.urandom(1000))["file"] for user in users]
    service.stop()  # its own upkeep would do what is left too early

    async def refuse(*_: Any) -> None:
        raise Unavailable

    async def broken(gallery: Gallery) -> None:
        one, other = [(await gallery.accounts.get(user.jid)).id for user in users]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gallery.store, "delete", refuse)
            if gallery.store.tree:
                patch.setattr(gallery.store.tree, "unpublish", refuse)
            assert await gallery.files.delete(one, Filter(size_gte=0)) == 1
            patch.setattr(gallery.files, "delete_all", refuse)
            await gallery.accounts.delete(other)
        assert len(service.stored("blobs")) == 2
        for _ in range(2):  # at the first time, the request itself may still empty the account
            await tidied(gallery)

    service.within(broken)
    service.start()
    assert not service.stored("blobs") and users[0].used() == 0
    assert [users[0].http.get(url).status_code for url in urls] == [404, 404]
    assert "0 blobs, 0 links" in service.cli("fsck")


def test_bytes_that_another_upload_stored_meanwhile_are_stored_once(start_service: Callable[..., Service]) -> None:
    service = start_service()
    anna, boris, data = service.user(), service.user(), os.urandom(700_000)

    async def race(gallery: Gallery) -> None:
        commit, write, tried = gallery.store.commit, gallery.db.write, count(1)

        async def late(*args: Any, **_: Any) -> None:
            await commit(*args)
            boris.upload(data)

        async def later(query: Any) -> Any:
            if next(tried) == 2:  # his blob, which is deleted by now
                boris.delete("files/percent/100/")
            return await write(query)

        gallery.store.commit, gallery.db.write = late, later  # type: ignore[method-assign, assignment]
        kept = await _upload(gallery, anna, data)
        assert kept.quota.used == len(data) and next(tried) == 4

    service.within(race)
    [file] = anna.items()
    assert anna.http.get(file["file"]).content == data
    assert service.stored_bytes() == 1
    assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


@pytest.mark.parametrize("come", [_upload, _slot])
def test_an_account_that_ends_meanwhile_leaves_nothing(
    start_service: Callable[..., Service], come: Callable[..., Any]
) -> None:
    service = start_service()
    anna, boris, data = service.user(), service.user(), os.urandom(1000)
    file = anna.upload(data)
    boris.upload(data)

    async def race(gallery: Gallery) -> None:
        write = gallery.db.write

        async def late(query: Any) -> Any:
            gallery.db.write = write  # type: ignore[method-assign]
            assert anna.delete("account/").status_code == 204
            return await write(query)

        gallery.db.write = late  # type: ignore[method-assign, assignment]
        with pytest.raises(Unauthorized):
            await come(gallery, anna, data)

    service.within(race)
    assert anna.http.get(file["file"]).status_code == 404
    assert "1 blobs, 1 links, 0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


def test_fsck_does_not_take_a_deletion_under_way_for_a_fault(start_service: Callable[..., Service]) -> None:
    service = start_service(STORAGE_URL="")
    user = service.user()
    file = user.upload(b"going")

    async def check(gallery: Gallery) -> None:
        tree = gallery.store.tree
        assert tree
        is_published = tree.is_published

        async def slow(key: str, slot: Slot) -> bool:
            assert user.delete("files/", id=file["id"]).status_code == 204
            return await is_published(key, slot)

        tree.is_published = slow  # type: ignore[method-assign]
        report = await gallery.maintenance.fsck()
        assert (report.links, report.wrong) == (1, 0)

    service.within(check)


def test_a_link_deleted_while_it_is_published_again_is_not_published(start_service: Callable[..., Service]) -> None:
    service = start_service(STORAGE_URL="")
    user = service.user()
    file = user.upload(b"going")

    async def repair(gallery: Gallery) -> None:
        tree = gallery.store.tree
        assert tree
        publish = tree.publish
        await tree.unpublish([file["slot_id"]])

        async def late(*args: Any, **_: Any) -> None:
            assert user.delete("files/", id=file["id"]).status_code == 204
            await publish(*args)

        tree.publish = late  # type: ignore[method-assign]
        await gallery.maintenance.fsck(repair=True)
        assert [slots async for slots in tree.slots(-1)] == []

    service.within(repair)
    assert "0 for gc, 0 wrong" in service.cli("fsck", GC_GRACE="0")


def test_a_wrong_type_does_not_unmake_an_avatar(start_service: Callable[..., Service]) -> None:
    """One user calls an image a film, so it cannot be decoded. Meanwhile another makes an avatar of the same bytes."""
    service = start_service()
    anna, boris = service.user(), service.user()
    data = anna.http.get(anna.avatar(samples.picture("png", 60, 60))["file"]).content
    anna.delete("files/percent/100/")
    film = boris.upload(data, "film.mp4", media_type="video/mp4", create_thumbnails="false")

    async def race(gallery: Gallery) -> None:
        stale = await gallery.db.read(lambda c: links.find_by_slot(c, film["slot_id"], 0))
        assert stale
        anna.avatar(data)
        await gallery.files.decode(replace(stale, thumbnails=True))
        await gallery.thumbnailer.close()

    service.within(race)
    [avatar] = anna.items("avatar/")
    assert [small["width"] for small in avatar["thumbnails"]] == [32, 48]
    assert "0 wrong" in service.cli("fsck")


async def _nothing(*_: Any, **__: Any) -> None: ...

"""Uploads held open: together they never pass the account's quota, and their number is limited.

This holds for any number of workers, and however one of them ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from bench.servers import family
from media_gallery.app import Gallery
from media_gallery.arriving import STEP, Arrivals
from media_gallery.errors import BadRequest, QuotaExceeded
from media_gallery.models import AccountId
from media_gallery.offers import Offer
from media_gallery.uploads import Received, Upload
from tests.faults.raw import END, Raw, part
from tests.service import MIB, Service, User, assert_error

BODY = part("file", os.urandom(3 * MIB), "held.bin")[:-2]
"""An upload without its end."""


@pytest.fixture(scope="module")
def tight(start_service: Callable[..., Service]) -> Service:
    """A service with several workers; any of them may take a connection."""
    return start_service(WORKERS="3", DEFAULT_QUOTA=str(4 * MIB), UPLOADS_AT_ONCE="3", IDLE_TIMEOUT="10 min")


@pytest.fixture
def user(tight: Service) -> User:
    return tight.user()


def held(user: User, body: bytes) -> Raw:
    """An upload that has sent this much and then waits."""
    raw = Raw(user)
    raw.head(len(BODY) + 2 + len(END))
    raw.send(body)
    return raw


def staged(user: User) -> int:
    """Bytes in staging. Files of cut uploads may go while they are counted."""
    sizes = list[int]()
    for path in (user.service.data_dir / "staging").iterdir():
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def test_uploads_held_open_take_no_more_than_the_quota(user: User) -> None:
    """The first upload comes in this process, so that all its bytes are counted before the second one begins."""
    user.service.wait_until(lambda: not user.service.stored("staging"))

    async def work(gallery: Gallery) -> None:
        account = (await gallery.accounts.get(user.jid)).id
        async with gallery.uploads.begin(account) as first:
            await first.write(os.urandom(3 * MIB))
            second = held(user, BODY)
            status, refusal = second.answer()
            assert (status, refusal["details"]) == (403, {"quota": 4 * MIB, "used": 0, "required": 3 * MIB})
            assert staged(user) <= 4 * MIB
            assert user.service.user("boris").upload(os.urandom(3 * MIB))  # other accounts have their own quotas
            await first.finish(Offer())
            second.close()

    user.service.within(work)
    assert user.used() == 3 * MIB
    assert user.upload(os.urandom(MIB))["used"] == 4 * MIB


@pytest.mark.parametrize("sent", [0, 1000, 3 * MIB])
def test_the_room_of_a_cut_upload_is_given_back(user: User, sent: int) -> None:
    for _ in range(4):
        raw = held(user, BODY[:sent])
        user.service.wait_until(lambda: staged(user) >= sent - MIB)
        raw.close()
        user.service.wait_until(lambda: user.send(os.urandom(3 * MIB + 1000)).status_code == 201)
        user.delete("files/percent/100/")


def as_many_as_allowed(user: User) -> list[Raw]:
    user.service.wait_until(lambda: not user.service.stored("staging"))  # of cut uploads of an earlier test
    raws = [held(user, BODY[: MIB + 10_000]) for _ in range(3)]
    user.service.wait_until(lambda: len(user.service.stored("staging")) == 3)
    return raws


def test_the_number_of_uploads_at_once_is_limited(user: User) -> None:
    raws = as_many_as_allowed(user)
    refusal = user.send(b"one more")
    assert_error(refusal, 429)
    assert int(refusal.headers["Retry-After"]) > 0
    assert user.service.user("boris").upload(b"another's")
    raws.pop().close()
    user.service.wait_until(lambda: user.send(b"one more").status_code == 201)
    statuses = []
    for raw in raws:  # one after the other: if both grow at once, neither may have room
        raw.send(BODY[MIB + 10_000 :] + b"\r\n" + END)
        statuses.append(raw.answer()[0])
    assert sorted(statuses) == [201, 403]  # 3 MiB each, and the quota has room for one


async def _finish(upload: Upload) -> None:
    assert (await upload.finish(Offer())).quota.used == MIB


async def _refused(upload: Upload) -> None:
    await upload.finish(Offer(size=1))


async def _too_much(upload: Upload) -> None:
    await upload.write(b"x" * 4 * MIB)


async def _cancelled(upload: Upload) -> None:
    asyncio.current_task().cancel()  # type: ignore[union-attr]
    await upload.finish(Offer())


async def _left_alone(upload: Upload) -> None:
    pass


@pytest.mark.parametrize(
    ("way", "error"),
    [(_finish, None), (_refused, BadRequest), (_too_much, QuotaExceeded), (_cancelled, asyncio.CancelledError),
     (_left_alone, None)],
)  # fmt: skip
def test_however_an_upload_ends_its_room_is_given_back(
    user: User, way: Callable[[Upload], Coroutine[Any, Any, None]], error: type[BaseException] | None
) -> None:
    """Nothing is left of an upload that was not kept."""
    user.service.wait_until(lambda: not user.service.stored("staging"))

    async def brought(gallery: Gallery, account: AccountId) -> None:
        async with gallery.uploads.begin(account) as upload:
            await upload.write(b"x" * MIB)
            assert gallery.arrivals.held(account) == (1, MIB)
            assert upload.received == Received(account, upload.received.key, MIB)
            await way(upload)

    async def work(gallery: Gallery) -> None:
        account = (await gallery.accounts.get(user.jid)).id
        with pytest.raises(error) if error else nullcontext():
            await asyncio.create_task(brought(gallery, account))
        assert gallery.arrivals.held(account) == (0, 0)

    user.service.within(work)
    assert not user.service.stored("staging")
    assert len(user.items()) == (way is _finish)


def test_uploads_of_another_process_count_while_it_lives(tmp_path: Path) -> None:
    ours, theirs, me = Arrivals(tmp_path), Arrivals(tmp_path), AccountId(7)
    first, second = ours.enter(me, 3, "a" * 32), theirs.enter(me, 3, "b" * 32)
    assert first and second
    (entry, _), (other, _) = first, second
    assert theirs.grow(other, 60, 100) == 40
    assert ours.grow(entry, 50, 100) == -10 and entry.size == 0
    assert ours.grow(entry, 30, 100) == 10
    assert ours.held(me) == theirs.held(me) == (2, 90)
    assert ours.held(AccountId(8)) == (0, 0)
    assert ours.enter(me, 2, "c" * 32) is None
    assert ours.living_keys() == {"a" * 32, "b" * 32} and ours.left_behind(at_once=True).entries == []
    theirs.note(other, STEP - 1)
    assert theirs.held(me) == (2, 89 + STEP) and ours.held(me) == (2, 90)  # few bytes are not told at once
    theirs.note(other, 1)
    assert ours.held(me) == theirs.held(me) == (2, 90 + STEP)
    theirs.note(other, -1)
    assert ours.held(me) == theirs.held(me) == (2, 89 + STEP)
    theirs.name(other, other.key, "d" * 32)
    os.close(theirs._file)  # as the system closes it when a process is killed
    assert ours.held(me) == (1, 30) and ours.living_keys() == {"a" * 32}
    assert ours.left_behind(at_once=False).entries == []
    left = ours.left_behind(at_once=True)
    assert [(one.key, one.slot) for one in left.entries] == [("b" * 32, "d" * 32)]
    ours.settle(left)
    ours.leave(entry)
    ours.close()
    assert not list(tmp_path.iterdir())


def test_uploads_of_a_killed_worker_count_no_more(user: User) -> None:
    raws = as_many_as_allowed(user)
    assert_error(user.send(b"one more"), 429)
    assert user.service.process
    for pid in family(user.service.process.pid)[1:]:
        os.kill(pid, signal.SIGKILL)
    user.service.wait_until(lambda: user.send(os.urandom(4 * MIB)).status_code == 201)
    for raw in raws:
        raw.close()
    for path in (user.service.data_dir / "staging").iterdir():  # upkeep does this each minute, perhaps now
        path.unlink(missing_ok=True)

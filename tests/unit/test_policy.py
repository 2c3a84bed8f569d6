"""What an account may have: its own limit or the default, and files that are counted only if there is room."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from media_gallery.app import started
from media_gallery.db import Connection, Database, accounts
from media_gallery.db.sqlite import SqliteDatabase
from media_gallery.errors import QuotaExceeded, TooManyFiles, Unauthorized
from media_gallery.models import Account, AccountId, Quota
from media_gallery.policy import Allowance, Policy
from tests.service import empty_database

JID = "anna@example.org"


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = SqliteDatabase(Path(shutil.copy(empty_database(), tmp_path)))
    async with started(database):
        yield database


@pytest.fixture
async def account(db: Database) -> AccountId:
    return (await db.write(lambda c: accounts.ensure_account(c, JID, "example.org", 1))).id


async def found(db: Database) -> Account:
    account = await db.read(lambda c: accounts.find_account(c, JID))
    assert account
    return account


async def test_an_account_s_own_limit_wins_over_the_default(db: Database, account: AccountId) -> None:
    policy = Policy(Allowance(100, 10))
    assert await db.read(lambda c: policy.get_quota(c, account)) == Quota(100, 0)
    for own in (0, 7, 1000):
        await db.write(partial(accounts.set_quota, jid=JID, quota=own))
        assert policy.allowance(await found(db)) == Allowance(own, 10)
        assert await db.read(lambda c: policy.get_quota(c, account)) == Quota(own, 0)


async def test_of_several_files_only_those_with_room_are_counted(db: Database, account: AccountId) -> None:
    policy = Policy(Allowance(10, 3))

    async def charge(size: int) -> int:
        async def transaction(c: Connection) -> Quota:
            return await policy.charge(c, account, size, "file")

        return (await db.write(transaction)).used

    answers = await asyncio.gather(*(charge(4) for _ in range(5)), return_exceptions=True)
    refusals = [answer for answer in answers if isinstance(answer, QuotaExceeded)]
    assert [answer for answer in answers if isinstance(answer, int)] == [4, 8]
    assert [refusal.details for refusal in refusals] == [{"quota": 10, "used": 8, "required": 4}] * 3
    assert await charge(2) == 10
    with pytest.raises(TooManyFiles):
        await charge(0)
    assert ((await found(db)).used, (await found(db)).files) == (10, 3)


async def test_an_account_as_it_was_read_tells_whether_there_is_room(db: Database, account: AccountId) -> None:
    policy = Policy(Allowance(10, 2))
    await db.write(lambda c: policy.charge(c, account, 4, "file"))
    assert policy.room(await found(db), 6) == await db.read(lambda c: policy.check_room(c, account, 6)) == Quota(10, 4)
    assert policy.room(await found(db), 7) is None
    await db.write(lambda c: policy.charge(c, account, 0, "file"))
    assert policy.room(await found(db), 0) is None


async def test_an_account_that_has_gone_has_no_room(db: Database, account: AccountId) -> None:
    policy = Policy(Allowance(10, 3))
    await db.write(lambda c: accounts.close_account(c, account))
    for asked in (
        db.read(lambda c: policy.get_quota(c, account)),
        db.read(lambda c: policy.check_room(c, account, 1)),
        db.write(lambda c: policy.charge(c, account, 1, "file")),
    ):
        with pytest.raises(Unauthorized):
            await asked

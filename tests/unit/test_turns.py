"""Which account gets the next decoder: accounts take turns, and none waits for ever."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from media_gallery import thumbnails
from media_gallery.thumbnails import Busy, _Turns

# These tests are the same on every back end.
pytestmark = pytest.mark.same_everywhere


async def test_an_account_that_sends_many_delays_nobody() -> None:
    turns, done = _Turns(1), list[int]()

    async def job(owner: int) -> None:
        async with turns.taken(owner):
            done.append(owner)
            await asyncio.sleep(0)

    async with turns.taken(1):
        jobs = [asyncio.create_task(job(owner)) for owner in (1, 1, 1, 1, 2, 3, 2)]
        await asyncio.sleep(0)
        assert done == []
    await asyncio.gather(*jobs)
    assert done == [1, 2, 3, 1, 2, 1, 1]


async def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = _Turns(1)
    async with turns.taken(1):
        with monkeypatch.context() as patch:
            patch.setattr(thumbnails, "PATIENCE", 0)
            with pytest.raises(Busy):
                await turns.taken(2).__aenter__()
    async with turns.taken(2):
        pass


@pytest.mark.parametrize("moment", ["before its turn", "as it comes"])
async def test_who_gives_up_passes_its_turn_on(moment: str) -> None:
    turns, place = _Turns(1), AsyncExitStack()
    await place.enter_async_context(turns.taken(1))
    waiting = asyncio.create_task(turns.taken(2).__aenter__())
    await asyncio.sleep(0)
    if moment == "as it comes":
        await place.aclose()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await place.aclose()
    async with turns.taken(3):
        assert turns._free == 0
    assert turns._free == 1

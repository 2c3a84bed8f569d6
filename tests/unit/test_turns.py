"""Which account gets the next decoder: accounts take turns, and none waits for ever."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from media_gallery import metrics, thumbnails
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


async def test_operators_see_how_many_wait() -> None:
    def seen() -> list[float | None]:
        return [
            metrics.registry.get_sample_value("gallery_decoder_jobs", {"state": state})
            for state in ("running", "waiting")
        ]

    turns, before = _Turns(1), seen()

    async def job() -> None:
        async with turns.taken(2):
            pass

    assert before == [0, 0]
    async with turns.taken(1):
        jobs = [asyncio.create_task(job()) for _ in range(3)]
        await asyncio.sleep(0)
        assert seen() == [1, 3]
    await asyncio.gather(*jobs)
    assert seen() == [0, 0]


def test_jobs_of_a_worker_that_was_killed_do_not_wait_for_ever(tmp_path: Path) -> None:
    ours, nobodys = (tmp_path / f"gauge_livesum_{pid}.db" for pid in (os.getpid(), 1 << 30))
    last_value = tmp_path / f"gauge_mostrecent_{1 << 30}.db"
    for path in (ours, nobodys, last_value):
        path.touch()
    metrics._forget_the_dead(tmp_path)
    assert set(tmp_path.iterdir()) == {ours, last_value}
